"""What data a run read: its shape, types and a digest. The data itself stays where it is."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlops_platform.sdk import models
from mlops_platform.sdk.files import sha256_of

HASHED_ROWS = 10_000
NAME = "dataset"
LONGEST_SCHEMA = 1_000_000


def describe(inputs: Any, targets: Any = None, *, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Shape, types and a digest of a data set. The digest is of evenly spread rows: enough to tell two sets apart."""
    digest = hashlib.sha256()
    if schema is not None:
        # The parts themselves do not have their names.
        digest.update(json.dumps(schema, sort_keys=True).encode())
    for part in (inputs, targets):
        if part is not None:
            _digest(part, digest.update)
    shape = getattr(inputs, "shape", None)
    return {
        "digest": digest.hexdigest(),
        "rows": rows_of(inputs),
        "columns": int(shape[1]) if shape is not None and len(shape) > 1 else 1,
        "schema": models.signature_of(inputs, targets) if schema is None else dict(schema),
        "digest_rows": HASHED_ROWS,
    }


def rows_of(data: Any) -> int:
    """How many rows there are."""
    return int(data.shape[0]) if getattr(data, "shape", None) else len(data)


def spread(data: Any, most: int) -> Any:
    """At most so many rows, evenly from beginning to end."""
    step = max(1, -(-rows_of(data) // most))
    if hasattr(data, "take") and hasattr(data, "schema"):  # pyarrow
        return data.take(list(range(0, rows_of(data), step)))
    return data.iloc[::step] if hasattr(data, "iloc") else data[::step]


def told(
    data: Any = None,
    *,
    name: str | None = None,
    targets: Any = None,
    digest: str | None = None,
    source: str | None = None,
    context: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A dataset as the wire has it: an array, a table, rows, the path of a file or folder, or a digest that is known."""
    about: dict[str, Any] = {}
    if isinstance(data, Path):
        source = str(data.absolute()) if source is None else source
        name = name or data.stem
        digest = digest or _digest_of_files(data)
    elif data is not None:
        found = describe(data, targets)
        digest = digest or found["digest"]
        about = to_wire(found)
    if not digest:
        raise ValueError("A dataset is told by its digest: give the data, the path of its file, or digest=...")
    body = about | {
        "name": name or NAME,
        "digest": digest,
        "source": source or "",
        "source_type": kind_of(source) if source else "code",
        "context": context,
        "tags": dict(tags or {}),
    }
    return {key: value for key, value in body.items() if value is not None}


def to_wire(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `describe` found, in the words of the wire."""
    columns = json.dumps(found["schema"], separators=(",", ":"), ensure_ascii=False)
    profile = {key: found[key] for key in ("rows", "columns")}
    return {
        "digest": found["digest"],
        # Of very many columns the digest and the shape are enough.
        **({"columns": columns} if len(columns.encode()) <= LONGEST_SCHEMA else {}),
        "profile": json.dumps(profile, separators=(",", ":")),
    }


def kind_of(source: str) -> str:
    """What a source is: the scheme of its address, or a local path."""
    scheme = urlsplit(source).scheme
    # A single letter is a drive of Windows.
    return scheme if len(scheme) > 1 else "local"


def _digest_of_files(place: Path) -> str:
    if not place.is_dir():
        return sha256_of(place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(place).as_posix()} {sha256_of(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(data: Any, add: Callable[[bytes], Any]) -> None:
    if hasattr(data, "tocsr"):  # sparse
        matrix = data.tocsr()
        add(repr(matrix.shape).encode())
        for part in (matrix.indptr, matrix.indices, matrix.data):
            add(spread(part, HASHED_ROWS).tobytes())
        return
    some = spread(data, HASHED_ROWS)
    if hasattr(some, "to_csv"):
        add(f"{data.shape} {list(map(str, getattr(data, 'columns', [])))}".encode())
        add(some.to_csv(index=False).encode())
        return
    if hasattr(some, "to_pydict"):  # pyarrow
        add(f"{data.shape} {data.schema}".encode())
        add(repr(some.to_pydict()).encode())
        return
    array = _array(some)
    add(f"{tuple(data.shape) if hasattr(data, 'shape') else len(data)} {array.dtype}".encode())
    add(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())


def _array(data: Any) -> Any:
    import numpy as np

    if hasattr(data, "detach"):  # torch, perhaps on another device
        data = data.detach().cpu().numpy()
    return np.ascontiguousarray(data) if not isinstance(data, Sequence) else np.asarray(data)
