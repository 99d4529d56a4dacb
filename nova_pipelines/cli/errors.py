"""How errors leave the command line: one message, what to do, and an exit code that scripts can use."""

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from nova_pipelines.cli.output import plain
from nova_pipelines.domain.errors import DefinitionError, NovaError

USAGE, UNEXPECTED, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed (an execution, a check, a conflict); 2 wrong usage or configuration; "
    "3 not found; 4 a definition is not valid; 70 an error that nobody expected; 130 interrupted; "
    "141 the reader of the output went away."
)


class NovaGroup(TyperGroup):
    """The command `nova`: every error passes through here, in the program and in tests alike."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        try:
            code = super().main(given, prog_name or "nova", complete_var, False, windows_expand_args, **extra)
        except NovaError as error:
            code = report(error, as_json=as_json)
        except typer.Abort:
            code = INTERRUPTED
        except Exception as error:  # noqa: BLE001 - the outermost frame: whatever is left becomes one line
            code = _usage(error, as_json) if hasattr(error, "format_message") else unexpected(error, as_json=as_json)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except OSError as error:
            if error.errno != errno.EPIPE and not isinstance(error, BrokenPipeError):
                raise
            _let_go_of_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        return result


def _let_go_of_stdout() -> None:
    """What is still in the buffer goes nowhere: else Python complains about it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # a stream without a file


def report(error: NovaError, *, as_json: bool) -> int:
    """Prints an error of NOVA on stderr; returns the exit code."""
    if as_json:
        _as_json(type(error).__name__, error.message, error.remedy, error.exit_code, problems=_problems(error))
    else:
        _as_text(error.message, error.remedy)
    return error.exit_code


def _problems(error: NovaError) -> list[dict[str, str]] | None:
    if not isinstance(error, DefinitionError):
        return None
    return [{"path": problem.path, "reason": problem.reason} for problem in error.problems]


def _usage(error: Exception, as_json: bool) -> int:
    """A mistake in the command line itself, as typer reports it."""
    message = str(getattr(error, "format_message")())  # noqa: B009 - typer hides this class
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "nova"
    remedy = f"see `{command} --help`"
    if as_json:
        _as_json("UsageError", message, remedy, USAGE)
    else:
        _as_text(message, remedy)
    return USAGE


def unexpected(error: Exception, *, as_json: bool) -> int:
    """One line, and the traceback in a file; with NOVA_DEBUG=1 on the console."""
    text = "".join(traceback.format_exception(error))
    message = f"{type(error).__name__}: {error}"
    remedy = f"please report it, with {_write(text)}"
    if as_json:
        _as_json(type(error).__name__, message, remedy, UNEXPECTED)
    else:
        _as_text(message, remedy)
    if os.environ.get("NOVA_DEBUG", "") not in ("", "0"):
        sys.stderr.write(plain(text, lines=True))
    return UNEXPECTED


def _write(text: str) -> str:
    """Writes a traceback; returns where, in words. The settings may be what failed: they are not asked."""
    folder = Path(os.environ.get("NOVA_HOME") or ".nova").expanduser().absolute() / "logs"
    path = folder / f"error-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text.encode("utf-8", "backslashreplace").decode())
    except OSError as error:
        return f"what NOVA_DEBUG=1 shows (the traceback could not be written to {folder}: {error.strerror})"
    return f"the traceback in {path}"


def _as_text(message: str, remedy: str | None) -> None:
    console = Console(file=sys.stderr, highlight=False)
    console.print(Text.assemble(("error: ", "bold red"), plain(message, lines=True)), soft_wrap=True)
    if remedy:
        console.print(Text(f"→ {plain(remedy, lines=True)}"), soft_wrap=True)


def _as_json(kind: str, message: str, remedy: str | None, code: int, **more: Any) -> None:
    body = {"type": kind, "message": message, "remedy": remedy, "exit_code": code}
    body |= {name: value for name, value in more.items() if value is not None}
    sys.stderr.write(json.dumps({"error": body}) + "\n")
