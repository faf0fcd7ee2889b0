"""Models, their versions, their aliases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, bindparam, cast, delete, distinct, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, array
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.contracts.registry import ModelOrder, VersionStatus
from mlops_platform.core.auth.visibility import SOMEONE, Someone, in_project, names_allowed, visible_to
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
        return await self._session.first(_ANY_MODEL if with_deleted else _MODEL, self._named(name))

    async def models(self, wanted: ModelFilter, order: ModelOrder, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
        """Models that have a version of what is wanted, by name or newest first (ids are sorted by time)."""
        statement = _models(self._principal).where(registered_models.c.deleted_at.is_(None))
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
        return await self._session.first(_ANY_VERSION if with_deleted else _VERSION, self._named(name, version=version))

    async def versions(self, model_id: str, wanted: ModelFilter, *, before: str | None, limit: int) -> Sequence[Row[Any]]:
        """The versions of a model that are what is wanted, newest first (ids are sorted by time)."""
        statement = _versions(self._principal).where(
            model_versions.c.model_id == model_id, model_versions.c.deleted_at.is_(None)
        )
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
        return await self._session.first(_ALIASED, self._named(name, alias=alias))

    async def version_labels(self, model_id: str) -> list[str]:
        """All labels ever taken on a model, deleted ones included."""
        statement = select(model_versions.c.version).where(
            in_project(self._principal, model_versions), model_versions.c.model_id == model_id
        )
        return [row.version for row in await self._session.all(statement)]

    def _named(self, name: str, *, version: str | None = None, alias: str | None = None) -> dict[str, Any]:
        return {"project": self._principal.project, "model_name": name, "label": version, "pointer": alias}


def _models(principal: Principal | Someone) -> Select[Any]:
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
    return visible_to(principal, registered_models).add_columns(
        *(query.correlate(registered_models).scalar_subquery().label(name) for name, query in columns.items())
    )


def _versions(principal: Principal | Someone) -> Select[Any]:
    names = (
        select(func.array_agg(aggregate_order_by(_any_alias.c.alias, _any_alias.c.alias)))
        .where(_any_alias.c.version_id == model_versions.c.id)
        .correlate(model_versions)
        .scalar_subquery()
    )
    return (
        visible_to(principal, model_versions)
        .join(registered_models, registered_models.c.id == model_versions.c.model_id)
        .add_columns(
            registered_models.c.name.label("name"),
            func.coalesce(names, cast(array([]), ARRAY(Text))).label("aliases"),
        )
    )


_NAMED = registered_models.c.name == bindparam("model_name")
_LABELLED = model_versions.c.version == bindparam("label")
_LIVE = registered_models.c.deleted_at.is_(None)
_LIVE_VERSION = and_(_LIVE, model_versions.c.deleted_at.is_(None))
_ANY_MODEL = _models(SOMEONE).where(_NAMED)
_MODEL = _ANY_MODEL.where(_LIVE)
_HELD_MODEL = visible_to(SOMEONE, registered_models).where(_NAMED).with_for_update()
_ANY_VERSION = _versions(SOMEONE).where(_NAMED, _LABELLED)
_VERSION = _ANY_VERSION.where(_LIVE_VERSION)
_HELD_VERSION = _VERSION.with_for_update(of=model_versions)
_ALIASED = (
    _versions(SOMEONE)
    .join(aliases, aliases.c.version_id == model_versions.c.id)
    .where(_NAMED, aliases.c.alias == bindparam("pointer"), _LIVE)
)
_ADD_MODEL = (
    upsert(registered_models)
    .on_conflict_do_nothing(index_elements=["project_id", "name"])
    .returning(registered_models.c.id)
)
_ADD_VERSION = (
    upsert(model_versions)
    .on_conflict_do_nothing(index_elements=["project_id", "model_id", "version"])
    .returning(model_versions.c.id)
)
_UPDATE_MODEL = update(registered_models).where(
    in_project(SOMEONE, registered_models), registered_models.c.id == bindparam("model")
)
_UPDATE_VERSION = update(model_versions).where(in_project(SOMEONE, model_versions), model_versions.c.id == bindparam("of"))
_POINT = upsert(aliases)
_SET_ALIAS = _POINT.on_conflict_do_update(
    index_elements=["model_id", "alias"],
    set_={"version_id": _POINT.excluded.version_id, "updated_at": _POINT.excluded.updated_at},
)


class ModelRepository(ModelReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def ensure_model(self, values: Mapping[str, Any]) -> tuple[str, Row[Any] | None]:
        """The id of the model of this name, and its row unless it is made just now. Holds it until the commit."""
        row = {**values, "project_id": self._principal.project}
        while True:
            if made := await self._session.scalar(_ADD_MODEL, row):
                return str(made), None
            if found := await self._session.first(_HELD_MODEL, self._named(values["name"])):
                return str(found.id), found
            # It was purged while we waited for it: the name is free again.

    async def add_version(self, values: Mapping[str, Any]) -> bool:
        """Insert a version; False when the pair is taken."""
        return await self._session.scalar(_ADD_VERSION, {**values, "project_id": self._principal.project}) is not None

    async def update_model(self, model_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a model."""
        await self._session.execute(_UPDATE_MODEL, {**values, "project": self._principal.project, "model": model_id})

    async def update_version(self, version_id: str, values: Mapping[str, Any]) -> None:
        """Change columns of a version."""
        await self._session.execute(_UPDATE_VERSION, {**values, "project": self._principal.project, "of": version_id})

    async def lock_version(self, version_id: str) -> None:
        """Hold a version until the commit, so that checks on it stay true."""
        await self._session.execute(
            select(model_versions.c.id)
            .where(in_project(self._principal, model_versions), model_versions.c.id == version_id)
            .with_for_update()
        )

    async def hold_version(self, name: str, version: str) -> Row[Any] | None:
        """A version by its names, read and held until the commit in one statement. Its aliases are not held."""
        return await self._session.first(_HELD_VERSION, self._named(name, version=version))

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
        await self._session.execute(_SET_ALIAS, {**values, "project_id": self._principal.project})

    async def remove_alias(self, model_id: str, alias: str) -> bool:
        """Take an alias away; whether it was there."""
        gone = await self._session.execute(
            delete(aliases).where(
                in_project(self._principal, aliases), aliases.c.model_id == model_id, aliases.c.alias == alias
            )
        )
        return gone.rowcount == 1
