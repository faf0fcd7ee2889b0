"""Every error as RFC 9457 problem details, rendered in one place."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from mlops_platform.core.errors import (
    FieldError,
    InvalidInput,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    PlatformError,
)
from mlops_platform.core.telemetry.logs import redact

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_TYPE_BASE = "https://mlops-platform.dev/problems/"
CLIENT_GONE = 499  # as nginx writes it: the client went away before the answer
_SHOWN_VALUE = 100
_SHOWN_FIELD = 200
_SHOWN_ERRORS = 20
# A value is shown back to who sent it, and lands in logs: never that of a field with such a name.
_SECRET_WORDS = ("secret", "password", "token", "key", "authorization", "credential")


UNFORESEEN = "The platform ran into something that it did not foresee. Nothing half-done was kept."
UNFORESEEN_HINT = "Give the request id to whoever runs the platform."


class InternalError(PlatformError):
    """Something that nobody foresaw. The request id finds it in the log."""


def problem_bytes(error: PlatformError, request_id: str | None) -> bytes:
    """The JSON body of a problem."""
    body: dict[str, Any] = {
        "type": _TYPE_BASE + error.code,
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "errors": [
            {"field": e.field, "message": e.message, "value": _shown(e.field, e.value)}
            for e in error.errors[:_SHOWN_ERRORS]
        ],
        "hint": error.hint,
        "request_id": request_id,
    }
    return json.dumps({name: value for name, value in body.items() if value not in (None, [])}).encode()


def problem_response(error: PlatformError, request_id: str | None) -> Response:
    """A whole response."""
    return Response(problem_bytes(error, request_id), error.status, error.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Render our errors, the framework's and the validator's alike."""
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


async def _platform_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PlatformError)  # noqa: S101  # the handler is registered for this type alone
    if error.status >= 500:
        log.warning("request.failed", code=error.code, detail=error.detail, cause=repr(error.__cause__))
    return problem_response(error, request_id_of(request.scope))


async def _gone(_: Request, __: Exception) -> Response:
    """For the log and the metrics: nobody is there to read it."""
    return Response(status_code=CLIENT_GONE)


async def _unforeseen(request: Request, _: Exception) -> Response:
    """Anything else. The framework raises it on after this answer, so that the edge logs it."""
    return problem_response(InternalError(UNFORESEEN, hint=UNFORESEEN_HINT), request_id_of(request.scope))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # see above
    return problem_response(from_validation(error.errors()), request_id_of(request.scope))


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # see above
    path = request.url.path
    problem: PlatformError
    if error.status_code == 404:
        problem = NotFound(f"Nothing is at {path[:200]!r}.", hint="The routes are listed at /docs.")
    elif error.status_code == 405:
        headers = dict(error.headers or {})
        headers["Allow"] = "GET, HEAD" if headers.get("Allow") == "GET" else headers.get("Allow", "")
        problem = MethodNotAllowed(f"{request.method} is not possible at {path[:200]!r}.", headers=headers)
    else:
        problem = MalformedRequest(str(error.detail), headers=error.headers or {})
    return problem_response(problem, request_id_of(request.scope))


def from_validation(errors: Sequence[Mapping[str, Any]]) -> InvalidInput:
    """The validator's findings, as one problem that names each field."""
    fields = [
        FieldError(_field(error["loc"]), _sentence(str(error["msg"])), error.get("input"))
        for error in errors[:_SHOWN_ERRORS]
    ]
    first = fields[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidInput(f"{first.field}: {first.message}{more}", errors=fields)


def request_id_of(scope: Mapping[str, Any]) -> str | None:
    """The id that the outermost layer gave to this request."""
    return (scope.get("state") or {}).get("request_id")


def _field(location: Sequence[Any]) -> str:
    # Only the first part says where the field stands: a field of its own may well be called `path`.
    parts = [str(part) for part in location[location[0] in {"body", "query", "path", "header"} :]]
    # An unknown field is named by the caller, at any length.
    return (".".join(parts) or str(location[0]))[:_SHOWN_FIELD]


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")[:300]


def _shown(field: str, value: Any) -> Any:
    """The offending value, short enough to read; never a secret."""
    if value is None or isinstance(value, bool):
        return value
    if any(word in field.lower() for word in _SECRET_WORDS):
        return None
    # A required field that is missing is reported with the whole object around it, whatever that holds.
    text = _text(redact(value))
    # Shown as text: a number that JSON cannot hold must not break the answer that complains about it.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "…"


def _text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else repr(value)
    except ValueError:  # Python does not write out integers of more than 4,300 digits
        return "a number of thousands of digits"
