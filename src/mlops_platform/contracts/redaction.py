"""What looks like a secret, by name or by form: taken out of logs, traces and what a client says of itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
