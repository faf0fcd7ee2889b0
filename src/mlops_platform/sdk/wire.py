"""Small conversions on the way to the wire."""

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from pydantic_core import PydanticSerializationError, to_json

from mlops_platform.sdk.errors import MlopsError

EARLIEST_MILLISECONDS = 946_684_800_000
LATEST_MILLISECONDS = 4_102_444_800_000


class NotSerialisable(MlopsError, TypeError):
    """A value that JSON cannot carry was given."""


def segment(value: str) -> str:
    """One path segment of a URL: a name with a slash stays one segment."""
    return quote(value, safe="")


def file_path(value: str) -> str:
    """A logical artifact path within a URL: its slashes stay."""
    return quote(value, safe="/")


def given(**fields: Any) -> dict[str, Any]:
    """The fields that the caller gave: None means "not said"."""
    return {name: value for name, value in fields.items() if value is not None}


def plain(value: Any) -> Any:
    """What a value of numpy, pandas or torch is in JSON; the last resort of the encoder."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise NotSerialisable(f"A value of type {type(value).__name__} cannot be sent as JSON.")


def encode(value: Any) -> bytes:
    """A value as JSON, by the one rule of all that is sent or kept to be sent: what goes out now could also wait."""
    try:
        return to_json(value, inf_nan_mode="strings", fallback=plain)
    except PydanticSerializationError as error:
        raise NotSerialisable(str(error).removeprefix("Error serializing to JSON: NotSerialisable: ")) from None


def milliseconds(moment: datetime) -> int:
    """A time as integer milliseconds since 1970, as metric timestamps travel. Raises `ValueError` for what is none."""
    if not isinstance(moment, datetime):
        raise ValueError(  # noqa: TRY004  # one error for a time that cannot be, whatever is wrong with it
            f"{moment!r} is no datetime: for time.time() write datetime.fromtimestamp(..., UTC)."
        )
    at = round(moment.timestamp() * 1000)
    if not EARLIEST_MILLISECONDS <= at < LATEST_MILLISECONDS:
        raise ValueError(
            f"{moment.isoformat()} lies outside the years 2000 to 2100: was it made of milliseconds, taken for seconds?"
        )
    return at


def timestamp_now() -> str:
    """This moment as the wire has it, from one reading of the clock."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"
