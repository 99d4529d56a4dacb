"""Credentials at rest: keys, key file, wrong keys, and a rotation that never loses a credential."""

import stat
import subprocess
import sys

import pytest
from sqlalchemy import select

from nova_pipelines.database import keyfile
from nova_pipelines.database.clients import add_client, credential_secret, set_credential
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.secrets import (
    SecretBox,
    drop_old_keys,
    key_path,
    new_key,
    open_box,
    rotate_keys,
)
from nova_pipelines.domain.errors import ConfigurationError, Conflict, CredentialError
from nova_pipelines.settings import load_settings

SECRET = {"password": "hunter2 ñ '''\n"}


def store(databases, settings, *labels):
    with databases.nova.session() as session:
        client = add_client(session, name="IDOM", slug="idom")
        for label in labels or ("default",):
            set_credential(session, open_box(settings), client, "email", label, settings={}, secret=SECRET)


def stored(databases):
    with databases.nova.read() as session:
        return session.scalars(select(Credential).order_by(Credential.id)).all()


def secrets(databases, box):
    return [credential_secret(box, credential) for credential in stored(databases)]


def rotate(databases, settings):
    with databases.nova.session() as session:
        return rotate_keys(session, settings)


def test_what_goes_in_comes_out_and_is_not_to_be_seen():
    box = SecretBox([new_key()])
    token = box.encrypt(SECRET)
    assert b"hunter2" not in token
    assert box.decrypt(token) == SECRET
    assert box.encrypt(SECRET) != token
    assert repr(box) == "SecretBox(1 keys)"


def test_old_keys_open_and_the_newest_closes():
    old, new = new_key(), new_key()
    token = SecretBox([old]).encrypt(SECRET)
    both = SecretBox([new, old])
    assert both.decrypt(token) == SECRET
    assert SecretBox([new]).decrypt(both.rotate(token)) == SECRET
    assert SecretBox([new]).decrypt(both.encrypt(SECRET)) == SECRET


@pytest.mark.parametrize("operation", ["decrypt", "rotate"])
def test_a_wrong_key_says_so(operation):
    token = SecretBox([new_key()]).encrypt(SECRET)
    with pytest.raises(CredentialError, match="NOVA_SECRET_KEY does not fit what is stored") as caught:
        getattr(SecretBox([new_key()]), operation)(token)
    assert "nova client credentials set" in caught.value.remedy


@pytest.mark.parametrize("token", [b"", b"garbage", "ñ".encode(), b"gAAAAA" + b"A" * 100])
def test_a_damaged_token_is_a_credential_error(token):
    with pytest.raises(CredentialError):
        SecretBox([new_key()]).decrypt(token)


def test_a_text_that_is_no_key_says_how_to_make_one():
    with pytest.raises(ConfigurationError, match=r"secret key 2 is not a Fernet key.*Fernet.generate_key") as caught:
        SecretBox([new_key(), "hunter2"])
    assert "hunter2" not in str(caught.value)


def test_the_key_file_is_made_once_for_its_owner_alone(database_settings):
    path = key_path(database_settings)
    token = open_box(database_settings).encrypt(SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert open_box(database_settings).decrypt(token) == SECRET
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_file_open_to_others_is_refused(database_settings, mode):
    open_box(database_settings)
    key_path(database_settings).chmod(mode)
    with pytest.raises(ConfigurationError, match=f"has mode {mode:04o}.*chmod 600"):
        open_box(database_settings)


def test_an_empty_key_file_is_refused(database_settings):
    open_box(database_settings)
    key_path(database_settings).write_text("")
    with pytest.raises(ConfigurationError, match="is empty"):
        open_box(database_settings)


def test_a_key_file_with_nonsense_is_refused(database_settings):
    open_box(database_settings)
    key_path(database_settings).write_text("hunter2\n")
    with pytest.raises(ConfigurationError, match="is not a Fernet key") as caught:
        open_box(database_settings)
    assert "hunter2" not in str(caught.value)


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    code = (
        "import sys; from pathlib import Path; from nova_pipelines.database import keyfile, secrets\n"
        "path = Path(sys.argv[1]); keyfile.create(path, secrets.new_key()); print(keyfile.read_keys(path))"
    )
    path = tmp_path / "home" / "secret.key"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) for _ in range(4)]
    answers = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(answers) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["secret.key"]


