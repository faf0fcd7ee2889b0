"""Writes an experiment archive in bounded memory: tables to files beside it, which become its members at the end."""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlops_platform.sdk.archive.layout import EXPERIMENT, FORMAT, MANIFEST, TABLES, VERSION, arrow, schema_of, words

ROWS_AT_ONCE = 2000
POINTS_AT_ONCE = 65_536
COPY_BYTES = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A time of making would make each export of the same thing another file.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


class ArchiveWriter:
    """One archive. It appears under its name when it is complete; until then nothing is there."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = Path(tempfile.mkdtemp(prefix=".mlops-export-", dir=target.parent))
        self._partial = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        self._zip = zipfile.ZipFile(self._partial, "x", zipfile.ZIP_STORED)
        self._tables = {name: _Table(name, self._folder) for name in TABLES}
        self._points: Counter[str] = Counter()
        self._artifacts: Counter[tuple[str, str]] = Counter()
        self._kept = {name: self._folder / f"{name}.jsonl" for name in ("runs", "models")}
        self._members: dict[str, dict[str, Any]] = {}
        self._seen_datasets: set[tuple[str, str]] = set()

    @property
    def folder(self) -> Path:
        """A place for what is on its way in."""
        return self._folder

    def runs(self, records: Iterable[Mapping[str, Any]], datasets: Iterable[Mapping[str, Any]]) -> None:
        """Add runs; they come in the order of their ids."""
        for run in self._keep("runs", records):
            whose = {"run_id": run["id"]}
            hanging = {
                "params": [{**param, "number": _number(param)} for param in run["params"]],
                "tags": [{"key": key, "value": value} for key, value in run["tags"].items()],
                "inputs": [{**used, "tags": _json(used["tags"])} for used in run["inputs"]],
                "comments": run["comments"],
                "run_models": run["models"],
            }
            for table, rows in hanging.items():
                for row in rows:
                    self._tables[table].add({**whose, **row})
        for dataset in datasets:
            known = dataset["name"], dataset["digest"]
            if known not in self._seen_datasets:
                self._seen_datasets.add(known)
                self._tables["datasets"].add(dataset)

    def models(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add logged models, in the order of their ids."""
        texts = ({**it, "params": _json(it["params"]), "tags": _json(it["tags"])} for it in records)
        for model in self._keep("models", texts):
            for metric in model["metrics"]:
                self._tables["model_metrics"].add({**metric, "model_id": model["id"]})

    def points(self, page: Mapping[str, Any]) -> None:
        """Add a page of points, in columns."""
        runs, keys = page["run_ids"], [(key["name"], _context(key["context"])) for key in page["keys"]]
        self._points.update(runs[place] for place in page["run"])
        self._tables["points"].extend(
            {
                "run_id": [runs[place] for place in page["run"]],
                "key": [keys[place][0] for place in page["key"]],
                "context": [keys[place][1] for place in page["key"]],
                "step": page["step"],
                "time": page["time_us"],
                "value": [float(value) for value in page["value"]],
                "arrived": page["arrived"],
            }
        )

    def artifact(self, owner: str, record: Mapping[str, Any]) -> None:
        """Add the name of a file; its content comes by `blob`."""
        self._artifacts[owner, record["owner_id"]] += 1
        self._tables["artifacts"].add({**record, "owner": owner})

    def has_blob(self, sha256: str) -> bool:
        """Whether the content is in already."""
        return f"blobs/{sha256}" in self._members

    def blob(self, sha256: str, path: Path) -> None:
        """Add a content."""
        self._copy(f"blobs/{sha256}", path)

    def finish(self, experiment: Mapping[str, Any]) -> None:
        """Add what is left, and give the archive its name."""
        for name, owner in (("models", "model"), ("runs", "run")):
            for row in self._taken(name):
                counts = {"points": self._points[row["id"]], "artifacts": self._artifacts[owner, row["id"]]}
                self._tables[name].add({**row, **counts})
        for name, table in self._tables.items():
            self._copy(f"{name}.parquet", table.finish())
        self._add(EXPERIMENT, _pretty(experiment))
        rows = {name: table.rows for name, table in self._tables.items()}
        manifest = {"format": FORMAT, "version": VERSION, "rows": rows, "members": self._members}
        self._zip.writestr(_info(MANIFEST), _pretty(manifest))
        self._zip.close()
        self._partial.replace(self._target)

    def discard(self) -> None:
        """Leave nothing behind; what is complete stays."""
        for table in self._tables.values():
            table.close()
        self._zip.close()
        self._partial.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self, name: str, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Put rows aside until it is known what was written of each: whoever logs on adds points after the row was read."""
        with self._kept[name].open("a", encoding="utf-8") as file:
            for record in records:
                file.write(_json({column: record.get(column) for column in TABLES[name]}) + "\n")
                yield record

    def _taken(self, name: str) -> Iterator[dict[str, Any]]:
        if self._kept[name].exists():
            with self._kept[name].open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def _add(self, name: str, content: bytes) -> None:
        self._zip.writestr(_info(name), content)
        self._members[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    def _copy(self, name: str, path: Path) -> None:
        digest, size = hashlib.sha256(), 0
        info = _info(name)
        info.file_size = path.stat().st_size  # decides whether its sizes need 64 bits
        with path.open("rb") as source, self._zip.open(info, "w") as entry:
            while chunk := source.read(COPY_BYTES):
                digest.update(chunk)
                size += len(chunk)
                entry.write(chunk)
        self._members[name] = {"sha256": digest.hexdigest(), "size": size}
        path.unlink()


class _Table:
    """One Parquet file, written group by group."""

    def __init__(self, name: str, folder: Path) -> None:
        self._pyarrow, parquet = arrow()
        self._schema = schema_of(name)
        self._kinds = TABLES[name]
        self._path = folder / f"{name}.parquet"
        self._most = POINTS_AT_ONCE if name == "points" else ROWS_AT_ONCE
        self._columns: dict[str, list[Any]] = {column: [] for column in self._kinds}
        packed = {column: "DELTA_BINARY_PACKED" for column, kind in self._kinds.items() if kind[0] in "im"}
        self._writer = parquet.ParquetWriter(
            self._path,
            self._schema,
            compression="none",
            use_dictionary=words(name),
            column_encoding=packed or None,
        )
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        for column, kind in self._kinds.items():
            value = row.get(column)
            self._columns[column].append(_micros(value) if kind[0] == "m" and isinstance(value, str) else value)
        self._flush_full()

    def extend(self, columns: Mapping[str, list[Any]]) -> None:
        for column, values in columns.items():
            self._columns[column].extend(values)
        self._flush_full()

    def finish(self) -> Path:
        self._flush()
        self._writer.close()
        return self._path

    def close(self) -> None:
        self._writer.close()

    def _flush_full(self) -> None:
        if len(next(iter(self._columns.values()))) >= self._most:
            self._flush()

    def _flush(self) -> None:
        count = len(next(iter(self._columns.values())))
        if count:
            arrays = [
                self._pyarrow.array(
                    [float(value) if kind[0] == "f" and value is not None else value for value in self._columns[name]],
                    type=self._schema.field(name).type,
                    from_pandas=False,
                )
                for name, kind in self._kinds.items()
            ]
            self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema), row_group_size=count)
            self.rows += count
            self._columns = {column: [] for column in self._kinds}


def _number(param: Mapping[str, Any]) -> float | None:
    return float(param["text"]) if param["kind"] in {"int", "float"} else None


def _micros(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _context(context: Mapping[str, str]) -> str:
    return _json(context) if context else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _pretty(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _ZIP_EPOCH)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info
