"""Small conversions on the way to the wire."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from pydantic_core import PydanticSerializationError, to_json

from mlops_platform.sdk.errors import MlopsError


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
    """A time as integer milliseconds since 1970, as metric timestamps travel."""
    return round(moment.timestamp() * 1000)
