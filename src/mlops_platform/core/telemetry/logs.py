"""Structured logs: JSON for machines, columns for people, secrets for nobody."""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from mlops_platform.core.settings import LogFormat, Settings

REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"secret|password|token|authorization|api[_-]?key|credential|cookie|pepper|private", re.IGNORECASE
)
# What secrets look like wherever they turn up: our keys, JWTs, credentials in URLs and headers.
_SECRET_TEXT = re.compile(
    r"mlops_(?:user|svc)_[0-9A-Za-z]{8,}(?:_[0-9A-Za-z]+)?"
    r"|eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]{5,}"
    r"|(?<=://)[^\s/:@]{0,200}:[^\s/@]{1,200}(?=@)"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
    r"|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}"
)


def redact(value: Any, *, name: str = "") -> Any:
    """The value without what looks like a secret, by name or by form; containers are walked."""
    if name and _SECRET_NAME.search(name) and isinstance(value, str | bytes):
        return REDACTED
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {key: redact(item, name=str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _redact_event(_: Any, __: str, event: EventDict) -> EventDict:
    return {name: redact(value, name=name) for name, value in event.items()}


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers through one redacting pipeline."""
    stream = stream or sys.stderr
    as_json = settings.log_format is LogFormat.JSON or (settings.log_format is LogFormat.AUTO and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("alembic", "uvicorn", "sqlalchemy.engine", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
