"""Statements on logged models: what a run made, with its own parameters, tags, and the metrics that speak of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, cast, exists, func, insert, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.core.query.tree import Expression, Field, Order
from mlops_platform.tracking.repository.experiments import readable
from mlops_platform.tracking.repository.listing import Listing
from mlops_platform.tracking.tables import experiments, logged_model_metrics, logged_models

NEWEST = Order(Field("created_at"), descending=True)
BY_ID = Order(Field("model_id"))


def _hex(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.replace(cast(column, Text), "-", "")


_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "name": logged_models.c.name,
    "model_id": func.concat("m-", _hex(logged_models.c.id)),
    "model_type": logged_models.c.model_type,
    "status": logged_models.c.status,
    "source_run_id": _hex(logged_models.c.source_run_id),
    "created_at": logged_models.c.created_at,
    "updated_at": logged_models.c.updated_at,
}


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """The metrics on one dataset; any digest when none is given."""

    name: str
    digest: str | None = None


class LoggedModelReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def model(self, model_id: str) -> Record | None:
        """One model, deleted or not, with its experiment's name and number."""
        return await self._session.first(self._named().where(logged_models.c.id == model_id))

    async def models(self, model_ids: Collection[str]) -> dict[str, Record]:
        """Those of these that there are, by id."""
        if not model_ids:
            return {}
        rows = await self._session.all(self._named().where(logged_models.c.id.in_(model_ids)))
        return {row.id: row for row in rows}

    async def metrics(self, model_ids: Collection[str]) -> Sequence[Record]:
        """The metrics that speak of these models, in the order of their time."""
        statement = visible_to(self._principal, logged_model_metrics).where(logged_model_metrics.c.model_id.in_(model_ids))
        metric = logged_model_metrics.c
        order = (metric.model_id, metric.timestamp, metric.step, metric.key, metric.run_id, metric.value)
        return await self._session.all(statement.order_by(*order)) if model_ids else ()

    async def search(
        self,
        experiment_ids: Sequence[str],
        tree: Expression | None,
        order: Sequence[tuple[Order, DatasetFilter | None]],
        *,
        datasets: Sequence[DatasetFilter],
        limit: int,
        after: Sequence[Any] | None = None,
    ) -> Sequence[Record]:
        """Live models of experiments."""
        by_key = {each.field.name: dataset for each, dataset in order}
        listing = Listing(
            _COLUMNS,
            tags=logged_models.c.tags,
            params=logged_models.c.params,
            on_metric=lambda key, matches: self._has_metric(key, matches, datasets),
            metric=lambda key: self._latest(key, by_key.get(key)),
        )
        statement = self._named().where(
            logged_models.c.experiment_id.in_(experiment_ids), logged_models.c.deleted_at.is_(None), listing.condition(tree)
        )
        if datasets:
            statement = statement.where(self._has_metric(None, lambda _: true(), datasets))
        given = [each for each, _ in order]
        fields = {each.field.name for each in given if each.field.collection is None}
        given += [each for each in (NEWEST, BY_ID) if each.field.name not in fields]
        return await self._session.all(listing.page(statement, given, limit=limit, after=after))

    def _has_metric(
        self,
        key: str | None,
        matches: Callable[[ColumnElement[Any]], ColumnElement[bool]],
        datasets: Sequence[DatasetFilter],
    ) -> ColumnElement[bool]:
        metric = logged_model_metrics.alias()
        mine = metric.c.project_id == self._principal.project
        found = and_(mine, metric.c.model_id == logged_models.c.id, matches(metric.c.value))
        if key is not None:
            found = and_(found, metric.c.key == key)
        if datasets:
            found = and_(found, or_(*(_on_dataset(metric, each) for each in datasets)))
        return exists().where(found)

    def _latest(self, key: str, dataset: DatasetFilter | None) -> ColumnElement[Any]:
        metric = logged_model_metrics.alias()
        statement = select(metric.c.value).where(
            metric.c.project_id == self._principal.project, metric.c.model_id == logged_models.c.id, metric.c.key == key
        )
        if dataset is not None:
            statement = statement.where(_on_dataset(metric, dataset))
        newest = (metric.c.timestamp.desc(), metric.c.step.desc(), metric.c.run_id)
        return statement.order_by(*newest).limit(1).correlate(logged_models).scalar_subquery()

    def _named(self) -> Select[Any]:
        return (
            visible_to(self._principal, logged_models)
            .join(experiments, experiments.c.id == logged_models.c.experiment_id)
            .add_columns(
                experiments.c.name.label("experiment_name"),
                experiments.c.number.label("experiment_number"),
                experiments.c.artifact_location.label("artifact_location"),
            )
            .where(readable(self._principal))
        )


class LoggedModelRepository(LoggedModelReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> None:
        """Insert a model."""
        await self._session.execute(insert(logged_models).values({**values, "project_id": self._principal.project}))

    async def hold(self, model_id: str) -> Record | None:
        """The row, held until the commit."""
        statement = self._named().where(logged_models.c.id == model_id).with_for_update(of=logged_models)
        return await self._session.first(statement)

    async def change(self, model_id: str, values: Mapping[str, Any]) -> None:
        """Change columns."""
        mine = in_project(self._principal, logged_models)
        await self._session.execute(update(logged_models).where(mine, logged_models.c.id == model_id).values(values))

    async def add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add points; the same point again changes nothing."""
        given = [{**row, "project_id": self._principal.project} for row in rows]
        await self._session.execute(upsert(logged_model_metrics).values(given).on_conflict_do_nothing())


def _on_dataset(metric: Any, dataset: DatasetFilter) -> ColumnElement[bool]:
    named: ColumnElement[bool] = metric.c.dataset_name == dataset.name
    return named if dataset.digest is None else and_(named, metric.c.dataset_digest == dataset.digest)
