"""Everything that the client library raises: one tree.

MlopsError
├── ConfigurationError          a URL or credential that cannot be used, said before anything is sent
├── PlatformUnreachable         nothing answers at the address, or the connection broke on every attempt
│   └── RequestTimedOut         something took the request and did not answer in time
├── Offline                     the client was told to send nothing, and this needs the server
├── UnexpectedAnswer            what answers with success is not the platform, or of another time
├── ApiError                    the server answered with a problem: status, code, request_id, hint, errors
│   ├── InvalidRequest          400, 413, 415, 416, 422: the request says something that cannot be
│   ├── Unauthenticated         401
│   ├── PermissionDenied        403
│   ├── NotFound                404: absent, or in a project that the credential does not see
│   ├── Conflict                409
│   │   └── RunHeld             another process writes the run
│   ├── TooManyRequests         429: shed, nothing was done
│   └── ServerError             5xx
│       └── ServiceUnavailable  503: a dependency of the service is away, nothing was acknowledged
├── DigestMismatch              bytes arrived that are not the ones promised
├── UntrustedModel              loading this model would run code that its author wrote
├── MissingPackage              an optional package is needed for what was asked
├── PipelineRunFailed           a pipeline run that was waited for did not succeed
└── WaitTimedOut                what was waited for is still going on
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from mlops_platform.contracts.common import Problem, ProblemField


class MlopsError(Exception):
    """Base of the tree. `hint` says what to do next, when that is known."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigurationError(MlopsError):
    """A URL or credential that cannot be used."""


class PlatformUnreachable(MlopsError):
    """Nothing answers at the address, or the connection broke on every attempt."""


class RequestTimedOut(PlatformUnreachable):
    """Something took the request and did not answer in time."""


class Offline(MlopsError):
    """The client was told to send nothing, and this needs the server."""


class UnexpectedAnswer(MlopsError):
    """What answers with success is not the platform, or of another time."""


class DigestMismatch(MlopsError):
    """Bytes arrived that are not the ones promised."""


class UntrustedModel(MlopsError):
    """Loading this model would run code that its author wrote; the caller has not said that this is wanted."""


class MissingPackage(MlopsError):
    """An optional package is needed for what was asked."""


class PipelineRunFailed(MlopsError):
    """A pipeline run that was waited for did not succeed."""


class WaitTimedOut(MlopsError):
    """What was waited for is still going on."""


class ApiError(MlopsError):
    """The server answered with a problem (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, hint=problem.hint)
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.request_id = problem.request_id
        self.errors: Sequence[ProblemField] = tuple(problem.errors)

    def __str__(self) -> str:
        fields = "".join(f"\n  {error.field}: {error.message}" for error in self.errors if error.field not in self.message)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{super().__str__()} [{self.status} {self.code}]{request}{fields}"


class InvalidRequest(ApiError):
    """400, 413, 415, 416, 422: the request says something that cannot be."""


class Unauthenticated(ApiError):
    """401: no credential, or one that is wrong, expired or revoked."""


class PermissionDenied(ApiError):
    """403: the credential is known and may not do this."""


class NotFound(ApiError):
    """404: absent, or in a project that the credential does not see."""


class Conflict(ApiError):
    """409: the state of things forbids it now, or the name is taken."""


class RunHeld(Conflict):
    """409 `run_held`: another process writes the run; the message says which, and when it was last heard."""


class TooManyRequests(ApiError):
    """429: shed because of overload; nothing was done."""


class ServerError(ApiError):
    """5xx: the fault is the server's."""


class ServiceUnavailable(ServerError):
    """503: a dependency of the service is away; nothing was acknowledged."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    416: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
    503: ServiceUnavailable,
}


_BY_CODE: Mapping[str, type[ApiError]] = {"run_held": RunHeld}


def missing(detail: str, *, hint: str | None = None) -> NotFound:
    """What the server would say, for something that the client finds absent in an answer."""
    return NotFound(Problem(type="about:blank", title="Not found", status=404, code="not_found", detail=detail, hint=hint))


def api_error(status: int, body: Any, *, url: str, request_id: str | None = None) -> ApiError:
    """The typed error for an answer that is not a success, whatever its body (a proxy answers in HTML)."""
    try:
        problem = Problem.model_validate(body)
    except ValidationError:
        problem = Problem(
            type="about:blank",
            title="Unexpected answer",
            status=status,
            code="unexpected_answer",
            detail=f"{url} answered with status {status} and no problem document.",
            hint="Is this the address of the platform, or of something in front of it?",
            request_id=request_id,
        )
    fallback = ServerError if status >= 500 else ApiError
    return (_BY_CODE.get(problem.code) or _BY_STATUS.get(status, fallback))(problem)
