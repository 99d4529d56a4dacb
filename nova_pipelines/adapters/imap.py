"""A mailbox: what lies in a folder, the bytes of a mail, and marking a mail as done.

Works around what was measured of imap-tools and of servers ("trap" in the comments): mails are read in bounded
pieces and without setting \\Seen, answers are matched by UID, nothing is expunged but the mail that moves.
What a mail means is mime.py's matter; which mails are new is the ledger's.
"""

from __future__ import annotations

import imaplib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from types import TracebackType
from typing import Any, NoReturn, Self

from imap_tools.consts import SHORT_MONTH_NAMES
from imap_tools.errors import UnexpectedCommandStatusError
from imap_tools.utils import encode_folder

from nova_pipelines.adapters.imap_connection import (
    Connection,
    MailboxConfig,
    close_socket,
    connect,
    disconnect,
    refusal,
    translated,
)
from nova_pipelines.adapters.imap_fetch import FLAGS, SIZE, UID, Fetched, records
from nova_pipelines.adapters.imap_header import (
    GMAIL_CAPABILITY,
    GMAIL_ITEMS,
    HEADER_ITEMS,
    FolderState,
    MailHeader,
    read_header,
)
from nova_pipelines.domain.errors import ConfigurationError, NotFound, PermanentError, TransientError

__all__ = ["FolderState", "MailHeader", "Mailbox", "MailboxConfig"]

#: beyond all UIDs that servers give, and not the greatest number, which Dovecot takes for `*`
LAST_UID = 2**32 - 2
HEADER_BATCH = 200
CHUNK_BYTES = 1024 * 1024