def test_a_new_key_never_replaces_a_file(tmp_path):
    path = tmp_path / "secret.key"
    keyfile.create(path, "first")
    keyfile.create(path, "second")
    assert keyfile.read_keys(path) == ["first"]


def test_keys_of_the_environment_come_first(database_settings, monkeypatch):
    key = new_key()
    monkeypatch.setenv("NOVA_SECRET_KEY", f" {key} , {new_key()}")
    settings = load_settings()
    token = open_box(settings).encrypt(SECRET)
    assert SecretBox([key]).decrypt(token) == SECRET
    assert not key_path(settings).exists()


def test_rotation_of_the_key_file(databases, database_settings):
    store(databases, database_settings, "a", "b")
    old_box = SecretBox(keyfile.read_keys(key_path(database_settings)))
    before = [credential.secret for credential in stored(databases)]

    report = rotate(databases, database_settings)
    assert (report.credentials, report.keys, report.source) == (2, 2, "file")
    assert stat.S_IMODE(key_path(database_settings).stat().st_mode) == 0o600
    assert secrets(databases, open_box(database_settings)) == [SECRET, SECRET]
    assert {credential.secret for credential in stored(databases)}.isdisjoint(before)
    with pytest.raises(CredentialError, match=r"credential 1 \(email, a\)"):
        secrets(databases, old_box)

    with databases.nova.session() as session:
        assert drop_old_keys(session, database_settings) == 1
    assert len(keyfile.read_keys(key_path(database_settings))) == 1
    assert secrets(databases, open_box(database_settings)) == [SECRET, SECRET]


def test_a_long_running_process_follows_the_rotation(databases, database_settings):
    box = open_box(database_settings)
    store(databases, database_settings)
    rotate(databases, database_settings)
    assert secrets(databases, box) == [SECRET]
    newest = SecretBox(keyfile.read_keys(key_path(database_settings))[:1])
    assert newest.decrypt(box.encrypt(SECRET)) == SECRET


def test_a_crash_between_file_and_commit_loses_nothing(databases, database_settings):
    store(databases, database_settings)

    def crash():
        with databases.nova.session() as session:
            rotate_keys(session, database_settings)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            crash()
    assert len(keyfile.read_keys(key_path(database_settings))) == 3
    assert secrets(databases, open_box(database_settings)) == [SECRET]
    with pytest.raises(CredentialError, match="still needs an older key"), databases.nova.session() as session:
        drop_old_keys(session, database_settings)
    rotate(databases, database_settings)
    assert secrets(databases, open_box(database_settings)) == [SECRET]


def test_keys_are_not_dropped_in_the_transaction_that_rotates(databases, database_settings):
    store(databases, database_settings)

    def rotate_and_drop():
        with databases.nova.session() as session:
            rotate_keys(session, database_settings)
            drop_old_keys(session, database_settings)

    with pytest.raises(Conflict, match="commit it first"):
        rotate_and_drop()
    assert secrets(databases, open_box(database_settings)) == [SECRET]


def test_a_credential_that_does_not_open_stops_the_rotation_before_it_begins(databases, database_settings):
    store(databases, database_settings, "a", "b")
    with databases.nova.session() as session:
        session.get_one(Credential, 2).secret = SecretBox([new_key()]).encrypt(SECRET)
    keys = keyfile.read_keys(key_path(database_settings))
    first = stored(databases)[0].secret
    with pytest.raises(CredentialError, match=r"credential 2 \(email, b\)"):
        rotate(databases, database_settings)
    assert keyfile.read_keys(key_path(database_settings)) == keys
    assert stored(databases)[0].secret == first


def test_rotation_with_keys_of_the_environment(databases, database_settings, monkeypatch):
    old, new = new_key(), new_key()
    monkeypatch.setenv("NOVA_SECRET_KEY", old)
    store(databases, load_settings())
    monkeypatch.setenv("NOVA_SECRET_KEY", f"{new},{old}")
    settings = load_settings()
    with pytest.raises(CredentialError, match="still needs an older key"), databases.nova.session() as session:
        drop_old_keys(session, settings)
    report = rotate(databases, settings)
    assert (report.credentials, report.keys, report.source) == (1, 2, "environment")
    assert secrets(databases, SecretBox([new])) == [SECRET]
    with databases.nova.session() as session:
        assert drop_old_keys(session, settings) == 1
    assert not key_path(settings).exists()
