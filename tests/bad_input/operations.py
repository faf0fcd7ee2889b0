"""Every operation of the five services, read from their OpenAPI documents: a new route joins by itself."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mlops_platform.contracts.common import ID_PATTERN
from mlops_platform.server.openapi import documents
from tests.bad_input.corpus import Literal

KEY = "*key*"  # in a field's path: the name of an entry of an open object
FIRST = 0  # in a field's path: the first item of a list
EXCLUDED = {
    ("GET", "/api/platform/events"): "an event stream that ends when the client goes away; tests/core/http has it",
}
_PLATFORM_OWNER = "model-registry"  # the platform's own routes are the same code in each of the five
UNKNOWN_ID = "0" * 31 + "1"
_LARGE = 1000
_fresh = itertools.count()

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    service: str
    method: str
    path: str
    parameters: tuple[Mapping[str, Any], ...]
    body: Mapping[str, Any] | None
    needs_body: bool
    takes_files: bool

    def __str__(self) -> str:
        return f"{self.service} {self.method} {self.path}"

    @property
    def turn(self) -> int:
        """With which share of a corpus this operation begins."""
        return sum(map(ord, str(self)))

    def named(self, place: str) -> list[Mapping[str, Any]]:
        """The parameters in `path` or `query`."""
        return [parameter for parameter in self.parameters if parameter["in"] == place]


@cache
def schemas(service: str) -> Mapping[str, Any]:
    """The named schemas of a service."""
    return json.loads(documents()[service])["components"]["schemas"]


@cache
def operations() -> tuple[Operation, ...]:
    """All of them but the excluded."""
    found = []
    for service, document in documents().items():
        for path, methods in json.loads(document)["paths"].items():
            if service != _PLATFORM_OWNER and not (path.startswith("/api/") and not path.startswith("/api/platform/")):
                continue
            for method, spec in methods.items():
                if (method.upper(), path) not in EXCLUDED:
                    found.append(_operation(service, method.upper(), path, spec))
    return tuple(found)


def _operation(service: str, method: str, path: str, spec: Mapping[str, Any]) -> Operation:
    content = spec.get("requestBody", {}).get("content", {})
    body = content.get("application/json", {}).get("schema")
    return Operation(
        service,
        method,
        path,
        tuple(spec.get("parameters", ())),
        body,
        needs_body=spec.get("requestBody", {}).get("required", False),
        takes_files=bool(set(content) - {"application/json"}),
    )


def with_json() -> list[Operation]:
    """Those that read JSON."""
    return [operation for operation in operations() if operation.body is not None]


def resolve(service: str, schema: Any) -> Mapping[str, Any]:
    """The schema itself, without references and without the null of an optional field."""
    while True:
        if not isinstance(schema, dict):
            return {}
        if "$ref" in schema:
            schema = schemas(service)[schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
        elif any(kind in schema for kind in ("anyOf", "oneOf", "allOf")):
            options = schema.get("anyOf") or schema.get("oneOf") or schema["allOf"]
            real = [option for option in options if option.get("type") != "null"]
            schema = {k: v for k, v in schema.items() if k not in {"anyOf", "oneOf", "allOf"}} | dict(real[0])
        else:
            return schema


def sample(service: str, schema: Any) -> Any:
    """A valid value, the smallest that the schema allows."""
    schema = resolve(service, schema)
    told = _told(schema)
    return _built(service, schema) if told is None else told


def _told(schema: Mapping[str, Any]) -> Any:
    """A value that the document itself gives."""
    pattern = schema.get("pattern", "")
    if pattern.startswith("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}"):
        return f"fresh-{next(_fresh)}"
    if pattern == ID_PATTERN:
        return UNKNOWN_ID
    given = [schema[word] for word in ("const", "example") if word in schema]
    return next(iter([*given, *schema.get("enum", ()), *schema.get("examples", ())]), None)


def _built(service: str, schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "object" if not schema.get("required") and isinstance(schema.get("additionalProperties"), dict):
            return {"entry": sample(service, schema["additionalProperties"])}
        case "object":
            return {name: sample(service, schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [sample(service, schema.get("items", {})) for _ in range(schema.get("minItems", 0))]
        case "string":
            text = "2026-01-31T09:00:00Z" if schema.get("format") == "date-time" else f"text-{next(_fresh)}"
            return text[: schema.get("maxLength", 100)]
        case "integer" | "number":
            return _number(schema)
        case kind:
            return False if kind == "boolean" else {}


def _number(schema: Mapping[str, Any]) -> float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema) * 0.5)
    return max(least, 1) if schema.get("maximum", 1) >= 1 else least


def fields(service: str, schema: Any, *, kinds: frozenset[str], within: Path = (), depth: int = 6) -> Iterator[Path]:
    """The places in a body where a value of one of these JSON types stands."""
    if depth == 0:
        return
    schema = resolve(service, schema)
    kind = schema.get("type") or ("object" if "properties" in schema else "any")
    if within and kind in kinds | {"any"}:
        yield within
    for name, inner in schema.get("properties", {}).items():
        yield from fields(service, inner, kinds=kinds, within=(*within, name), depth=depth - 1)
    if kind == "array":
        yield from fields(service, schema.get("items", {}), kinds=kinds, within=(*within, FIRST), depth=depth - 1)
    if kind == "object" and schema.get("additionalProperties"):
        if "string" in kinds:
            yield (*within, KEY)
        yield from fields(service, schema["additionalProperties"], kinds=kinds, within=(*within, "entry"), depth=depth - 1)


def schema_at(service: str, schema: Any, path: Path) -> Any:
    """The schema of a place, as the document has it."""
    for part in path:
        schema = resolve(service, schema)
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part, schema.get("additionalProperties", {}))
    return schema


def kinds_at(service: str, schema: Any, path: Path) -> set[str]:
    """The JSON types that the document allows at a place; empty when it allows any."""
    if path[-1] == KEY:
        return set()
    return _kinds(service, schema_at(service, schema, path))


def _kinds(service: str, schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    if "$ref" in schema:
        return _kinds(service, schemas(service)[schema["$ref"].rpartition("/")[2]])
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        found = [_kinds(service, option) for option in options]
        return set().union(*found) if all(found) else set()
    return {schema["type"]} if "type" in schema else set()


def placed(service: str, schema: Any, body: Any, path: Path, value: Any) -> Any:
    """The body with the value at the place; what is missing on the way is made."""
    if not path:
        return value
    schema = resolve(service, schema)
    head, rest = path[0], path[1:]
    if head == KEY:
        inner = schema["additionalProperties"]
        key = value if isinstance(value, str) else str(value)
        return {**(body or {}), key: sample(service, inner if isinstance(inner, dict) else {"type": "number"})}
    if isinstance(head, int):
        items = list(body or [sample(service, schema["items"])])
        items[head] = placed(service, schema["items"], items[head], rest, value)
        return items
    inner = schema.get("properties", {}).get(head, schema.get("additionalProperties", {}))
    body = body if isinstance(body, dict) else {}
    old = body.get(head)
    if old is None and rest:
        old = sample(service, inner)
    return {**body, head: placed(service, inner, old, rest, value)}


def encoded(body: Any) -> bytes:
    """JSON, with literals as they are and surrogates as escapes."""
    literals: list[str] = []

    def mark(value: Any) -> Any:
        match value:
            case Literal():
                literals.append(value.text)
                return f"@literal{len(literals) - 1}@"
            case dict() | list() if len(value) > _LARGE:
                return value  # holds no literals, and there is no time to look
            case dict():
                return {key: mark(inner) for key, inner in value.items()}
            case list():
                return [mark(inner) for inner in value]
            case _:
                return value

    text = json.dumps(mark(body))
    for number, literal in enumerate(literals):
        text = text.replace(f'"@literal{number}@"', literal)
    return text.encode()
