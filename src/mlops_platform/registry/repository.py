"""Every SQL statement of the Model Registry."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, Text, and_, cast, delete, distinct, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, names_allowed, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.registry.tables import aliases, lineage_edges, model_versions, registered_models

MODELS_READ = Permission("models:read")

_any_version = model_versions.alias("any_version")
_any_alias = aliases.alias("any_alias")


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

    async def models(self, *, tags: Sequence[str], after: str | None, limit: int) -> Sequence[Row[Any]]:
        """Models by name; with `tags`, those with one version that carries them all."""
        statement = self._models().where(registered_models.c.deleted_at.is_(None))
        allowed = names_allowed(self._principal, MODELS_READ, registered_models.c.name)
        if allowed is not None:
            statement = statement.where(allowed)
        if tags:
            tagged = _live_versions().where(model_versions.c.tags.contains(list(tags)))
            statement = statement.where(registered_models.c.id.in_(tagged.with_only_columns(model_versions.c.model_id)))
        if after is not None:
            statement = statement.where(registered_models.c.name > after)
        return await self._session.all(statement.order_by(registered_models.c.name).limit(limit))

    async def version(self, name: str, version: str, *, with_deleted: bool = False) -> Row[Any] | None:
        """One version by the names that people use."""
        statement = self._versions().where(registered_models.c.name == name, model_versions.c.version == version)
        if not with_deleted:
            statement = statement.where(model_versions.c.deleted_at.is_(None), registered_models.c.deleted_at.is_(None))
        return await self._session.first(statement)

    async def versions(self, model_id: str, *, before: str | None, limit: int) -> Sequence[Row[Any]]:
        """The versions of a model, newest first (ids are sorted by time)."""
        statement = self._versions().where(model_versions.c.model_id == model_id, model_versions.c.deleted_at.is_(None))
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

    async def ensure_model(self, values: Mapping[str, Any]) -> tuple[str, bool]:
        """The id of the model of this name, made when absent (and whether it was). Holds it until the commit."""
        row = {**values, "project_id": self._principal.project}
        made = await self._session.scalar(
            upsert(registered_models)
            .values(row)
            .on_conflict_do_nothing(index_elements=["project_id", "name"])
            .returning(registered_models.c.id)
        )
        if made:
            return str(made), True
        statement = visible_to(self._principal, registered_models).where(registered_models.c.name == values["name"])
        found = await self._session.first(statement.with_for_update())
        return str(found.id) if found else "", False

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


def _live_versions() -> Select[Any]:
    return select(model_versions).where(model_versions.c.deleted_at.is_(None))


class LineageRepository:
    """The graph of the whole platform, one edge a row."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def add(self, subject: str, relation: str, target: str, stated_at: datetime) -> None:
        """Remember an edge; once is enough."""
        await self._session.execute(
            upsert(lineage_edges)
            .values(
                project_id=self._principal.project,
                subject=subject,
                relation=relation,
                object=target,
                stated_at=stated_at,
            )
            .on_conflict_do_nothing()
        )
