"""The layout of an experiment archive: its members, their columns, and the bounds within which each may lie.

Nothing in it is compressed, and only columns that repeat few short words are dictionaries: what is declared is what is
there, so that nothing small becomes large when it is read.
"""

import re
from typing import Any

from mlops_platform.sdk.errors import MlopsError

FORMAT = "mlops-experiment"
VERSION = 1
MANIFEST = "manifest.json"
EXPERIMENT = "experiment.json"
BLOB = re.compile(r"blobs/([0-9a-f]{64})")
MAX_JSON_BYTES = 512 * 1024 * 1024
MAX_ROW_GROUP = 131_072
MAX_WORD = 4096
"""Longest entry of a dictionary, in characters."""

# Kinds of columns: t text, w word (few different ones), i integer, f float, b bool, m moment. `?` may be absent.
TABLES: dict[str, dict[str, str]] = {
    "runs": {
        "id": "t", "run_name": "t", "status": "t", "status_reason": "t?", "user": "t?", "created_by": "t",
        "start_time": "m?", "end_time": "m?", "created_at": "m", "updated_at": "m", "deleted_at": "m?",
        "parent_run_id": "t?", "group": "t?", "notes": "t?", "heartbeat_seconds": "i?", "points": "i", "artifacts": "i",
    },
    "params": {"run_id": "t", "key": "t", "kind": "t", "text": "t", "number": "f?"},
    "tags": {"run_id": "t", "key": "t", "value": "t"},
    "inputs": {"run_id": "t", "name": "t", "digest": "t", "context": "t?", "tags": "t", "logged_at": "m"},
    "datasets": {"name": "t", "digest": "t", "source_type": "t", "source": "t", "columns": "t?", "profile": "t?"},
    "comments": {"run_id": "t", "id": "t", "author": "t", "text": "t", "created_at": "m", "edited_at": "m?"},
    "run_models": {"run_id": "t", "model_id": "t", "direction": "t", "step": "i"},
    "models": {
        "id": "t", "name": "t", "status": "t", "model_type": "t?", "source_run_id": "t?", "params": "t", "tags": "t",
        "created_by": "t", "created_at": "m", "updated_at": "m", "deleted_at": "m?", "artifacts": "i",
    },
    "model_metrics": {
        "model_id": "t", "run_id": "t", "key": "t", "step": "i", "timestamp": "m", "value": "f",
        "dataset_name": "t?", "dataset_digest": "t?",
    },
    "artifacts": {
        "owner": "t", "owner_id": "t", "path": "t", "size": "i", "sha256": "t", "content_type": "t", "created_at": "m",
    },
    "points": {
        "run_id": "w", "key": "w", "context": "w", "step": "i", "time": "m", "value": "f", "arrived": "b",
    },
}  # fmt: skip
MEMBERS = {MANIFEST, EXPERIMENT, *(f"{table}.parquet" for table in TABLES)}


class ArchiveError(MlopsError):
    """A file is no archive of an experiment, or is a damaged one. Nothing of it was brought in."""


class PackageMissing(MlopsError):
    """A Python package is missing that reads or writes this kind of file."""


def arrow() -> tuple[Any, Any]:
    """Pyarrow and its Parquet, which only archives need."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise PackageMissing(
            "Experiment archives need the package 'pyarrow'.", hint="pip install 'mlops-platform[archive]'"
        ) from error
    return pa, parquet


def schema_of(table: str) -> Any:
    """The Arrow schema of a member."""
    pyarrow, _ = arrow()
    types = {
        "t": pyarrow.string(),
        "w": pyarrow.string(),
        "i": pyarrow.int64(),
        "f": pyarrow.float64(),
        "b": pyarrow.bool_(),
        "m": pyarrow.timestamp("us", tz="UTC"),
    }
    return pyarrow.schema(
        [pyarrow.field(name, types[kind[0]], nullable=kind.endswith("?")) for name, kind in TABLES[table].items()]
    )


def words(table: str) -> list[str]:
    """The columns that are dictionaries."""
    return [name for name, kind in TABLES[table].items() if kind[0] == "w"]
