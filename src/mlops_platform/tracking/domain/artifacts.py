"""Logical paths of artifacts: names with slashes, never places on a disk."""

import re

from mlops_platform.core.errors import InvalidInput

MAX_BYTES = 1024
DEFAULT_TYPE = "application/octet-stream"
SCHEME = "mlflow-artifacts:/"
"""What the place of artifacts begins with for MLflow when they lie behind this server."""
ARTIFACT_PATH = "mlops.artifact_path"
"""The tag of a logged model whose files are artifacts of the run that made it: where among them."""
# U+FFFD is what bytes that are no UTF-8 are read as: two such names would be one.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff\ufffd]")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}(;[ \w.+=\"-]{0,100})?", re.ASCII)


def checked_path(path: str, *, field: str = "path") -> str:
    """The path, or `InvalidInput` with what is wrong about it.

    >>> checked_path("model/weights.bin")
    'model/weights.bin'
    """
    if not path or len(path.encode(errors="surrogatepass")) > MAX_BYTES:
        raise InvalidInput.of(field, f"must have 1 to {MAX_BYTES} bytes", path[:100])
    if _FORBIDDEN.search(path):
        raise InvalidInput.of(field, "must be UTF-8 without backslashes and control characters", path[:100])
    if any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise InvalidInput.of(field, "must not begin or end with a slash, nor hold empty, '.' or '..' segments", path[:100])
    return path


def folders_of(path: str) -> list[str]:
    """Every folder above a path.

    >>> folders_of("a/b/c.txt")
    ['a', 'a/b']
    """
    segments = path.split("/")[:-1]
    return ["/".join(segments[: number + 1]) for number in range(len(segments))]


def media_type(given: str | None) -> str:
    """The content type to keep; what is not one is bytes."""
    return given if given and _MEDIA_TYPE.fullmatch(given) else DEFAULT_TYPE
