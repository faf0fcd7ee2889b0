"""What MLflow's wire takes, and its sentences for what it does not take: clients and their tests look at them."""

import json
import math
import posixpath
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mlops_platform.tracking.errors import MlflowInvalid

MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_ENTITIES = 1000
MAX_BATCH_BYTES = 1_000_000
MAX_KEY = 250
MAX_PARAM_VALUE = 6000
MAX_TAG_VALUE = 8000
MAX_EXPERIMENT_TAG_VALUE = 20_000
MAX_EXPERIMENT_NAME = 500
MAX_RESULTS = 50_000
LATEST_MILLISECOND = 253_402_300_799_999
INTEGERS = range(-(2**63), 2**63)
PARENT_RUN, RUN_NAME, NOTE, USER, LOGGED_MODELS, DATASET_CONTEXT = (
    "mlflow.parentRunId",
    "mlflow.runName",
    "mlflow.note.content",
    "mlflow.user",
    "mlflow.log-model.history",
    "mlflow.data.context",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY = re.compile(r"[/\w.\- :]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_MODEL_ID = re.compile(r"m-([0-9a-f]{32})")


def required(name: str) -> MlflowInvalid:
    """A field is missing."""
    return MlflowInvalid(
        f"Missing value for required parameter '{name}'. See the API docs for more information about request parameters."
    )


def invalid(name: str, value: Any, why: str = "") -> MlflowInvalid:
    """A field has a value that cannot be."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)[:200]
    return MlflowInvalid(f"Invalid value {shown} for parameter '{name}' supplied{f': {why}' if why else '.'}")


def mistyped(name: str, value: Any) -> MlflowInvalid:
    """A field has a value of the wrong type."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)[:200]
    return MlflowInvalid(
        f"Invalid value {shown} for parameter '{name}' supplied:  Hint: Value was of type '{type(value).__name__}'. "
        "See the API docs for more information about request parameters."
    )


def too_long(name: str, limit: int) -> MlflowInvalid:
    """A text exceeds its limit, and is not one of those that are cut."""
    return MlflowInvalid(f"'{name}' exceeds the maximum length of {limit} characters")


def checked_key(key: str, path: str, what: str) -> str:
    """The key of a metric, parameter or tag: it may be a relative path, and must be the shortest form of it.

    >>> checked_key("train/loss", "key", "Metric name")
    'train/loss'
    """
    if not _KEY.fullmatch(key):
        raise invalid(
            path,
            key,
            "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and "
            "slashes (/).",
        )
    plain = posixpath.normpath(key)
    if plain != key or plain == "." or plain.startswith(("..", "/")):
        raise invalid(
            path,
            key,
            "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. "
            f"This name would resolve to {plain!r}",
        )
    if len(key) > MAX_KEY:
        raise too_long(what, MAX_KEY)
    return key


def checked_run_id(run_id: str, name: str = "run_id") -> str:
    """What can be the id of a run in MLflow."""
    if not _RUN_ID.fullmatch(run_id):
        raise invalid(name, run_id)
    return run_id


def experiment_number(text: str) -> int:
    """The number of an experiment; one that no row can have is looked for in vain, and is no error here."""
    try:
        number = int(text) if len(text) < 20 else -1
    except ValueError:
        raise MlflowInvalid(f"Invalid experiment ID '{text[:100]}'. Experiment ID must be a valid integer.") from None
    return number if number in INTEGERS else -1


def checked_experiment_name(name: str) -> str:
    """The name of a new experiment."""
    if not name.strip():
        raise MlflowInvalid(f"Invalid experiment name: '{name[:100]}'")
    if len(name) > MAX_EXPERIMENT_NAME:
        raise too_long("name", MAX_EXPERIMENT_NAME)
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise MlflowInvalid(f"Invalid experiment name: {name[:100]!r}. It must not contain control characters.")
    return name


def check_batch(metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> None:
    """How much one batch may hold."""
    total = len(metrics) + len(params) + len(tags)
    for what, limit, count in (
        ("metrics", MAX_METRICS, len(metrics)),
        ("params", MAX_PARAMS, len(params)),
        ("tags", MAX_TAGS, len(tags)),
        ("metrics, params, and tags", MAX_ENTITIES, total),
    ):
        if count > limit:
            raise MlflowInvalid(
                f"A batch logging request can contain at most {limit} {what}. Got {count} {what}. "
                f"Please split up {what} across multiple requests and try again."
            )


def check_results(given: int | None, *, most: int = MAX_RESULTS) -> None:
    """The size of a page."""
    if given is None or given < 1:
        raise MlflowInvalid(f"Invalid value {given} for parameter 'max_results' supplied. It must be a positive integer")
    if given > most:
        raise MlflowInvalid(f"Invalid value {given} for parameter 'max_results' supplied. It must be at most {most}")


def to_time(milliseconds: int, name: str = "timestamp") -> datetime:
    """The moment of a number of milliseconds since 1970."""
    if not 0 <= milliseconds <= LATEST_MILLISECOND:
        raise invalid(name, milliseconds, "Timestamp must be a nonnegative long (64-bit integer) in milliseconds")
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_milliseconds(moment: datetime) -> int:
    """The other way round."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def wire_float(value: float) -> float | str:
    """A number as JSON has it, and a text for what JSON has no number for."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def model_id_of(text: str) -> str | None:
    """Our id of a logged model's `m-...`; None for what can be none."""
    match = _MODEL_ID.fullmatch(text)
    return match[1] if match else None
