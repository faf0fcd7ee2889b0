"""How requests of MLflow's wire are read, and its routes registered at every prefix that clients know."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from mlops_platform.core.errors import ContentTooLarge, MalformedRequest
from mlops_platform.core.http.pages import decode_token, encode_token
from mlops_platform.core.http.routing import is_json, limited, read_json, requires
from mlops_platform.core.identity import Permission
from mlops_platform.tracking.domain.ids import is_id
from mlops_platform.tracking.domain.mlflow_rules import INTEGERS, checked_run_id, invalid, mistyped, required
from mlops_platform.tracking.errors import MlflowInvalid, MlflowMissing

API = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
ARTIFACTS = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")
INFO = ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow")
PREFIXES = ("/api/2.0/", "/ajax-api/", "/api/3.0/")
MLFLOW_AGENT, MLFLOW_VERSION = "mlflow-", "3.17.0"
LARGE_BODY = 20 * 1024 * 1024
SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
EMPTY = b"{}"


class Fields:
    """The fields of a request, whether they came in a query string or as JSON. Those that nobody asks for are ignored."""

    def __init__(self, values: Mapping[str, Any], *, path: str = "", is_query: bool = False) -> None:
        self._values = values
        self._path = path
        self._is_query = is_query

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, *, default: str = "") -> str:
        """A text; the default when it is absent."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise mistyped(self._name(name), value)
        return value

    def needed(self, name: str) -> str:
        """A text that must be given."""
        if name not in self:
            raise required(self._name(name))
        return self.text(name)

    def optional(self, name: str) -> str | None:
        """A text; None when it is absent or empty."""
        return self.text(name) or None

    def integer(self, name: str) -> int | None:
        """An integer, as a number or as digits."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and len(value) <= 20:
            digits = value.removeprefix("-")
            value = int(value) if digits.isascii() and digits.isdigit() else value
        if isinstance(value, bool) or not isinstance(value, int) or value not in INTEGERS:
            raise mistyped(self._name(name), value)
        return value

    def number(self, name: str) -> float:
        """A number that must be given; NaN and the infinities are texts."""
        value = self._values.get(name)
        if value is None:
            raise required(self._name(name))
        if isinstance(value, str):
            value = SPECIAL.get(value, value)
        try:
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                return float(value)
        except (ValueError, OverflowError):
            pass
        raise invalid(self._name(name), value, "Please specify value as a valid double (64-bit floating point)")

    def flag(self, name: str) -> bool:
        """A truth, false when it is absent."""
        value = self._values.get(name, False)
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            value = value.lower() == "true"
        if not isinstance(value, bool):
            raise mistyped(self._name(name), value)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, str):
                raise mistyped(self._name(name), value)
        return values

    def items(self, name: str) -> "list[Fields]":
        """A list of objects."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, dict):
                raise mistyped(self._name(name), value)
        return [Fields(value, path=f"{self._name(name)}[{index}]") for index, value in enumerate(values)]

    def item(self, name: str) -> "Fields":
        """An object that must be given."""
        value = self._values.get(name)
        if value is None:
            raise required(self._name(name))
        if not isinstance(value, dict):
            raise mistyped(self._name(name), value)
        return Fields(value, path=self._name(name))

    def run_id(self, name: str = "run_id") -> str:
        """The id of a run, which may stand under its old name; one that is none of ours is not found."""
        given = self.optional(name) or self.optional("run_uuid")
        if given is None:
            raise required(self._name(name))
        if not is_id(checked_run_id(given, name)):
            raise MlflowMissing(f"Run with id={given} not found")
        return given

    def path_of(self, name: str) -> str:
        """Where a field stands, for messages."""
        return self._name(name)

    def _list(self, name: str) -> list[Any]:
        value = self._values.get(name)
        if value is None:
            return []
        if self._is_query and not isinstance(value, list):
            return [value]
        if not isinstance(value, list):
            raise mistyped(self._name(name), value)
        return value

    def _name(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


async def read_fields(request: Request) -> Fields:
    """A GET has its fields in the query string, everything else in a JSON body."""
    if request.method == "GET":
        query = request.query_params
        return Fields({key: _one_or_all(query.getlist(key)) for key in query}, is_query=True)
    return parse(await request.body(), request)


async def read_large_fields(request: Request) -> Fields:
    """The same where a body may hold a dataset's profile."""
    return parse(b"".join([chunk async for chunk in limited(request.stream(), LARGE_BODY)]), request)


async def read_batch_fields(request: Request) -> Fields:
    """The same, for a batch: its limit is one of MLflow's, and so is the sentence for it."""
    limit = 1_000_000
    try:
        return parse(b"".join([chunk async for chunk in limited(request.stream(), limit)]), request)
    except ContentTooLarge as error:
        size = request.headers.get("content-length", "more")
        raise MlflowInvalid(
            f"Batched logging API requests must be at most {limit} bytes, got a request of size {size}."
        ) from error


def parse(body: bytes, request: Request) -> Fields:
    """The fields of a body."""
    settings = request.app.state.runtime.settings
    return parse_json(body, request.headers.get("content-type"), settings.max_json_depth)


def parse_json(body: bytes, content_type: str | None, max_depth: int) -> Fields:
    """The fields of a body of this content type."""
    if not body:
        return Fields({})
    if not is_json(content_type):
        raise MlflowInvalid("Bad Request. Content-Type must be one of ['application/json'].")
    value = read_json(body, max_depth)
    if not isinstance(value, dict):
        raise MalformedRequest("The body must be a JSON object.")
    return Fields(value)


FieldsOf = Annotated[Fields, Depends(read_fields)]
LargeFieldsOf = Annotated[Fields, Depends(read_large_fields)]
BatchFieldsOf = Annotated[Fields, Depends(read_batch_fields)]


def on_wire(
    router: APIRouter,
    method: str,
    path: str,
    *,
    permission: Permission,
    prefixes: tuple[str, ...] = API,
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint at each prefix. The wire is MLflow's: docs/reference/mlflow.md describes it, not OpenAPI."""

    def register(endpoint: Endpoint) -> Endpoint:
        for prefix in prefixes:
            router.add_api_route(
                prefix + path,
                endpoint,
                methods=[method],
                dependencies=[requires(permission)],
                include_in_schema=False,
                response_class=Response,
            )
        return endpoint

    return register


def answer(value: Any) -> Response:
    """What goes out: fields that are None are left out by whoever makes the value."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def done() -> Response:
    """The empty answer."""
    return Response(EMPTY, media_type="application/json")


def present(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def token_of(key: bytes, digest: bytes, place: tuple[Any, ...]) -> str:
    """A page token that belongs to its search."""
    return encode_token(key, (digest, *place))


def place_of_token(key: bytes, digest: bytes, token: str | None) -> tuple[Any, ...] | None:
    """Where a page goes on; a token of another search would point at a place that is not there."""
    if not token:
        return None
    values = decode_token(key, token)
    if not values or values[0] != digest:
        raise MlflowInvalid("Invalid page token: it belongs to another search.")
    return values[1:]


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
