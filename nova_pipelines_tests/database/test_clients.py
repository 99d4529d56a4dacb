"""Clients and credentials: checks, duplicates, one primary of each kind, removal that keeps history."""

import uuid

import pytest
from sqlalchemy import select

from nova_pipelines.database.clients import (
    add_client,
    credential_secret,
    find_client,
    mailboxes,
    remove_client,
    set_credential,
    update_client,
)
from nova_pipelines.database.nova import Client, Credential, Execution, MailFolder, Message
from nova_pipelines.database.secrets import SecretBox, new_key
from nova_pipelines.database.workflows import publish
from nova_pipelines.domain.errors import Conflict, CredentialError, NotFound, PermanentError

BOX = SecretBox([new_key()])
MAIL = {"imap_host": "imap.gmail.com", "imap_port": 993, "address": "facturas@idom.es"}


def mail(session, client, label="default", password="hunter2", **others):  # noqa: S107  # a test's
    return set_credential(session, BOX, client, "email", label, settings=MAIL, secret={"password": password}, **others)


def idom(session, **others):
    return add_client(session, **{"name": "IDOM", "slug": "idom", **others})


def test_a_client_is_added_and_found(databases):
    with databases.nova.session() as session:
        idom(session, email="ana@idom.es", sender_whitelist=[" Ana@IDOM.es", "@Acme.com "])
    with databases.nova.read() as session:
        client = find_client(session, " IDOM ")
        assert (client.name, client.email, client.is_active) == ("IDOM", "ana@idom.es", True)
        assert client.sender_whitelist == ["ana@idom.es", "@acme.com"]
        assert (client.expose_credentials, client.allow_network) == (False, False)


def test_a_slug_is_taken_once_and_the_session_goes_on(databases):
    with databases.nova.session() as session:
        idom(session)
        with pytest.raises(Conflict, match="there is a client idom already"):
            idom(session)
        idom(session, slug="idom-2")
    with databases.nova.read() as session:
        assert session.scalars(select(Client.slug).order_by(Client.id)).all() == ["idom", "idom-2"]


@pytest.mark.parametrize("slug", ["", "IDOM", "i dom", "-idom", "idom-", "a--b", "ñ", "a/b", "a\n", "x" * 101])
def test_a_slug_that_is_none(databases, slug):
    with databases.nova.session() as session, pytest.raises(PermanentError, match="is no slug"):
        idom(session, slug=slug)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "  "),
        ("name", "x" * 201),
        ("email", "ana"),
        ("email", "ana@idom.es\nBcc: all@x.org"),
        ("email", "a@b@c"),
        ("sender_whitelist", ["example.com"]),
        ("sender_whitelist", ["@"]),
        ("sender_whitelist", ["ana@ok.es", "*"]),
    ],
)
def test_values_that_cannot_be(databases, field, value):
    with databases.nova.session() as session:
        with pytest.raises(PermanentError):
            idom(session, **{field: value})
        client = idom(session)
        with pytest.raises(PermanentError):
            update_client(session, client, allow_network=True, **{field: value})
        assert client.allow_network is False


def test_update(databases):
    with databases.nova.session() as session:
        client = update_client(session, idom(session), name="Idom SA", is_active=False, email=None)
        assert (client.name, client.is_active) == ("Idom SA", False)
        with pytest.raises(PermanentError, match="slug cannot be changed"):
            update_client(session, client, slug="other")
        with pytest.raises(NotFound):
            find_client(session, "idom", include_inactive=False)


def test_close_matches_are_named(databases):
    with databases.nova.session() as session:
        idom(session)
        with pytest.raises(NotFound, match=r"did you mean idom\?"):
            find_client(session, "idmo")


def test_a_client_without_history_is_deleted_with_what_belongs_to_it(databases):
    with databases.nova.session() as session:
        credential = mail(session, idom(session))
        session.add(MailFolder(credential_id=credential.id, folder="INBOX", uidvalidity=2**32 - 1, first_uid=2**32 - 1))
    with databases.nova.session() as session:
        assert remove_client(session, find_client(session, "idom")) == "deleted"
    with databases.nova.read() as session:
        for table in (Client, Credential, MailFolder):
            assert session.scalars(select(table)).all() == []


