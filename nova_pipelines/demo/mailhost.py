"""The process behind `DemoServers`: pymap (IMAP) and aiosmtpd (SMTP) on two sockets that it inherits.

Knows nothing of NOVA. It lives as long as its standard input: when the parent closes it, or dies, it ends.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import mailbox
import socket
import sys
import time
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

READY = "ready"
#: pymap runs every command in a thread, and IDLE keeps its thread: this many clients may idle at once
WORKERS = 32
#: of the password file. The default of 500,000 costs 0.2 CPU-s at every login, for a password that stands
#: in clear text in the file beside it
PBKDF2_ROUNDS = 1000
#: in characters of a file name; longer addresses are refused (RFC 5321 allows 254 for an address)
LONGEST_NAME = 200

_log = logging.getLogger("nova.demo.mailhost")


@dataclass(frozen=True, slots=True)
class Account:
    """What the parent hands over on standard input, as one line of JSON."""

    folder: Path
    imap_fd: int
    smtp_fd: int
    user: str
    password: str

    @property
    def inbox(self) -> Path:
        return self.folder / "imap" / "inbox"

    @property
    def answers(self) -> Path:
        return self.folder / "answers"


def folder_name(address: str) -> str | None:
    """The folder of an address that somebody wrote to; None if it cannot have one. The address is hostile."""
    name = quote(address.lower(), safe="@+")
    return name if "@" in name and len(name) <= LONGEST_NAME else None


def prepare(account: Account) -> None:
    """Makes the folders, and clears lock files that a killed process left (the parent's lock shows that
    no other process uses this folder).

    A new inbox gets the time as its UIDVALIDITY: RFC 9051 wants a greater one whenever a folder is made
    anew; pymap's own choice starts over every 18 hours. An inbox that exists keeps its own.
    """
    account.answers.mkdir(exist_ok=True)
    account.inbox.parent.mkdir(exist_ok=True)
    mailbox.Maildir(account.inbox, create=True)
    for lock in (*account.inbox.glob("*.lock"), *account.inbox.parent.glob("*.lock")):
        lock.unlink()
    uids = account.inbox / "dovecot-uidlist"
    if not uids.exists():
        uids.write_text(f"3 V{int(time.time())} N1 G{uuid.uuid4().hex}\r\n", "ascii")


class WholeResponses:
    """A stream writer that sends what was written when it is drained, as pymap does after each response.

    pymap alone sends a response in pieces, and the IDLE of imap-tools breaks off when it reads half a line.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []
        self.close = writer.close

    def write(self, data: bytes) -> None:
        self._pieces.append(data)

    async def drain(self) -> None:
        pieces, self._pieces = self._pieces, []
        self._writer.write(b"".join(pieces))
        await self._writer.drain()


@asynccontextmanager
async def imap_server(account: Account) -> AsyncIterator[Any]:
    """Serves the inbox. Yields the session of its owner, through which new mails get their UID."""
    from proxyprotocol.reader import ProxyProtocolReader
    from pymap.backend.maildir import Config, Login
    from pymap.backend.maildir.users import PasswordsFile, UsersFile
    from pymap.imap import IMAPServer
    from pysasl.creds.plain import PlainCredentials
    from pysasl.hashing import BuiltinHash

    base = str(account.inbox.parent)
    args = Namespace(
        base_dir=base, layout="++", colon=None, concurrency=WORKERS, passlib_cfg=None, debug=False,
        host=None, port=0, cert=None, key=None, tls=False, proxy_protocol=None, inherited_sockets=None,
    )  # fmt: skip
    async with UsersFile.with_write(base) as users, PasswordsFile.with_write(base) as passwords:
        users.set(users.build_record(account.user, account.inbox.name))
        hashed = BuiltinHash(rounds=PBKDF2_ROUNDS).hash(account.password)
        passwords.set(passwords.build_record(account.user, hashed))
    config = Config.from_args(args, hash_context=BuiltinHash())
    config.apply_context()
    login = Login(config)
    serve_connection: Any = IMAPServer(login, config)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, info: Any) -> None:
        await serve_connection(reader, WholeResponses(writer), info)

    callback = ProxyProtocolReader(config.proxy_protocol).get_callback(connected)
    server = await asyncio.start_server(callback, sock=socket.socket(fileno=account.imap_fd))
    credentials = PlainCredentials(account.user, account.password)
    owner = await login.authorize(await login.authenticate(credentials), account.user)
    async with owner.new_session() as session:
        yield session
    server.close()


class Postman:
    """aiosmtpd's handler: mail for the client goes to the inbox, all other mail to a maildir of its
    recipient. As with a real server, writing to others needs a login."""

    def __init__(self, account: Account, session: Any) -> None:
        self._account = account
        self._session = session
        self._one_at_a_time = asyncio.Lock()

    async def handle_RCPT(  # noqa: N802 – the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.lower() != self._account.user:
            if not session.authenticated:
                return "530 5.7.0 Authentication required to write to other domains"
            if folder_name(address) is None:
                return "553 5.1.3 No such mailbox can be made here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        async with self._one_at_a_time:
            for address in dict.fromkeys(envelope.rcpt_tos):
                if address.lower() == self._account.user:
                    await self._to_inbox(envelope.content)
                else:
                    path = self._account.answers / str(folder_name(address))
                    mailbox.Maildir(path, create=True).add(envelope.content)
        return "250 OK"

    async def _to_inbox(self, content: bytes) -> None:
        """Returns only when the mail has its UID. Left to the next client, pymap would number all new
        mails in the order of the directory, not of their arrival; its APPEND gives a mail two UIDs when
        another client looks at the same moment."""
        from pymap.context import subsystem

        mailbox.Maildir(self._account.inbox, create=False).add(content)
        await subsystem.get().execute(self._session.get_mailbox("INBOX"))


async def smtp_server(account: Account, session: Any) -> asyncio.Server:
    from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        expected = (account.user.encode(), account.password.encode())
        right = isinstance(data, LoginPassword) and all(map(hmac.compare_digest, data, expected))
        return AuthResult(success=right, handled=False)

    postman, loop = Postman(account, session), asyncio.get_running_loop()

    def connection() -> SMTP:
        return SMTP(
            postman, loop=loop, hostname="localhost", enable_SMTPUTF8=True,
            auth_require_tls=False, authenticator=authenticate,
        )  # fmt: skip

    return await loop.create_server(connection, sock=socket.socket(fileno=account.smtp_fd))


async def serve(account: Account) -> None:
    """Serves until standard input ends."""
    parent_gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), parent_gone.set)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(imap_server(account))
        stack.callback((await smtp_server(account, session)).close)
        print(READY, flush=True)  # noqa: T201 – the parent waits for it
        await parent_gone.wait()


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    given = json.loads(sys.stdin.readline())
    account = Account(**{**given, "folder": Path(given["folder"])})
    prepare(account)
    asyncio.run(serve(account))


if __name__ == "__main__":
    main()
