"""A job of code: executes it with the dict `context` and says readably what went wrong, with the user's line."""

# plain os calls: a fork should touch as little memory as it can
# ruff: noqa: PTH123

from __future__ import annotations

import errno
import json
import linecache
import traceback

from .job import MAX_ERROR, Fault, Job

CODE_NAME = "<node code>"


def run_code(job: Job) -> object:
    """Executes the code with the dict `context`; gives back what it leaves there."""
    source = job.header["code"]
    for name, data in job.files.items():
        with open(name, "wb") as stream:
            stream.write(data)
    job.files = {}
    namespace = {"__name__": "__main__", "context": json.loads(job.context_json)}
    try:
        # dont_inherit: the __future__ of this file is none of the user's business
        compiled = compile(source, CODE_NAME, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise Fault("code_error", syntax_message(error)) from None
    except (ValueError, RecursionError) as error:  # a NUL in the source, absurd nesting
        raise Fault("code_error", "the code cannot be compiled: " + message_of(error)) from None
    linecache.cache[CODE_NAME] = (len(source), None, source.splitlines(True), CODE_NAME)
    try:
        exec(compiled, namespace)  # noqa: S102 - to run the user's code is what the sandbox is for
    except SystemExit as error:
        if error.code not in (None, 0):
            raise Fault("code_error", f"the code called sys.exit({error.code!r})" + line_of(error)) from None
    except BaseException as error:  # whatever the user's code raises is its own outcome
        raise Fault(status_of(error), message_of(error) + line_of(error)) from error
    if "context" not in namespace:
        raise Fault("code_error", "the code deleted `context`; leave a dict in it")
    context = namespace["context"]
    if not isinstance(context, dict):
        raise Fault("code_error", f"the code left a {type(context).__name__} in `context`; leave a dict in it")
    return context


def status_of(error: BaseException) -> str:
    """`resource` for what a limit causes, `code_error` for the rest."""
    if isinstance(error, MemoryError):
        return "resource"
    exhausted = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE)
    if isinstance(error, OSError) and error.errno in exhausted:
        return "resource"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "resource"
    return "code_error"


def message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        text = "(its text cannot be had)"
    name = type(error).__name__
    return f"{name}: {cut(text, MAX_ERROR)}" if text else name


def cut(text: str, longest: int) -> str:
    """The beginning of a long text. The mark tells the host where half a secret may stand, which it hides."""
    return text if len(text) <= longest else text[:longest] + "…"


def line_of(error: BaseException) -> str:
    """` (line 3: `raise …`)`: the innermost line of the user's own code."""
    number = 0
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == CODE_NAME:
            number = line
    if not number:
        return ""
    text = cut(linecache.getline(CODE_NAME, number).strip(), 200)
    return f" (line {number}: `{text}`)"


def syntax_message(error: SyntaxError) -> str:
    text = cut((error.text or "").strip(), 200)
    place = f"line {error.lineno}, column {error.offset}" if error.lineno else "unknown line"
    return f"{type(error).__name__}: {error.msg} ({place}: `{text}`)" if text else f"{error.msg} ({place})"
