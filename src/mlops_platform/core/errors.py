"""The one error type that crosses to HTTP, and the errors that every service shares.

A leaf carries its stable `code` and its HTTP status; the instance says what was wrong, with the value, and what to do.
`core.http.problems` renders it once as RFC 9457 `application/problem+json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One offending field: its dotted path, the value given (shortened), and what is wrong with it."""

    field: str
    message: str
    value: object = None


class PlatformError(Exception):
    """Something the caller can understand: a code, a status, a sentence and, where it helps, a hint."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class InvalidInput(PlatformError):
    """A request that is well-formed but says something that cannot be."""

    status = 422
    code = "invalid_input"
    title = "The request is not valid"

    @classmethod
    def of(cls, field: str, message: str, value: object = None, *, hint: str | None = None) -> "InvalidInput":
        """The common case: one field is wrong."""
        return cls(f"{field}: {message}", errors=[FieldError(field, message, value)], hint=hint)


class MalformedRequest(PlatformError):
    """Bytes that are not what their content type says."""

    status = 400
    code = "malformed_request"
    title = "The request cannot be read"


class Unauthenticated(PlatformError):
    """No credential, or one that is wrong, expired or revoked. All look alike on purpose."""

    status = 401
    code = "unauthenticated"
    title = "A valid credential is needed"

    def __init__(self, detail: str = "No valid credential was sent.", *, hint: str | None = None) -> None:
        super().__init__(
            detail,
            hint=hint or "Send the API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            headers={"WWW-Authenticate": 'Bearer realm="mlops"'},
        )


class PermissionDenied(PlatformError):
    """The principal is known and may not do this."""

    status = 403
    code = "permission_denied"
    title = "Not allowed"


class ForbiddenOrigin(PlatformError):
    """A Host or Origin that is not on the allowlist: the guard against DNS rebinding and cross-site requests."""

    status = 403
    code = "forbidden_origin"
    title = "Host or origin not allowed"


class NotFound(PlatformError):
    """Absent, or in a project that the caller does not see: the two look alike on purpose."""

    status = 404
    code = "not_found"
    title = "Not found"


class MethodNotAllowed(PlatformError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class Conflict(PlatformError):
    """The state of things forbids it now."""

    status = 409
    code = "conflict"
    title = "Conflict"


class ContentTooLarge(PlatformError):
    """A body or a part of it exceeds its documented limit."""

    status = 413
    code = "content_too_large"
    title = "Too large"


class UnsupportedMediaType(PlatformError):
    """The content type is not one that this route reads."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported content type"


class RangeNotSatisfiable(PlatformError):
    """A Range header that names no byte of the content."""

    status = 416
    code = "range_not_satisfiable"
    title = "Range not satisfiable"


class TooManyRequests(PlatformError):
    """Shed because of overload: nothing was done."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)})


class DependencyUnavailable(PlatformError):
    """The database, the object store or the online store is away. Nothing was acknowledged; try again."""

    status = 503
    code = "dependency_unavailable"
    title = "A dependency is unavailable"

    def __init__(
        self, dependency: str, detail: str | None = None, *, hint: str | None = None, retry_after_seconds: int = 2
    ) -> None:
        super().__init__(
            detail or f"The {dependency} does not answer.",
            hint=hint or "Nothing was changed. The platform recovers by itself; retry after the given time.",
            headers={"Retry-After": str(retry_after_seconds)},
        )
        self.dependency = dependency


class RequestTimedOut(PlatformError):
    """The request took longer than it may; what it had begun was undone."""

    status = 503
    code = "request_timed_out"
    title = "The request took too long"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class StorageFull(PlatformError):
    """No space is left for what was sent; what was stored before is safe."""

    status = 507
    code = "storage_full"
    title = "No space left"


class ConfigurationError(Exception):
    """The process cannot start as configured. The message is one clear line for the terminal."""
