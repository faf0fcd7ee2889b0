"""Training sets: labels joined with features as they were, kept as a file with all that is needed to make it again."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlops_platform.contracts.features import TrainingSetCreate
from mlops_platform.core.db.database import Database
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import Principal, ProjectId, new_id
from mlops_platform.core.storage.blob_store import StoredBlob
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.features.backends.joins import SetJoin, point_in_time
from mlops_platform.features.backends.labels import (
    check_labels,
    feature_columns,
    keys_of,
    labels_from_rows,
    with_features,
)
from mlops_platform.features.backends.offline import OfflineFiles, private_folder
from mlops_platform.features.backends.uploads import UploadFormat, read_table
from mlops_platform.features.domain.joins import JoinRules
from mlops_platform.features.domain.schema import FeatureSpec, FeatureView
from mlops_platform.features.domain.serving import Resolved, resolve
from mlops_platform.features.domain.times import MIN_US, from_us, to_us
from mlops_platform.features.errors import FeatureSetNotFound
from mlops_platform.features.repository.rows import RowReader, RowRepository
from mlops_platform.features.repository.sets import FeatureSetRepository, to_view
from mlops_platform.features.repository.training import TrainingSetRepository
from mlops_platform.features.service.serving import nameable
from mlops_platform.features.service.stored_rows import Listed, StoredRows, list_rows


@dataclass(frozen=True, slots=True)
class Spec:
    """What a training set is to be made of, beside its labels."""

    features: Sequence[str]
    name: str | None = None
    description: str = ""
    as_known: bool = False
    known_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A training set whose file is written and which is not recorded yet."""

    spec: Spec
    known_until: datetime
    row_count: int
    columns: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    blob: StoredBlob


@dataclass(frozen=True, slots=True)
class _Cut:
    """The features asked for, and what was stored of their sets at one moment."""

    resolved: list[Resolved]
    listed: dict[str, Listed]
    known_until_us: int

    def of_set(self, name: str) -> tuple[FeatureView, list[FeatureSpec]]:
        chosen = [one for one in self.resolved if one.view.name == name]
        specs = chosen[0].view.schema.by_name()
        return chosen[0].view, [specs[one.name] for one in chosen]


