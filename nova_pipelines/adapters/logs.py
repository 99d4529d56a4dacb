"""The log of NOVA's own programs: one line of JSON for each event, or plain text in a terminal, without secrets.

What is bound by `structlog.contextvars.bind_contextvars` (request, run, execution, who) stands in every line of it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal, TextIO
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import SecretStr

from nova_pipelines.domain.masking import MASK, Masker
from nova_pipelines.settings import Settings

Event = MutableMapping[str, Any]

#: what looks like a secret wherever it stands, also one that no setting names
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {MASK}"),
    (
        re.compile(r"(?i)\b((?:\w*(?:password|passwd|secret|token|api_?key|signature))|sig|key|code)(=|%3D)[^&\s\"']+"),
        rf"\1\2{MASK}",
    ),
    (re.compile(r"://[^/\s@\"']+@"), f"://{MASK}@"),
    # uvicorn writes the address of a websocket with its query
    (re.compile(r'("WebSocket [^"?\s]*)\?[^"\s]*'), rf"\1?{MASK}"),
)
#: without one of these no pattern finds anything, and most texts have none: one look in place of four
_SUSPICIOUS = re.compile(r'(?i)=|%3d|://|"WebSocket |bearer|basic')


class Redactor:
    """Puts a mask in the place of this installation's secrets, and of what looks like one."""

    def __init__(self, settings: Settings) -> None:
        self._masker = Masker(secrets_of(settings))

    def text(self, text: str) -> str:
        text = self._masker.text(text)
        if not _SUSPICIOUS.search(text):
            return text
        for pattern, mask in _PATTERNS:
            text = pattern.sub(mask, text)
        return text

    def data(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.data(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(inner) for inner in value]
        return value

    def __call__(self, _logger: Any, _name: str, event: Event) -> Event:
        """As a processor of structlog."""
        return {key: self.data(value) for key, value in event.items()}


def secrets_of(settings: Settings) -> Iterator[str]:
    """Everything in the settings that is secret, and the passwords within URLs."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            yield from (part.strip() for part in text.split(",") if part.strip())
            if "://" in text:
                yield from _password(text)


def _password(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def set_up(
    settings: Settings,
    *,
    logger: str | None = None,
    stream: TextIO | None = None,
    form: Literal["json", "plain"] | None = None,
) -> Redactor:
    """Has this process log to `stream` (stderr): everything, or only what is below `logger`. Returns what masks."""
    output: TextIO = sys.stderr if stream is None else stream
    form = form or settings.nova_log_format or ("plain" if output.isatty() else "json")
    redactor = Redactor(settings)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(form, redactor, output))
    )
    chosen = logging.getLogger(logger)
    chosen.handlers[:] = [handler]
    chosen.setLevel(settings.log_level)
    if logger is not None:
        chosen.propagate = False
    for name in ("httpx", "urllib3"):  # they write whole addresses
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared[:2], *shared[3:], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return redactor


def _rendering(form: str, redactor: Redactor, stream: TextIO) -> list[Any]:
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    # an exception is text before it is masked
    common = [_name_logger, meta, structlog.processors.format_exc_info, redactor]
    if form == "plain":
        return [*common, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    return [*common, _order, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]


def _name_logger(_logger: Any, _name: str, event: Event) -> Event:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event.setdefault("logger", record.name)
    return event


def _order(_logger: Any, _name: str, event: Event) -> Event:
    """What every line has stands first."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return first | dict(event)
