"""Errors as MLflow's clients read them: `{"error_code", "message"}` with MLflow's codes and statuses."""

import msgspec

from mlops_platform.core.errors import (
    Conflict,
    ContentTooLarge,
    InvalidInput,
    MalformedRequest,
    NotFound,
    PermissionDenied,
    PlatformError,
    StorageFull,
    TooManyRequests,
    Unauthenticated,
    UnsupportedMediaType,
)
from mlops_platform.core.http.service import ErrorAnswer
from mlops_platform.core.query.errors import QueryError
from mlops_platform.tracking.errors import (
    ExperimentNameTaken,
    MlflowExists,
    MlflowInvalid,
    MlflowMissing,
    ParamChanged,
    RunDeleted,
    RunNotFound,
)

INVALID = "INVALID_PARAMETER_VALUE"
# By type, the more special one first. What the caller got wrong is 400, whatever status it has elsewhere.
_CODES: tuple[tuple[type[PlatformError], int, str], ...] = (
    (ExperimentNameTaken, 400, "RESOURCE_ALREADY_EXISTS"),
    (Conflict, 400, INVALID),
    (InvalidInput, 400, INVALID),
    (QueryError, 400, INVALID),
    (MalformedRequest, 400, "BAD_REQUEST"),
    (UnsupportedMediaType, 400, INVALID),
    (ContentTooLarge, 413, INVALID),
    (Unauthenticated, 401, "UNAUTHENTICATED"),
    (PermissionDenied, 403, "PERMISSION_DENIED"),
    (NotFound, 404, "RESOURCE_DOES_NOT_EXIST"),
    (TooManyRequests, 429, "REQUEST_LIMIT_EXCEEDED"),
    (StorageFull, 507, "RESOURCE_EXHAUSTED"),
)
_BY_STATUS = {403: "PERMISSION_DENIED", 405: "BAD_REQUEST", 416: "BAD_REQUEST", 503: "TEMPORARILY_UNAVAILABLE"}


def mlflow_error(error: PlatformError) -> ErrorAnswer:
    """The error form of MLflow's paths."""
    status, code = _status_and_code(error)
    body = {"error_code": code, "message": _message(error)}
    return ErrorAnswer(status, "application/json", msgspec.json.encode(body))


def _status_and_code(error: PlatformError) -> tuple[int, str]:
    if isinstance(error, MlflowInvalid | MlflowExists | MlflowMissing):
        return error.status, error.code
    if type(error) is NotFound:
        return 404, "ENDPOINT_NOT_FOUND"
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            return status, code
    return error.status, _BY_STATUS.get(error.status, "INTERNAL_ERROR")


def _message(error: PlatformError) -> str:
    match error:
        case RunDeleted():
            return f"The run {error.run_id} must be in the 'active' state. Current state is deleted."
        case RunNotFound():
            return f"Run with id={error.run_id} not found"
        case ParamChanged():
            return (
                f"Changing param values is not allowed. Param with key='{error.key}' was already logged with "
                f"value='{error.old}' for run ID='{error.run_id}'. Attempted logging new value '{error.new}'."
            )
        case _:
            return f"{error.detail} {error.hint}" if error.hint else error.detail
