"""What changes in feature sets: decide, write, audit, emit, in one transaction."""

from typing import Any

from mlops_platform.contracts.features import FeatureCreate, FeatureSetCreate, FeatureSetUpdate
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.features.domain.schema import evolve, first_schema, schema_to_json
from mlops_platform.features.errors import FeatureSetNameTaken, FeatureSetNotFound
from mlops_platform.features.repository.rows import RowRepository
from mlops_platform.features.repository.sets import FeatureSetRepository, to_view
from mlops_platform.features.service.definitions import Definitions

NOUN = "feature-set"


class FeatureSets:
    """The use cases that write."""

    def __init__(self, work: UnitOfWork, definitions: Definitions) -> None:
        self._work = work
        self._definitions = definitions
        self._sets = FeatureSetRepository(work.session, work.principal)

    async def create(self, new: FeatureSetCreate) -> Record:
        """Version 1 of a new feature set."""
        now = self._work.clock.now()
        schema = first_schema(new.features)
        row = await self._sets.add(
            {
                "id": new_id(),
                "name": new.name,
                "description": new.description,
                "entity": new.entity,
                "ttl_seconds": new.ttl_seconds,
                "is_online": new.online,
                "tags": _unique(new.tags),
                "owner": new.owner,
                "version": schema.version,
                "features": schema_to_json(schema),
                "next_slot": schema.next_slot,
                "created_by": self._work.principal.name,
                "created_at": now,
                "updated_at": now,
            }
        )
        if row is None:
            raise FeatureSetNameTaken(new.name)
        await self._add_version(row)
        await self._record("feature_set.created", new.name, after=_state(row))
        return row

    async def update(self, name: str, change: FeatureSetUpdate) -> Record:
        """Change a feature set; a change of its features makes a new version."""
        row = await self._sets.lock(name)
        if row is None:
            raise FeatureSetNotFound(name)
        values = _changes(change)
        if change.features is not None:
            _check_entity(row.entity, change.features)
            schema = evolve(to_view(row).schema, change.features, consent=change.new_version)
            values |= {
                "features": schema_to_json(schema),
                "version": schema.version,
                "next_slot": schema.next_slot,
            }
        changed = await self._sets.change(row.id, {**values, "updated_at": self._work.clock.now()})
        if changed.version != row.version:
            await self._add_version(changed)
        if changed.is_online and not row.is_online:
            await self._bring_online(row.id)
        await self._record("feature_set.updated", name, before=_state(row), after=_state(changed))
        return changed

    async def delete(self, name: str) -> None:
        """Hide a feature set and stop serving it; its rows stay, and it can be restored."""
        row = await self._sets.lock(name)
        if row is None:
            raise FeatureSetNotFound(name)
        await self._sets.change(row.id, {"deleted_at": self._work.clock.now()})
        await self._record("feature_set.deleted", name, before=_state(row))

    async def restore(self, name: str) -> Record:
        """Bring a deleted feature set back; a no-op for one that is there."""
        row = await self._sets.lock(name, with_deleted=True)
        if row is None:
            raise FeatureSetNotFound(name)
        if row.deleted_at is None:
            return row
        restored = await self._sets.change(row.id, {"deleted_at": None})
        await self._record("feature_set.restored", name, after=_state(restored))
        return restored

    async def _bring_online(self, feature_set_id: str) -> None:
        """Leave to the repair, as overdue, what was ingested while nothing was written online."""
        rows = RowRepository(self._work.session, self._work.principal)
        await rows.add_pending({"batch_id": new_id(), "feature_set_id": feature_set_id, "created_us": 0})

    async def _add_version(self, row: Record) -> None:
        await self._sets.add_version(row, created_by=self._work.principal.name)
        version = self._work.urn(NOUN, f"{row.name}/{row.version}")
        await self._work.link(version, "version_of", self._work.urn(NOUN, row.name))

    async def _record(self, action: str, name: str, *, before: Any = None, after: Any = None) -> None:
        resource = self._work.urn(NOUN, name)
        await self._work.audit(action, resource, before=before, after=after)
        await self._work.emit(action, resource, {"before": before, "after": after})
        self._work.session.after_commit(self._definitions.forget)


def _changes(change: FeatureSetUpdate) -> dict[str, Any]:
    """The columns to change. Null means "leave it", except where a null can be the new value."""
    given = change.model_dump(include=change.model_fields_set - {"features", "new_version"})
    values = {key: value for key, value in given.items() if value is not None or key in {"ttl_seconds", "owner"}}
    if "online" in values:
        values["is_online"] = values.pop("online")
    if "tags" in values:
        values["tags"] = _unique(values["tags"])
    return values


def _check_entity(entity: str, features: list[FeatureCreate]) -> None:
    if any(feature.name == entity for feature in features):
        raise InvalidInput.of("features", "must not hold the entity column", entity)


def _unique(tags: list[str]) -> list[str]:
    return sorted(set(tags))


def _state(row: Record) -> dict[str, Any]:
    fields = ("name", "description", "entity", "version", "features", "ttl_seconds", "is_online", "tags", "owner")
    return {field: getattr(row, field) for field in fields}
