"""Models, their versions, their aliases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, cast, delete, distinct, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.contracts.registry import ModelOrder, VersionStatus
from mlops_platform.core.auth.visibility import in_project, names_allowed, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.registry.tables import aliases, model_versions, registered_models

MODELS_READ = Permission("models:read")

_any_version = model_versions.alias("any_version")
_any_alias = aliases.alias("any_alias")


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """What a version must be. A model is listed when one version of it is all of that; the alias is the model's."""

    tags: tuple[str, ...] = ()
    framework: str | None = None
    status: VersionStatus | None = None
    alias: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on a version."""
        conditions: list[ColumnElement[bool]] = []
        if self.tags:
            conditions.append(model_versions.c.tags.contains(list(self.tags)))
        if self.framework is not None:
            conditions.append(model_versions.c.framework == self.framework)
        if self.status is not None:
            conditions.append(model_versions.c.status == self.status)
        return conditions

    def of_versions(self) -> Select[Any] | None:
        """The models with such a version; None when any will do."""
        conditions = self.conditions()
        if not conditions:
            return None
        return select(model_versions.c.model_id).where(model_versions.c.deleted_at.is_(None), *conditions)


class ModelReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def model(self, name: str, *, with_deleted: bool = False) -> Row[Any] | None:
        """One model by name, with its counts."""
        statement = self._models().where(registered_models.c.name == name)
        if not with_deleted:
            statement = statement.where(registered_models.c.deleted_at.is_(None))
        return await self._session.first(statement)

    async def models(self, wanted: ModelFilter, order: ModelOrder, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
        """Models that have a version of what is wanted, by name or newest first (ids are sorted by time)."""
        statement = self._models().where(registered_models.c.deleted_at.is_(None))
        allowed = names_allowed(self._principal, MODELS_READ, registered_models.c.name)
        if allowed is not None:
            statement = statement.where(allowed)
        if (versions := wanted.of_versions()) is not None:
            statement = statement.where(registered_models.c.id.in_(versions))
        if wanted.alias is not None:
            pointing = select(aliases.c.model_id).where(
                in_project(self._principal, aliases), aliases.c.alias == wanted.alias
            )
            statement = statement.where(registered_models.c.id.in_(pointing))
        newest = order is ModelOrder.NEWEST
        key: ColumnElement[str] = registered_models.c.id if newest else registered_models.c.name
        if after is not None:
            statement = statement.where(key < after if newest else key > after)
        return await self._session.all(statement.order_by(key.desc() if newest else key).limit(limit))

    async def version(self, name: str, version: str, *, with_deleted: bool = False) -> Row[Any] | None:
        """One version by the names that people use."""
        statement = self._versions().where(registered_models.c.name == name, model_versions.c.version == version)
        if not with_deleted:
            statement = statement.where(model_versions.c.deleted_at.is_(None), registered_models.c.deleted_at.is_(None))
        return await self._session.first(statement)

    async def versions(self, model_id: str, wanted: ModelFilter, *, before: str | None, limit: int) -> Sequence[Row[Any]]:
        """The versions of a model that are what is wanted, newest first (ids are sorted by time)."""
        statement = self._versions().where(model_versions.c.model_id == model_id, model_versions.c.deleted_at.is_(None))
        statement = statement.where(*wanted.conditions())
        if wanted.alias is not None:
            pointed = select(aliases.c.version_id).where(
                in_project(self._principal, aliases), aliases.c.alias == wanted.alias
            )
            statement = statement.where(model_versions.c.id.in_(pointed))
        if before is not None:
            statement = statement.where(model_versions.c.id < before)
        return await self._session.all(statement.order_by(model_versions.c.id.desc()).limit(limit))

    async def aliased(self, name: str, alias: str) -> Row[Any] | None:
        """The version to which an alias points."""
        statement = (
            self._versions()
            .join(aliases, aliases.c.version_id == model_versions.c.id)
            .where(registered_models.c.name == name, aliases.c.alias == alias)
            .where(registered_models.c.deleted_at.is_(None))
        )
        return await self._session.first(statement)

    async def version_labels(self, model_id: str) -> list[str]:
        """All labels ever taken on a model, deleted ones included."""
        statement = select(model_versions.c.version).where(
            in_project(self._principal, model_versions), model_versions.c.model_id == model_id
        )
        return [row.version for row in await self._session.all(statement)]

    def _models(self) -> Select[Any]:
        of_model = and_(_any_version.c.model_id == registered_models.c.id, _any_version.c.deleted_at.is_(None))
        tag = func.unnest(_any_version.c.tags).table_valued("tag").render_derived()
        pointers = (
            select(func.jsonb_object_agg(aliases.c.alias, _any_version.c.version))
            .join(_any_version, _any_version.c.id == aliases.c.version_id)
            .where(aliases.c.model_id == registered_models.c.id)
        )
        columns = {
            "version_count": select(func.count()).select_from(_any_version).where(of_model),
            "latest_version": select(_any_version.c.version).where(of_model).order_by(_any_version.c.id.desc()).limit(1),
            "tags": select(func.array_agg(distinct(tag.c.tag))).select_from(_any_version.join(tag, true())).where(of_model),
            "aliases": pointers,
        }
        return visible_to(self._principal, registered_models).add_columns(
            *(query.correlate(registered_models).scalar_subquery().label(name) for name, query in columns.items())
        )

    def _versions(self) -> Select[Any]:
        names = (
            select(func.array_agg(aggregate_order_by(_any_alias.c.alias, _any_alias.c.alias)))
            .where(_any_alias.c.version_id == model_versions.c.id)
            .correlate(model_versions)
            .scalar_subquery()
        )
        return (
            visible_to(self._principal, model_versions)
            .join(registered_models, registered_models.c.id == model_versions.c.model_id)
            .add_columns(
                registered_models.c.name.label("name"),
                func.coalesce(names, cast(array([]), ARRAY(Text))).label("aliases"),
            )
        )


class ModelRepository(ModelReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def ensure_model(self, values: Mapping[str, Any]) -> tuple[str, Row[Any] | None]:
        """The id of the model of this name, and its row unless it is made just now. Holds it until the commit."""
        row = {**values, "project_id": self._principal.project}
        insert = upsert(registered_models).values(row).on_conflict_do_nothing(index_elements=["project_id", "name"])
        held = visible_to(self._principal, registered_models).where(registered_models.c.name == values["name"])
        while True:
            if made := await self._session.scalar(insert.returning(registered_models.c.id)):
                return str(made), None
            if found := await self._session.first(held.with_for_update()):
                return str(found.id), found
            # It was purged while we waited for it: the name is free again.

    async def add_version(self, values: Mapping[str, Any]) -> bool:
        """Insert a version; False when the pair is taken."""
        added = await self._session.scalar(
            upsert(model_versions)
            .values({**values, "project_id": self._principal.project})
            .on_conflict_do_nothing(index_elements=["project_id", "model_id", "version"])
            .returning(model_versions.c.id)
        )
        return added is not None

    async def update_model(self, model_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a model."""
        await self._session.execute(
            update(registered_models)
            .where(in_project(self._principal, registered_models), registered_models.c.id == model_id)
            .values(values)
        )

    async def update_version(self, version_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a version."""
        await self._session.execute(
            update(model_versions)
            .where(in_project(self._principal, model_versions), model_versions.c.id == version_id)
            .values(values)
        )

    async def lock_version(self, version_id: str) -> None:
        """Hold a version until the commit, so that checks on it stay true."""
        await self._session.execute(
            select(model_versions.c.id)
            .where(in_project(self._principal, model_versions), model_versions.c.id == version_id)
            .with_for_update()
        )

    async def hold_version(self, name: str, version: str) -> Row[Any] | None:
        """A version by its names, read and held until the commit in one statement. Its aliases are not held."""
        statement = self._versions().where(
            registered_models.c.name == name,
            model_versions.c.version == version,
            model_versions.c.deleted_at.is_(None),
            registered_models.c.deleted_at.is_(None),
        )
        return await self._session.first(statement.with_for_update(of=model_versions))

    async def lock_model(self, model_id: str) -> list[str]:
        """Hold a model and all its versions, deleted ones too, until the commit; the ids of the versions."""
        await self._session.execute(
            select(registered_models.c.id)
            .where(in_project(self._principal, registered_models), registered_models.c.id == model_id)
            .with_for_update()
        )
        locked = await self._session.all(
            select(model_versions.c.id)
            .where(in_project(self._principal, model_versions), model_versions.c.model_id == model_id)
            .order_by(model_versions.c.id)
            .with_for_update()
        )
        return [row.id for row in locked]

    async def count_files(self, version_id: str, *, files: int, size: int, now: datetime) -> None:
        """Add to what a version says of its files."""
        await self._session.execute(
            update(model_versions)
            .where(in_project(self._principal, model_versions), model_versions.c.id == version_id)
            .values(file_count=model_versions.c.file_count + files, size=model_versions.c.size + size, updated_at=now)
        )

    async def purge_version(self, version_id: str) -> None:
        """Remove the row of a version; its label is free again."""
        await self._session.execute(
            delete(model_versions).where(in_project(self._principal, model_versions), model_versions.c.id == version_id)
        )

    async def purge_model(self, model_id: str) -> None:
        """Remove the rows of a model, its versions and its aliases."""
        by_model = {aliases: "model_id", model_versions: "model_id", registered_models: "id"}
        for table, column in by_model.items():
            await self._session.execute(
                delete(table).where(in_project(self._principal, table), table.c[column] == model_id)
            )

    async def set_alias(self, values: Mapping[str, Any]) -> None:
        """Point an alias at a version, wherever it pointed before: one statement, so nobody sees it missing."""
        statement = upsert(aliases).values({**values, "project_id": self._principal.project})
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["model_id", "alias"],
                set_={"version_id": statement.excluded.version_id, "updated_at": statement.excluded.updated_at},
            )
        )

    async def remove_alias(self, model_id: str, alias: str) -> bool:
        """Take an alias away; whether it was there."""
        gone = await self._session.execute(
            delete(aliases).where(
                in_project(self._principal, aliases), aliases.c.model_id == model_id, aliases.c.alias == alias
            )
        )
        return gone.rowcount == 1
