"""Structured logs: JSON for machines, columns for people, secrets for nobody."""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor

from mlops_platform.core.settings import LogFormat, Settings, is_secret

REDACTED = "[redacted]"
_MANY_LINES = frozenset({"exception", "stack"})
# A password of three letters would blacken half of every log; production refuses it anyway.
_SHORTEST_KNOWN = 6
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


def redact(value: Any, *, name: str = "", known: Sequence[str] = ()) -> Any:
    """The value without what looks like a secret, by name or by form, or is one of `known`; containers are walked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if name and _SECRET_NAME.search(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: redact(item, name=str(key), known=known) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, known=known) for item in value]
    # Whatever else is logged ends as text: it is redacted as that text, and not as the object that it was.
    text = value if isinstance(value, str) else repr(value)
    for secret in known:
        text = text.replace(secret, REDACTED)
    return _SECRET_TEXT.sub(REDACTED, text)


def _redactor(known: Sequence[str]) -> Processor:
    def run(_: Any, __: str, event: EventDict) -> EventDict:
        # Names that begin with an underscore are structlog's own and are not written.
        return {
            name: value if name.startswith("_") else _one_line(name, redact(value, name=name, known=known))
            for name, value in event.items()
        }

    return run


def _one_line(name: str, value: Any) -> Any:
    """A path or a name from outside must not write lines, or colours, of its own on a terminal."""
    if not isinstance(value, str) or value.isprintable() or name in _MANY_LINES:
        return value
    return value.encode("unicode_escape").decode("ascii")


def secrets_of(settings: Settings) -> list[str]:
    """The secrets of this process, and passwords within its URLs, as they would turn up in a message."""
    values = [getattr(settings, name) for name, field in Settings.model_fields.items() if is_secret(field)]
    found = [value.get_secret_value() for value in values if value is not None]
    # A header is a scheme and a credential; either may turn up alone.
    found += [part for value in settings.traces_headers.values() for part in (value, value.split(" ")[-1])]
    for url in (settings.database_url, settings.database_owner_url, settings.redis_url, settings.traces_url):
        password = urlsplit(url).password if url else None
        found += [password, unquote(password)] if password else []
    return sorted({text for text in found if len(text) >= _SHORTEST_KNOWN}, key=len, reverse=True)


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers through one redacting pipeline."""
    stream = stream or sys.stderr
    as_json = settings.log_format is LogFormat.JSON or (settings.log_format is LogFormat.AUTO and not stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redactor(secrets_of(settings)),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
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
    root.setLevel(settings.log_level)
    for name in ("alembic", "uvicorn", "sqlalchemy.engine", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
