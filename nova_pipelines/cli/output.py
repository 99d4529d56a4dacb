"""What the commands print: JSON alone on stdout, or tables that stay readable at 80 columns and in a pipe.

What comes from mails, documents and workflows is hostile: no control character of it reaches a terminal.
"""

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing but JSON, on stdout.")]

_STYLES = {
    "completed": "green",
    "success": "green",
    "ok": "green",
    "failed": "red",
    "problem": "red",
    "unknown": "red",
    "needs_review": "yellow",
    "in_approval": "yellow",
    "running": "cyan",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # main() ends quietly; rich would end the process here


def _console(*, error: bool = False) -> Console:
    # made for each call: the streams are exchanged in tests
    return _Console(file=sys.stderr if error else sys.stdout, highlight=False)


def plain(value: object, *, lines: bool = False) -> str:
    """A value as text without control characters (ESC, bidirectional overrides, …); `lines` keeps line ends."""
    text = "" if value is None else str(value)
    if not lines:
        text = " ".join(text.split())
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)


def say(text: str, *, style: str = "") -> None:
    """One message for a person, on stdout; never broken into lines by the width."""
    _console().print(Text(plain(text, lines=True), style=style), soft_wrap=True)


def note(text: str, *, style: str = "") -> None:
    """One message beside the output: on stderr, also with --json."""
    _console(error=True).print(Text(plain(text, lines=True), style=style), soft_wrap=True)


def emit(data: Any) -> None:
    """JSON on stdout."""
    text = json.dumps(data, ensure_ascii=False, indent=2, default=_json_value, allow_nan=False)
    safe = "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escaped(c) for c in text)
    try:
        safe.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        safe = json.dumps(data, indent=2, default=_json_value, allow_nan=False)
    sys.stdout.write(safe + "\n")
    sys.stdout.flush()


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)  # Decimal, date: their exact text


def moment(value: datetime | str | None) -> str:
    """A time in UTC, to the second. ISO texts as they come from the chain are understood as well."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return plain(value)
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if value else ""


def cell(value: object) -> Text:
    """A value as a cell: statuses in their colours, everything else as it is."""
    text = plain(value)
    return Text(text, style=_STYLES.get(text, ""))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """A table on stdout. Columns named in `numbers` are set to the right and never folded."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for header in headers:
        right = header in numbers
        result.add_column(
            header, justify="right" if right else "left", no_wrap=right, overflow="ignore" if right else "fold"
        )
    for row in rows:
        result.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    _console().print(result)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair a line; pairs without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, ""):
            grid.add_row(name, cell(value))
    _console().print(grid)
