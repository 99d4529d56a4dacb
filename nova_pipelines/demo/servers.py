"""The mail servers of the demo: a real IMAP and a real SMTP server on loopback, in a process of their own.

Owns their ports, folder, password and life; what they do with mail stands in `mailhost`. Without TLS,
which loopback does not need.
"""

from __future__ import annotations

import email
import fcntl
import json
import mailbox
import os
import re
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from email.policy import default as modern
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from nova_pipelines.demo.mailhost import READY
from nova_pipelines.domain.errors import ConfigurationError

#: the mailbox of the demo's client
CLIENT_ADDRESS = "facturas@idom.example"
LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
#: Python's maildir names a mail `<seconds>.M<microseconds>P<process>Q<count>.<host>`
_ARRIVAL = re.compile(r"(\d+)\.M(\d+)P\d+Q(\d+)\.")


class DemoServers:
    """`with DemoServers(folder) as servers:` serves the mailbox in `folder` until the block ends.

    A second start in the same folder goes on with the mailbox as it was (mails, flags, UIDs, UIDVALIDITY,
    password), as a real server would after a restart: stored credentials and NOVA's ledger stay true, and
    `make up` can keep what the demo left. Delete the folder to begin anew: that gives a new UIDVALIDITY.

    Port 0 takes a free port. The servers also end when this process is killed.
    """

    imap_host = LOOPBACK
    smtp_host = LOOPBACK
    user = CLIENT_ADDRESS

    def __init__(self, folder: Path, *, imap_port: int = 0, smtp_port: int = 0) -> None:
        self.folder = folder.resolve()
        self.imap_port = imap_port
        self.smtp_port = smtp_port
        self.password = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Raises ConfigurationError when the `demo` extra is missing, the folder is in use or cannot be
        written, a port is in use, or the servers do not start."""
        _check_packages()
        with ExitStack() as undo:
            try:
                lock = undo.enter_context(_locked_folder(self.folder))
                self.password = _password(self.folder / "password")
            except OSError as error:
                raise ConfigurationError(
                    f"the folder of the demo's mail cannot be used: {error}",
                    remedy="give a folder that this user may write to",
                ) from error
            with _listen(self.imap_port) as imap, _listen(self.smtp_port) as smtp:
                self.imap_port, self.smtp_port = imap.getsockname()[1], smtp.getsockname()[1]
                undo.enter_context(self._process(imap.fileno(), smtp.fileno(), lock))
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def answers(self) -> list[EmailMessage]:
        """What was mailed to others than the client, in order of arrival."""
        found: list[tuple[tuple[int, ...], bytes]] = []
        for path in (self.folder / "answers").glob("*/"):
            box = mailbox.Maildir(path, create=False)
            found += [(_arrival(key), box.get_bytes(key)) for key in box.iterkeys()]
        mails = [email.message_from_bytes(content, policy=modern) for _, content in sorted(found)]
        return cast("list[EmailMessage]", mails)

    @contextmanager
    def _process(self, imap_fd: int, smtp_fd: int, lock_fd: int) -> Iterator[None]:
        """Runs `mailhost`. It inherits the sockets, so no connection is lost while it starts, and the
        lock, so that the folder counts as in use while it lives; its standard input ends with this
        process, however that ends."""
        temporary = self.folder / "tmp"  # pymap renames files from TMPDIR into the mailbox: one file system
        temporary.mkdir(exist_ok=True)
        # FQDN keeps pymap from asking the name service at each connection
        env = {**os.environ, "TMPDIR": str(temporary), "FQDN": "localhost"}
        log = self.folder / "servers.log"
        with log.open("a") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "nova_pipelines.demo.mailhost"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, text=True, env=env,
                pass_fds=(imap_fd, smtp_fd, lock_fd), start_new_session=True,
            )  # fmt: skip
        account = {"folder": str(self.folder), "imap_fd": imap_fd, "smtp_fd": smtp_fd}
        try:
            _hand_over(process, {**account, "user": self.user, "password": self.password}, log)
            yield
        finally:
            _stop(process)


def _check_packages() -> None:
    missing = [name for name in ("pymap", "aiosmtpd") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the demo's mail servers need {' and '.join(missing)}",
            remedy="pip install 'nova-pipelines[demo]'",
        )


@contextmanager
def _locked_folder(folder: Path) -> Iterator[int]:
    """Makes the folder and holds a lock on it; yields the lock's file descriptor."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"the mail servers of another demo use {folder}",
                remedy="stop it first, or give another folder",
            ) from error
        yield file.fileno()


def _password(path: Path) -> str:
    """The mailbox's password, made at the first use of the folder."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:  # noqa: PTH123 – only `open` takes a descriptor
            file.write(secrets.token_urlsafe(16))
    return path.read_text()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port), backlog=100)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the demo's mail servers cannot listen on {LOOPBACK}:{port}: {error}",
            remedy="stop the program that uses this port, or give another port (0 takes a free one)",
        ) from error


def _hand_over(process: subprocess.Popen[str], account: dict[str, object], log: Path) -> None:
    """Tells the process its account (on standard input: arguments can be seen by others) and waits until
    it serves."""
    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    try:
        stdin.write(json.dumps(account) + "\n")
        stdin.flush()
    except BrokenPipeError:
        answer = ""  # it ended already; its log says why
    else:
        readable, _, _ = select.select([stdout], [], [], START_SECONDS)
        answer = stdout.readline().strip() if readable else f"no answer in {START_SECONDS:g} s"
    if answer != READY:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"the demo's mail servers did not start: {answer or last}", remedy=f"see {log}")


def _stop(process: subprocess.Popen[str]) -> None:
    with process:  # closes its pipes, then waits
        cast("IO[str]", process.stdin).close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _arrival(key: str) -> tuple[int, ...]:
    match = _ARRIVAL.match(key)
    if match is None:
        raise ValueError(f"not a mail that mailhost delivered: {key}")
    return tuple(int(part) for part in match.groups())