class TrainingSets:
    """The use case, over the collaborators of the process."""

    def __init__(self, database: Database, rows: StoredRows, files: OfflineFiles) -> None:
        self._database = database
        self._rows = rows
        self._files = files

    async def from_rows(self, principal: Principal, new: TrainingSetCreate) -> Draft:
        """A draft from JSON rows."""
        spec = Spec(new.features, new.name, new.description, new.as_known, new.known_until)
        labels = await asyncio.to_thread(labels_from_rows, new.rows)
        return await self._draft(principal, spec, labels)

    async def from_file(self, principal: Principal, spec: Spec, path: Path, form: UploadFormat) -> Draft:
        """A draft from a columnar file."""
        labels = await asyncio.to_thread(read_table, path, form)
        return await self._draft(principal, spec, labels)

    async def _draft(self, principal: Principal, spec: Spec, labels: pa.Table) -> Draft:
        moments_us = await asyncio.to_thread(check_labels, labels, len(spec.features))
        cut = await self._cut(principal, spec)
        names = feature_columns(labels, [(one.view.name, one.name) for one in cut.resolved])
        table = await self._join(labels, moments_us, cut, spec, names)
        blob = await self._files.write(principal.project, table)
        until = from_us(cut.known_until_us)
        return Draft(spec, until, table.num_rows, _columns(table, cut, names), _sources(cut), blob)

    async def _cut(self, principal: Principal, spec: Spec) -> _Cut:
        """Hold the sets for a moment: whatever is ingested later has a later time of ingest than the cut."""
        async with self._database.write() as session:
            sets, rows = FeatureSetRepository(session, principal), RowRepository(session, principal)
            resolved = resolve(nameable(principal, await sets.views(), spec.features), spec.features)
            names = list(dict.fromkeys(one.view.name for one in resolved))
            held = {row.name: to_view(row) for row in await sets.lock_all(names)}
            for name in names:
                if name not in held:
                    raise FeatureSetNotFound(name)
            resolved = resolve(held, [f"{one.view.name}:{one.name}" for one in resolved])
            now_us = await rows.clock_us()
            known_until_us = now_us if spec.known_until is None else min(now_us, to_us(spec.known_until))
            listed = {name: await _list_all(rows, held[name]) for name in names}
        return _Cut(resolved, listed, known_until_us)

    async def _join(self, labels: pa.Table, moments_us: Any, cut: _Cut, spec: Spec, names: Sequence[str]) -> pa.Table:
        by_set: dict[str, list[Any]] = {}
        async with self._rows.turn(), private_folder() as folder:
            joins = []
            for name, listed in cut.listed.items():
                view, features = cut.of_set(name)
                rules = JoinRules(cut.known_until_us, view.ttl_microseconds, spec.as_known)
                source = await self._rows.bring(listed, view, folder)
                joins.append(SetJoin(source, features, rules, keys_of(labels, view.entity)))
            joined = await asyncio.to_thread(point_in_time, moments_us, joins, folder)
        for name, columns in zip(cut.listed, joined, strict=True):
            by_set[name] = list(reversed(columns))
        in_order = [by_set[one.view.name].pop() for one in cut.resolved]
        return with_features(labels, names, in_order)

    async def record(self, work: UnitOfWork, draft: Draft) -> Record:
        """Make a draft a training set: row, audit entry, event and lineage together."""
        training_set_id = new_id()
        blob = await self._files.blobs.hold(work.session, draft.blob, f"training-set:{training_set_id}")
        row = await TrainingSetRepository(work.session, work.principal).add(
            {
                "id": training_set_id,
                "name": draft.spec.name,
                "description": draft.spec.description,
                "blob_id": blob.blob_id,
                "digest": blob.sha256,
                "size_bytes": blob.size,
                "is_encrypted": blob.is_encrypted,
                "row_count": draft.row_count,
                "columns": draft.columns,
                "sources": draft.sources,
                "as_known": draft.spec.as_known,
                "known_until": draft.known_until,
                "created_by": work.principal.name,
                "created_at": work.clock.now(),
            }
        )
        resource = work.urn("training-set", training_set_id)
        summary = {"digest": blob.sha256, "row_count": draft.row_count, "sources": draft.sources}
        await work.audit("training_set.created", resource, after=summary)
        await work.emit("training_set.created", resource, summary)
        for source in draft.sources:
            version = work.urn("feature-set", f"{source['feature_set']}/{source['version']}")
            await work.link(resource, "derived_from", version)
        return row


async def _list_all(rows: RowReader, view: FeatureView) -> Listed:
    return await list_rows(rows, view, first_us=MIN_US, last_us=2**63 - 1)


def _columns(table: pa.Table, cut: _Cut, names: Sequence[str]) -> list[dict[str, Any]]:
    origin = {name: f"{one.view.name}:{one.name}" for name, one in zip(names, cut.resolved, strict=True)}
    return [{"name": field.name, "type": str(field.type), "feature": origin.get(field.name)} for field in table.schema]


def _sources(cut: _Cut) -> list[dict[str, Any]]:
    sources = []
    for name in cut.listed:
        view, features = cut.of_set(name)
        sources.append(
            {
                "feature_set": name,
                "version": view.schema.version,
                "entity": view.entity,
                "ttl_seconds": view.ttl_seconds,
                "features": [feature.name for feature in features],
            }
        )
    return sources


def training_blob(row: Record) -> StoredBlob:
    """Where the file of a training set is."""
    return StoredBlob(ProjectId(row.project_id), row.blob_id, row.digest, row.size_bytes, row.is_encrypted)