@pytest.mark.parametrize("history", ["message", "execution"])
def test_a_client_with_history_is_deactivated(databases, history):
    with databases.nova.session() as session:
        client = idom(session)
        credential = mail(session, client)
        if history == "message":
            place = {"folder": "INBOX", "uidvalidity": 2**32 - 1, "uid": 2**32 - 1}
            session.add(Message(client_id=client.id, credential_id=credential.id, **place))
        else:
            version = publish(
                session, name="w", job_name="w", description=None, definition={}, source="", source_format="json"
            )
            work = {"workflow_id": version.workflow_id, "version_id": version.id}
            session.add(Execution(task_id=str(uuid.uuid4()), client_id=client.id, **work))
    with databases.nova.session() as session:
        assert remove_client(session, find_client(session, "idom")) == "deactivated"
    with databases.nova.read() as session:
        assert find_client(session, "idom").is_active is False
        assert len(session.scalars(select(Credential)).all()) == 1


def test_a_credential_is_stored_encrypted_and_replaced(databases):
    with databases.nova.session() as session:
        client = idom(session)
        first = mail(session, client)
        again = mail(session, client, password="second")
        assert again.id == first.id
    with databases.nova.read() as session:
        credential = session.scalars(select(Credential)).one()
        assert b"second" not in credential.secret
        assert credential_secret(BOX, credential) == {"password": "second"}
        assert credential.settings == MAIL
        with pytest.raises(CredentialError, match=r"credential 1 \(email, default\).*does not fit"):
            credential_secret(SecretBox([new_key()]), credential)


def primaries(session):
    return session.scalars(select(Credential.label).where(Credential.is_primary).order_by(Credential.id)).all()


def test_one_primary_of_each_kind(databases):
    with databases.nova.session() as session:
        client = idom(session)
        mail(session, client, "a")
        mail(session, client, "b")
        set_credential(
            session, BOX, client, "database", "d", settings={"url": "postgresql://u@h/n"}, secret={"password": "x"}
        )
        assert primaries(session) == ["a", "d"]
        mail(session, client, "b", primary=True)
        assert primaries(session) == ["b", "d"]
        mail(session, client, "c", primary=True)
        assert primaries(session) == ["d", "c"]
        mail(session, client, "c")
        mail(session, client, "a", primary=False)
        assert primaries(session) == ["d", "c"]
        with pytest.raises(Conflict, match="make another one primary"):
            mail(session, client, "c", primary=False)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("email", {"password": "hunter2"}, "no setting password"),
        ("email", {"imap_port": "993"}, "imap_port is no port"),
        ("email", {"authserv_id": "mx.google.com; dmarc=pass"}, "authserv_id is no name of a server"),
        ("email", {"authserv_hops": -1}, "authserv_hops is no number from 0 to 20"),
        ("email", {"smtp_port": 0}, "smtp_port is no port"),
        ("email", {"smtp_port": True}, "smtp_port is no port"),
        ("fax", {}, "no kind of credential"),
        ("database", {}, "no database URL"),
        ("database", {"url": "not a url hunter2"}, "no database URL"),
        ("database", {"url": "postgresql://u:hunter2@h/n"}, "holds a password"),
        ("database", {"url": "postgresql://u@h/n?password=hunter2"}, "holds a password"),
    ],
)
def test_settings_that_cannot_be_or_hold_a_secret(databases, kind, settings, reason):
    with databases.nova.session() as session:
        client = idom(session)
        with pytest.raises(PermanentError, match=reason) as caught:
            set_credential(session, BOX, client, kind, settings=settings, secret={"password": "x"})
        assert "hunter2" not in str(caught.value)
        assert session.scalars(select(Credential)).all() == []


def test_mailboxes_are_those_of_active_clients(databases):
    with databases.nova.session() as session:
        one, two, off = (idom(session, slug=slug) for slug in ("one", "two", "off"))
        mail(session, two, "a")
        mail(session, one, "b")
        mail(session, one, "c")
        mail(session, off, "d")
        set_credential(session, BOX, one, "database", settings={"url": "sqlite:////x.db"}, secret={})
        update_client(session, off, is_active=False)
        found = [(client.slug, credential.label) for client, credential in mailboxes(session)]
    assert found == [("one", "b"), ("one", "c"), ("two", "a")]