class Mailbox:
    """A connection to one mailbox; use it in a `with`. All methods raise TransientError for the network and
    PermanentError for what the server refuses; after a TransientError open a new one."""

    def __init__(self, config: MailboxConfig) -> None:
        self._config = config
        self._connection: Connection | None = None
        self._folder = ""
        self._state: FolderState | None = None
        #: UIDs of the open folder that the ledger is done with, for who keeps a connection open
        self.settled: set[int] = set()

    def __repr__(self) -> str:
        return f"Mailbox({self._config!r})"

    def __enter__(self) -> Self:
        """Connects and logs in. Raises TransientError, CredentialError or ConfigurationError."""
        self._connection = connect(self._config)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection:
            disconnect(self._connection)
        self._connection = None

    def ping(self) -> None:
        """Asks for a sign of life."""
        with self._talking("answer a NOOP"):
            self._client.noop()

    def select(self, folder: str) -> FolderState:
        """Opens a folder for the calls that follow. Raises NotFound if the server does not open it."""
        self._state = None  # an attempt that fails leaves no folder open (RFC 9051, 6.3.2)
        with self._talking(f"open the folder {folder!r}"):
            self._open(folder)
            codes = {code: self._code(code) for code in ("UIDVALIDITY", "UIDNEXT", "PERMANENTFLAGS")}
        if not (codes["UIDVALIDITY"].isdigit() and codes["UIDNEXT"].isdigit()):
            raise ConfigurationError(
                f"{self._config.where} gives no UIDVALIDITY or UIDNEXT for the folder {folder!r}",
                remedy="NOVA needs an IMAP4rev1 server (RFC 3501, 6.3.1) to know mails again",
            )
        flags = codes["PERMANENTFLAGS"].strip("()").lower().split()
        self._folder, self.settled = folder, set()
        self._state = FolderState(
            uidvalidity=int(codes["UIDVALIDITY"]),
            uidnext=int(codes["UIDNEXT"]),
            read_only=self._client.is_readonly,
            keywords_allowed="\\*" in flags,
            keywords=frozenset(flags),
        )
        return self._state

    def opened(self, folder: str) -> FolderState:
        """As `select`, but a folder that is open stays open: its UIDVALIDITY cannot change meanwhile (RFC 9051,
        2.3.1.1), and opening one of 10,000 mails costs the server 20 ms. `uidnext` is that of the opening."""
        if self._connection and self._state and self._folder == folder:
            return self._state
        return self.select(folder)

    def candidates(self, first_uid: int) -> list[int]:
        """UIDs, ascending, of the mails that are unread or not below `first_uid`."""
        first = max(1, first_uid)
        with self._talking("search"):
            self._client.noop()  # a folder that is long open learns of new mail by this
            # trap 6: `n:*` means the last mail if n is beyond it
            found = self._search(f"OR UNSEEN UID {first}:{max(first, LAST_UID)}")
            doubtful = {uid for uid in found if uid < first} - self.settled
            if doubtful:  # unread, or of a server that took the range for `n:*`
                found -= doubtful - self._search("UNSEEN")
        return sorted(found)

    def received_since(self, first: date, before: date | None) -> list[int]:
        """UIDs, ascending, of the mails that came from the day `first` on and before the day `before`, read or not.

        IMAP compares days of INTERNALDATE as the server's own time zone has them (RFC 3501, 6.4.4).
        """
        criteria = f"SINCE {_imap_day(first)}" + (f" BEFORE {_imap_day(before)}" if before else "")
        with self._talking("search by date"):
            return sorted(self._search(criteria))

    def headers(self, uids: Sequence[int]) -> dict[int, MailHeader]:
        """Headers in batches of 200; a mail that vanished is left out, nothing is marked as read."""
        found: dict[int, MailHeader] = {}
        for start in range(0, len(uids), HEADER_BATCH):
            batch = uids[start : start + HEADER_BATCH]
            with self._talking("fetch headers"):
                found |= self._headers(batch)
                missing = [uid for uid in batch if uid not in found]
                for uid in sorted(self._search(f"UID {_uid_set(missing)}")) if missing else ():
                    found |= self._headers([uid])
        return {uid: found[uid] for uid in uids if uid in found}

    def fetch(self, uid: int, write: Callable[[bytes], object], *, size: int, max_bytes: int) -> bool:
        """Gives the whole mail to `write`, in pieces of 1 MB and without marking it as read. False if it vanished:
        what was written then is of no use.

        `size`: what its header said. Raises PermanentError when the mail is bigger than `max_bytes`: before
        anything is read if `size` says so.
        """
        done = 0
        while True:
            self._within(uid, max(size, done), max_bytes)
            with self._talking(f"fetch mail {uid}"):
                piece = self._piece(uid, done)
                if piece is None or piece.body is None:
                    self._must_be_gone(uid)
                    return False
            size = piece.number(SIZE) or size
            done += len(piece.body)
            self._within(uid, max(size, done), max_bytes)
            write(piece.body)
            # the size that a server reports may be wrong, so the end is a short piece, or an empty one
            if not piece.body or (len(piece.body) < CHUNK_BYTES and done >= size):
                return True

    def mark_seen(self, uid: int) -> bool:
        """Marks a mail as read, and reads it back: servers say OK for a mail that vanished (trap 9).

        False if the mail is gone; PermanentError if it is there but may not be marked. Not by imap-tools'
        `flag`, which expunges the folder afterwards.
        """
        flags = self._store(uid, r"\Seen", f"mark mail {uid} as read")
        if flags is None or r"\seen" in flags:
            return flags is not None
        raise PermanentError(
            f"{self._config.where} does not let mail {uid} be marked as read in {self._folder!r}",
            remedy="give the mailbox's user the right to change flags there (ACL right `s`)",
        )

    def add_keyword(self, uid: int, keyword: str) -> bool:
        """Puts a keyword on a mail, and reads it back. False if the mail is gone.

        Raises PermanentError if the server would not keep it: many answer OK and forget it (trap 10).
        """
        if self._state is None or not self._state.keeps(keyword):
            self._refused(keyword, "its PERMANENTFLAGS allow no such keyword")
        flags = self._store(uid, keyword, f"put the keyword {keyword} on mail {uid}")
        if flags is not None and keyword.lower() not in flags:
            self._refused(keyword, f"mail {uid} does not have it after STORE")
        return flags is not None

    def move(self, uid: int, folder: str) -> bool:
        """Moves one mail. False if it is gone. Raises NotFound if there is no such folder.

        Without MOVE (RFC 6851): copied, flagged as deleted, and expunged alone (UIDPLUS, RFC 4315). Without
        UIDPLUS it stays flagged as deleted, since a bare EXPUNGE would remove other mails too.
        """
        with self._talking(f"move mail {uid} to {folder!r}"):
            target = self._encoded(folder)
            if not self._search(f"UID {uid} UNDELETED"):
                return False
            if "MOVE" in self._client.capabilities:
                self._into_folder(folder, self._client.uid("MOVE", str(uid), target))
                return True
            self._into_folder(folder, self._client.uid("COPY", str(uid), target))
            self._must(self._client.uid("STORE", str(uid), "+FLAGS.SILENT", r"(\Deleted)"))
            if "UIDPLUS" in self._client.capabilities:
                self._must(self._client.uid("EXPUNGE", str(uid)))
            return True

    # -- the conversation ----------------------------------------------------------------------------------

    @property
    def _client(self) -> Any:  # imaplib.IMAP4, whose stubs know neither readonly nor is_readonly
        if self._connection is None:
            raise TransientError(
                f"the connection to {self._config.where} is not open", remedy="open the mailbox by `with`"
            )
        return self._connection.client

    @contextmanager
    def _talking(self, doing: str) -> Iterator[None]:
        try:
            with translated(self._config, doing):
                yield
        except TransientError as error:
            # after a broken line or a timeout an answer may still be under way, which another call would take
            # for its own; a clear NO leaves the connection in order
            if self._connection and isinstance(
                error.__cause__, (OSError, imaplib.IMAP4.abort, ArithmeticError, ValueError)
            ):
                close_socket(self._connection.client)
                self._connection = None
            raise

    def _must(self, result: tuple[str, list[Any]]) -> list[Any]:
        if result[0] != "OK":
            raise UnexpectedCommandStatusError(result, "OK")
        return result[1]

    def _open(self, folder: str) -> None:
        try:
            status, data = self._client.select(self._encoded(folder))
        except self._client.readonly:  # opened, but only for reading: imaplib takes that for an abort
            self._client.is_readonly = True
            return
        if status != "OK":
            self._no_folder(folder, data)

    def _encoded(self, folder: str) -> bytes:
        if not folder.isprintable():  # imap-tools would send a line break as it is: the next command
            self._no_folder(folder, [b"the name contains control characters"])
        return encode_folder(folder)

    def _into_folder(self, folder: str, result: tuple[str, list[Any]]) -> None:
        if result[0] != "OK":
            self._no_folder(folder, result[1])

    def _no_folder(self, folder: str, data: list[Any]) -> NoReturn:
        answer = b" ".join(part for part in data if isinstance(part, bytes)).decode("utf-8", "replace")
        error = refusal(self._config, f"open the folder {folder!r} of {self._config.user}", answer)
        if isinstance(error, TransientError):
            raise error
        raise NotFound(error.message, remedy="create the folder in the mailbox or correct its name")

    def _code(self, name: str) -> str:
        data = self._client.response(name)[1]
        return data[-1].decode("ascii", "replace") if data and data[-1] else ""

    def _search(self, criteria: str) -> set[int]:
        """The criteria are ASCII, so no CHARSET is sent: some servers refuse it (trap 8)."""
        data = self._must(self._client.uid("SEARCH", criteria))
        return {int(word) for line in data if line for word in line.split() if word.isdigit()}

    def _fetch(self, uids: Sequence[int], items: str) -> dict[int, Fetched]:
        """The responses by UID, maybe others than were asked for; of several the one with a body."""
        status, data = self._client.uid("FETCH", _uid_set(uids), items)
        if status != "OK" and any(b"EXPUNGEISSUED" in part for part in data if isinstance(part, bytes)):
            data = self._client.response("FETCH")[1]  # some vanished; imaplib keeps the others back on a NO
        elif status != "OK":
            raise UnexpectedCommandStatusError((status, data), "OK")
        found: dict[int, Fetched] = {}
        for record in records(data):
            uid = record.number(UID)
            if uid and (uid not in found or record.body is not None or found[uid].body is None):
                found[uid] = record
        return found

    def _store(self, uid: int, flag: str, doing: str) -> set[str] | None:
        """The mail's flags, in lower case, after one was added; None: the mail is gone."""
        with self._talking(doing):
            self._must(self._client.uid("STORE", str(uid), "+FLAGS.SILENT", f"({flag})"))
            mail = self._fetch([uid], "(UID FLAGS)").get(uid)
        flags = FLAGS.search(mail.text) if mail else None
        return None if flags is None else set(flags.group(1).decode("ascii", "replace").lower().split())

    def _refused(self, keyword: str, why: str) -> NoReturn:
        raise PermanentError(
            f"{self._config.where} does not keep the keyword {keyword} in the folder {self._folder!r} of "
            f"{self._config.user}: {why}",
            remedy="choose `then: mark_as_read` or `then: move:FOLDER` in the workflow, or allow keywords there",
        )

    def _within(self, uid: int, size: int, max_bytes: int) -> None:
        if size > max_bytes:
            raise PermanentError(
                f"mail {uid} in {self._folder!r} of {self._config.user} has {size} bytes, "
                f"more than the {max_bytes} allowed",
                remedy="raise NOVA_MAX_MAIL_BYTES, or handle this mail by hand",
            )

    def _headers(self, uids: Sequence[int]) -> dict[int, MailHeader]:
        gmail = f" {GMAIL_ITEMS}" if GMAIL_CAPABILITY in self._client.capabilities else ""
        fetched = self._fetch(uids, f"({HEADER_ITEMS}{gmail})")
        return {uid: read_header(uid, mail) for uid, mail in fetched.items() if mail.body is not None}

    def _must_be_gone(self, uid: int) -> None:
        """A mail without content is not taken for a vanished one unless the server says that it is gone."""
        self._client.noop()
        if uid in self._search(f"UID {uid}"):
            raise TransientError(
                f"{self._config.where} gave no content for mail {uid} in {self._folder!r}, which is still there",
                remedy="it is tried again; if it stays so, look at the mail and at the server's log",
            )

    def _piece(self, uid: int, offset: int) -> Fetched | None:
        piece = self._fetch([uid], f"(UID RFC822.SIZE BODY.PEEK[]<{offset}.{CHUNK_BYTES}>)").get(uid)
        if piece and piece.body and len(piece.body) > CHUNK_BYTES:
            raise PermanentError(
                f"{self._config.where} does not keep to partial FETCH (RFC 3501, 6.4.5)",
                remedy="this server cannot be used for mails",
            )
        return piece


def _imap_day(day: date) -> str:
    return f"{day.day}-{SHORT_MONTH_NAMES[day.month - 1]}-{day.year:04}"  # English in every locale


def _uid_set(uids: Sequence[int]) -> str:
    return ",".join(str(uid) for uid in uids)
