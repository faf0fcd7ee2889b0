"""Feature sets and their versions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, names_allowed, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.features.domain.schema import FeatureView, schema_from_json
from mlops_platform.features.tables import feature_set_versions, feature_sets

FEATURES_READ = Permission("features:read")


class FeatureSetReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def feature_set(self, name: str, *, with_deleted: bool = False) -> Row[Any] | None:
        """One feature set by name."""
        statement = visible_to(self._principal, feature_sets).where(feature_sets.c.name == name)
        if not with_deleted:
            statement = statement.where(feature_sets.c.deleted_at.is_(None))
        return await self._session.first(statement)

    async def feature_sets(
        self, *, tags: Sequence[str], owner: str | None, is_deleted: bool, after: str | None, limit: int
    ) -> Sequence[Row[Any]]:
        """Feature sets by name; with `tags`, those that carry them all."""
        deleted = feature_sets.c.deleted_at
        statement = visible_to(self._principal, feature_sets).where(
            deleted.is_not(None) if is_deleted else deleted.is_(None)
        )
        allowed = names_allowed(self._principal, FEATURES_READ, feature_sets.c.name)
        if allowed is not None:
            statement = statement.where(allowed)
        if tags:
            statement = statement.where(feature_sets.c.tags.contains(list(tags)))
        if owner is not None:
            statement = statement.where(feature_sets.c.owner == owner)
        if after is not None:
            statement = statement.where(feature_sets.c.name > after)
        return await self._session.all(statement.order_by(feature_sets.c.name).limit(limit))

    async def versions(self, feature_set_id: str, *, before: int | None, limit: int) -> Sequence[Row[Any]]:
        """The versions of a feature set, newest first."""
        statement = visible_to(self._principal, feature_set_versions).where(
            feature_set_versions.c.feature_set_id == feature_set_id
        )
        if before is not None:
            statement = statement.where(feature_set_versions.c.version < before)
        return await self._session.all(statement.order_by(feature_set_versions.c.version.desc()).limit(limit))

    async def views(self) -> dict[str, FeatureView]:
        """Every live feature set of the project, by name."""
        rows = await self._session.all(visible_to(self._principal, feature_sets).where(feature_sets.c.deleted_at.is_(None)))
        return {row.name: to_view(row) for row in rows}

    async def view_by_id(self, feature_set_id: str) -> FeatureView | None:
        """One feature set by its id, a deleted one included: its rows are still there."""
        row = await self._session.first(
            visible_to(self._principal, feature_sets).where(feature_sets.c.id == feature_set_id)
        )
        return None if row is None else to_view(row)


class FeatureSetRepository(FeatureSetReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> Row[Any] | None:
        """Insert a feature set; None when the name is taken."""
        return await self._session.first(
            upsert(feature_sets)
            .values({**values, "project_id": self._principal.project})
            .on_conflict_do_nothing(index_elements=["project_id", "name"])
            .returning(feature_sets)
        )

    async def add_version(self, row: Row[Any], *, created_by: str) -> None:
        """Keep the features of a set as they are now."""
        await self._session.execute(
            insert(feature_set_versions).values(
                feature_set_id=row.id,
                version=row.version,
                project_id=self._principal.project,
                features=row.features,
                next_slot=row.next_slot,
                created_by=created_by,
                created_at=row.updated_at,
            )
        )

    async def change(self, feature_set_id: str, values: Mapping[str, Any]) -> Row[Any]:
        """Change columns of a feature set."""
        changed = await self._session.execute(
            update(feature_sets)
            .where(in_project(self._principal, feature_sets), feature_sets.c.id == feature_set_id)
            .values(values)
            .returning(feature_sets)
        )
        return changed.one()

    async def lock(self, name: str, *, with_deleted: bool = False) -> Row[Any] | None:
        """One feature set, alone until the commit: no ingest is under way, and none begins."""
        statement = visible_to(self._principal, feature_sets).where(feature_sets.c.name == name)
        if not with_deleted:
            statement = statement.where(feature_sets.c.deleted_at.is_(None))
        return await self._session.first(statement.with_for_update())

    async def lock_all(self, names: Sequence[str]) -> Sequence[Row[Any]]:
        """Several at once, in one order, so that two of these never wait for each other."""
        return await self._session.all(
            visible_to(self._principal, feature_sets)
            .where(feature_sets.c.name.in_(sorted(names)), feature_sets.c.deleted_at.is_(None))
            .order_by(feature_sets.c.id)
            .with_for_update()
        )

    async def hold(self, name: str) -> Row[Any] | None:
        """One feature set that stays as it is until the commit; other ingests go on beside this one."""
        return await self._session.first(
            visible_to(self._principal, feature_sets)
            .where(feature_sets.c.name == name, feature_sets.c.deleted_at.is_(None))
            .with_for_update(read=True, key_share=True)
        )


def to_view(row: Row[Any]) -> FeatureView:
    """A table row as the domain knows it."""
    return FeatureView(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        entity=row.entity,
        ttl_seconds=row.ttl_seconds,
        is_online=row.is_online,
        schema=schema_from_json(row.version, row.features, row.next_slot),
    )
