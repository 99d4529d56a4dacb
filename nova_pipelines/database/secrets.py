"""Credentials at rest: encryption with the keys of NOVA_SECRET_KEY or of the file NOVA_HOME/secret.key.

Losing a key loses the credentials, so a key is only ever added before its first use, and only dropped after
every credential was seen to open without it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from nova_pipelines.database import keyfile
from nova_pipelines.database.nova import Credential, Webhook
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import ConfigurationError, Conflict, CredentialError
from nova_pipelines.settings import NEW_KEY_COMMAND, Settings

_ROTATED = "nova_keys_rotated"


def new_key() -> str:
    """A fresh Fernet key, as text."""
    return Fernet.generate_key().decode()


class SecretBox:
    """Encrypts with the first key, decrypts with any.

    `reread` gives the keys as they are now: a long-running process follows a rotation of the key file.
    """

    def __init__(self, keys: Sequence[str], *, reread: Callable[[], Sequence[str]] | None = None) -> None:
        self._reread = reread
        self._use(tuple(keys))

    def __repr__(self) -> str:
        return f"SecretBox({len(self._keys)} keys)"

    def _use(self, keys: tuple[str, ...]) -> None:
        self._fernet = MultiFernet([_fernet(key, place) for place, key in enumerate(keys, start=1)])
        self._keys = keys

    def _current(self) -> MultiFernet:
        keys = tuple(self._reread()) if self._reread else self._keys
        if keys != self._keys:
            self._use(keys)
        return self._fernet

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """A key of 32 bytes for a purpose from each key, newest first (HKDF-SHA256, RFC 5869): sign with the first."""
        self._current()
        infos = [HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()) for _ in self._keys]
        return tuple(info.derive(key.encode()) for info, key in zip(infos, self._keys, strict=True))

    def encrypt(self, secret: Mapping[str, Any]) -> bytes:
        """A Fernet token of a JSON object, under the newest key."""
        return self._current().encrypt(canonical_json(dict(secret)).encode())

    def decrypt(self, token: bytes) -> dict[str, Any]:
        """The object that `encrypt` was given. Raises CredentialError when no key fits."""
        try:
            return json.loads(self._current().decrypt(token))
        except InvalidToken:
            raise self._does_not_fit() from None

    def rotate(self, token: bytes) -> bytes:
        """The same secret in a token under the newest key. Raises CredentialError when no key fits."""
        try:
            return self._current().rotate(token)
        except InvalidToken:
            raise self._does_not_fit() from None

    def _does_not_fit(self) -> CredentialError:
        keys = "the key file NOVA_HOME/secret.key" if self._reread else "NOVA_SECRET_KEY"
        return CredentialError(
            f"{keys} does not fit what is stored",
            remedy="give the key that it was stored with as well, after the newest; "
            "or set the credentials again with `nova client credentials set`",
        )


def _fernet(key: str, place: int) -> Fernet:
    try:
        return Fernet(key)
    except ValueError:
        remedy = f"make one with: {NEW_KEY_COMMAND}"
        raise ConfigurationError(f"secret key {place} is not a Fernet key", remedy=remedy) from None


def key_path(settings: Settings) -> Path:
    return settings.nova_home / "secret.key"


def open_box(settings: Settings) -> SecretBox:
    """The box with the keys of NOVA_SECRET_KEY, or else of the key file, which is made at first use.

    Raises ConfigurationError for keys that are none and for a file that others may read.
    """
    if settings.secret_keys:
        return SecretBox(settings.secret_keys)
    path = key_path(settings)
    return SecretBox(_all_keys(settings), reread=lambda: keyfile.read_keys(path))


#: what tokens of NOVA's own programs begin with
INTERNAL = "nova_internal_"


def internal_token(settings: Settings) -> str:
    """By which NOVA's own programs (watcher, `nova workflow load`, …) are known to its web service.

    Derived from the newest key (HKDF, RFC 5869). Whoever has the key can read every credential anyway.
    Raises ConfigurationError as `open_box` does.
    """
    return internal_tokens(settings)[0]


def internal_tokens(settings: Settings) -> list[str]:
    """Those of all keys, newest first: while keys are rotated some programs know the old ones only."""
    return [f"{INTERNAL}{_derived(key, b'nova internal').hex()}" for key in _all_keys(settings)]


def login_box(settings: Settings) -> MultiFernet:
    """Encrypts what a browser keeps of a login for some minutes; with keys of its own, so that nothing in a cookie can
    be taken for a credential."""
    keys = [base64.urlsafe_b64encode(_derived(key, b"nova login")) for key in _all_keys(settings)]
    return MultiFernet([Fernet(key) for key in keys])


def _all_keys(settings: Settings) -> list[str]:
    """Newest first; the key file is made at first use."""
    path = key_path(settings)
    if not settings.secret_keys and not path.exists():
        keyfile.create(path, new_key())
    return settings.secret_keys or keyfile.read_keys(path)


def _derived(key: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(base64.urlsafe_b64decode(key))


@dataclass(frozen=True, slots=True)
class Rotation:
    """`credentials` were put under the newest key; `keys` are in use, from the environment or the file."""

    credentials: int
    keys: int
    source: Literal["environment", "file"]


def rotate_keys(session: Session, settings: Settings) -> Rotation:
    """Puts every credential under a new key (file) or under the first key of NOVA_SECRET_KEY.

    The old keys stay, so whatever a crash leaves undone can be read. Raises CredentialError, with nothing
    changed, when a credential does not open with the keys that there are.
    """
    box = open_box(settings)
    credentials = _locked_credentials(session)
    webhooks = _webhooks(session)
    for credential in credentials:
        open_credential(box, credential)
    for webhook in webhooks:
        box.decrypt(webhook.secret)
    if not settings.secret_keys:
        # the file first: a token under a key that is not yet on the disk could be lost
        path = key_path(settings)
        keyfile.replace(path, [new_key(), *keyfile.read_keys(path)])
    for row in (*credentials, *webhooks):
        row.secret = box.rotate(row.secret)
    session.flush()
    session.info[_ROTATED] = session.get_transaction()
    keys = settings.secret_keys or keyfile.read_keys(key_path(settings))
    source = "environment" if settings.secret_keys else "file"
    return Rotation(len(credentials), len(keys), source)


def drop_old_keys(session: Session, settings: Settings) -> int:
    """Takes all keys but the newest out of the key file; returns how many. Backups may still need them.

    With NOVA_SECRET_KEY it only makes sure that the first key is enough. Raises CredentialError when it is
    not (`rotate_keys` comes first, in a transaction of its own).
    """
    if session.info.get(_ROTATED) is session.get_transaction():  # a rollback would bring back tokens whose key is gone
        raise Conflict("the keys were rotated in this same transaction", remedy="commit it first")
    credentials = _locked_credentials(session)
    path = key_path(settings)
    keys = settings.secret_keys or keyfile.read_keys(path)
    newest = SecretBox(keys[:1])
    for credential in credentials:
        try:
            newest.decrypt(credential.secret)
        except CredentialError:
            raise CredentialError(
                f"credential {credential.id} ({credential.label}) still needs an older key",
                remedy="run `nova keys rotate` first",
            ) from None
    for webhook in _webhooks(session):
        try:
            newest.decrypt(webhook.secret)
        except CredentialError:
            raise CredentialError(
                f"webhook {webhook.id} still needs an older key", remedy="run `nova keys rotate` first"
            ) from None
    if not settings.secret_keys:
        keyfile.replace(path, keys[:1])
    return len(keys) - 1


def open_credential(box: SecretBox, credential: Credential) -> dict[str, Any]:
    """What is secret in a credential. Raises CredentialError that names the credential."""
    try:
        return box.decrypt(credential.secret)
    except CredentialError as error:
        place = f"credential {credential.id} ({credential.kind}, {credential.label})"
        raise CredentialError(f"{place}: {error.message}", remedy=error.remedy) from None


def lock_credentials(session: Session, *, alone: bool = False) -> None:
    """Taken before a secret is encrypted and stored, so that no key is dropped between the two.

    SQLite's writers are alone anyway, from their first statement on.
    """
    if session.get_bind().dialect.name == "postgresql":
        mode = "SHARE ROW EXCLUSIVE" if alone else "ROW EXCLUSIVE"
        session.execute(text(f"LOCK TABLE credentials IN {mode} MODE"))
    else:
        session.connection()


def _locked_credentials(session: Session) -> Sequence[Credential]:
    lock_credentials(session, alone=True)
    query = select(Credential).order_by(Credential.id)
    return session.scalars(query, execution_options={"populate_existing": True}).all()


def _webhooks(session: Session) -> Sequence[Webhook]:
    """Their keys are encrypted by the same box, under the same lock."""
    return session.scalars(select(Webhook).order_by(Webhook.id), execution_options={"populate_existing": True}).all()
