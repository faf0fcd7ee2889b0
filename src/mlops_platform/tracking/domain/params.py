"""Parameters: nested objects become dotted keys, each value keeps its type, and none ever changes."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlops_platform.core.errors import InvalidInput

MAX_KEY = 250
MAX_TEXT = 16_384
MAX_PARAMS = 1000


class ParamKind(StrEnum):
    """The type of a parameter's value."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STRING = "string"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter as it is kept: canonical text for every type, and the number for what is one."""

    key: str
    kind: ParamKind
    text: str
    number: float | None = None

    @property
    def value(self) -> Any:
        """The value as it was given."""
        match self.kind:
            case ParamKind.STRING:
                return self.text
            case ParamKind.INT:
                return int(self.text)
            case ParamKind.FLOAT:
                return float(self.text)
            case ParamKind.BOOL | ParamKind.JSON:
                return json.loads(self.text)

    def equals(self, other: "Param") -> bool:
        """Whether both say the same: 1 and 1.0 do, 1 and true or "1" do not."""
        if self.number is not None and other.number is not None:
            return bool(self.value == other.value)
        return self.kind is other.kind and self.text == other.text


def flatten(parameters: Mapping[str, Any]) -> list[Param]:
    """The parameters of a nested object, keys joined with dots, in the order given.

    >>> [(param.key, param.value) for param in flatten({"optimizer": {"name": "adam", "lr": 0.001}, "layers": [64, 32]})]
    [('optimizer.name', 'adam'), ('optimizer.lr', 0.001), ('layers', [64, 32])]
    """
    found: dict[str, Param] = {}
    for key, value in _leaves("", parameters):
        if not 0 < len(key) <= MAX_KEY:
            raise InvalidInput.of(
                f"parameters.{key[:60]}", f"a key has 1 to {MAX_KEY} characters, this one has {len(key)}", key[:60]
            )
        if key in found:
            raise InvalidInput.of(f"parameters.{key}", "is given twice, once nested and once with dots", value)
        found[key] = to_param(key, value)
        if len(found) > MAX_PARAMS:
            raise InvalidInput.of("parameters", f"holds more than {MAX_PARAMS} parameters")
    return list(found.values())


def to_param(key: str, value: Any) -> Param:
    """One value as it is kept."""
    match value:
        case bool():
            return Param(key, ParamKind.BOOL, "true" if value else "false")
        case int():
            return Param(key, ParamKind.INT, str(value), float(value))
        case float():
            return Param(key, ParamKind.FLOAT, repr(value), value)
        case str():
            param = Param(key, ParamKind.STRING, value)
        case _:
            param = Param(key, ParamKind.JSON, json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
    if len(param.text) > MAX_TEXT:
        raise InvalidInput.of(
            f"parameters.{key}",
            f"is {len(param.text)} characters long; at most {MAX_TEXT} are kept",
            param.text[:60],
            hint="Store what is large as an artifact of the run, and its name or digest as the parameter.",
        )
    return param


_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", re.ASCII)


def read_param(key: str, text: str) -> Param:
    """A parameter from a client that knows texts alone: what reads as a number is one, and its text stays as it is.

    >>> read_param("lr", "1e-3").value, read_param("lr", "1e-3").text, read_param("version", "007").value
    (0.001, '1e-3', '007')
    """
    if _INTEGER.fullmatch(text) and text != "-0":
        return Param(key, ParamKind.INT, text, float(text))
    if len(text) < 40 and _FRACTION.fullmatch(text) and math.isfinite(float(text)):
        return Param(key, ParamKind.FLOAT, text, float(text))
    return Param(key, ParamKind.STRING, text)


def changed(existing: Mapping[str, Param], given: list[Param]) -> list[tuple[Param, Param]]:
    """The pairs (existing, given) that say something else."""
    pairs = [(existing[param.key], param) for param in given if param.key in existing]
    return [(old, new) for old, new in pairs if not old.equals(new)]


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(f"{key}.", inner)
        else:
            yield key, inner
