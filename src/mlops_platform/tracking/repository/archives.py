"""Statements that give an experiment out whole, as it is kept: in pages that are bounded by bytes as well as by rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Select, Text, cast, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.repository.artifacts import RUNS, Shelf
from mlops_platform.tracking.repository.experiments import readable
from mlops_platform.tracking.repository.keyset import beyond
from mlops_platform.tracking.tables import (
    datasets,
    experiments,
    imports,
    logged_model_artifacts,
    logged_model_metrics,
    logged_models,
    metric_goals,
    metric_keys,
    metric_points,
    run_artifacts,
    run_comments,
    run_inputs,
    run_metrics,
    run_models,
    run_params,
    run_tags,
    runs,
    saved_views,
)

PAGE_BYTES = 4_000_000
Place = tuple[Any, ...]


class ArchiveReader:
    """Reads within one project; the caller has seen that the experiment may be read."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def goals(self, experiment_id: str) -> Sequence[Record]:
        """What the experiment declares of its metrics."""
        mine = visible_to(self._principal, metric_goals).where(metric_goals.c.experiment_id == experiment_id)
        return await self._session.all(mine.order_by(metric_goals.c.key))

    async def views(self, experiment_id: str) -> Sequence[Record]:
        """Its saved views."""
        mine = visible_to(self._principal, saved_views).where(saved_views.c.experiment_id == experiment_id)
        return await self._session.all(mine.order_by(saved_views.c.id))

    async def run_ids(self, experiment_id: str, *, after: str | None, limit: int) -> tuple[list[str], bool]:
        """The next runs, deleted ones too: as many as fit on a page, and whether there are more."""
        its = visible_to(self._principal, runs).where(runs.c.experiment_id == experiment_id)
        if after is not None:
            its = its.where(runs.c.id > after)
        columns = runs.c.id, func.coalesce(func.length(runs.c.notes), 0).label("size")
        rows = await self._session.all(its.with_only_columns(*columns).order_by(runs.c.id).limit(limit + 1))
        sizes = {row.id: row.size for row in rows}
        for table, size in (
            (run_params, func.length(run_params.c.text)),
            (run_tags, func.length(run_tags.c.value)),
            (run_comments, func.length(run_comments.c.text)),
            (run_inputs, func.length(cast(run_inputs.c.tags, Text)) + func.coalesce(func.length(run_inputs.c.context), 0)),
        ):
            theirs = visible_to(self._principal, table).where(table.c.run_id.in_(list(sizes)))
            summed = theirs.with_only_columns(table.c.run_id, cast(func.sum(size + 100), BigInteger).label("size"))
            for row in await self._session.all(summed.group_by(table.c.run_id)):
                sizes[row.run_id] += row.size
        for row in await self._session.all(self._of_datasets(list(sizes))):
            sizes[row.run_id] += row.size
        return _fitting(sizes, limit)

    def _of_datasets(self, run_ids: Sequence[str]) -> Select[Any]:
        """How long the datasets of these runs are, each with the first run that names it: a page has it once."""
        texts = (datasets.c.source, datasets.c.schema, datasets.c.profile)
        size = sum((func.coalesce(func.length(text), 0) for text in texts), literal(100))
        first = (
            select(run_inputs.c.run_id, size.label("size"))
            .ext(distinct_on(run_inputs.c.dataset_id))
            .join(datasets, datasets.c.id == run_inputs.c.dataset_id)
            .where(in_project(self._principal, run_inputs, datasets), run_inputs.c.run_id.in_(run_ids))
            .order_by(run_inputs.c.dataset_id, run_inputs.c.run_id)
            .subquery("first")
        )
        summed = select(first.c.run_id, cast(func.sum(first.c.size), BigInteger).label("size"))
        return summed.group_by(first.c.run_id)

    async def run_rows(self, run_ids: Sequence[str]) -> Sequence[Record]:
        """These runs, with how many points and files they have."""
        points = select(cast(func.coalesce(func.sum(run_metrics.c.count), 0), BigInteger)).where(
            in_project(self._principal, run_metrics), run_metrics.c.run_id == runs.c.id
        )
        files = select(func.count()).where(in_project(self._principal, run_artifacts), run_artifacts.c.run_id == runs.c.id)
        counted = visible_to(self._principal, runs).add_columns(
            points.scalar_subquery().label("points"), files.scalar_subquery().label("artifacts")
        )
        return await self._session.all(counted.where(runs.c.id.in_(run_ids)).order_by(runs.c.id))

    async def hanging(self, run_ids: Sequence[str]) -> dict[str, Mapping[str, Sequence[Record]]]:
        """What hangs on these runs, by table and run."""
        inputs = (
            select(*run_inputs.c, datasets.c.name, datasets.c.digest)
            .join(datasets, datasets.c.id == run_inputs.c.dataset_id)
            .where(in_project(self._principal, run_inputs, datasets))
            .order_by(datasets.c.name, datasets.c.digest)
        )
        wanted = {
            "params": (run_params, visible_to(self._principal, run_params).order_by(run_params.c.key)),
            "tags": (run_tags, visible_to(self._principal, run_tags).order_by(run_tags.c.key)),
            "comments": (run_comments, visible_to(self._principal, run_comments).order_by(run_comments.c.id)),
            "inputs": (run_inputs, inputs),
            "models": (
                run_models,
                visible_to(self._principal, run_models).order_by(run_models.c.model_id, run_models.c.direction),
            ),
        }
        found: dict[str, Mapping[str, Sequence[Record]]] = {}
        for name, (table, statement) in wanted.items():
            by_run: dict[str, list[Record]] = {}
            for row in await self._session.all(statement.where(table.c.run_id.in_(run_ids))):
                by_run.setdefault(row.run_id, []).append(row)
            found[name] = by_run
        return found

    async def datasets(self, named: Sequence[tuple[str, str]]) -> Sequence[Record]:
        """These datasets."""
        mine = visible_to(self._principal, datasets).where(tuple_(datasets.c.name, datasets.c.digest).in_(named))
        return await self._session.all(mine.order_by(datasets.c.name, datasets.c.digest)) if named else ()

    async def models(self, experiment_id: str, *, after: str | None, limit: int) -> Sequence[Record]:
        """The next logged models, deleted ones too, with how many files they have."""
        files = select(func.count()).where(
            in_project(self._principal, logged_model_artifacts), logged_model_artifacts.c.model_id == logged_models.c.id
        )
        mine = visible_to(self._principal, logged_models).add_columns(files.scalar_subquery().label("artifacts"))
        mine = mine.where(logged_models.c.experiment_id == experiment_id)
        if after is not None:
            mine = mine.where(logged_models.c.id > after)
        return await self._session.all(mine.order_by(logged_models.c.id).limit(limit))

    async def model_rows(self, model_ids: Sequence[str]) -> Sequence[Record]:
        """Those of these logged models that may be read by their experiment's name, with how many files they have."""
        files = select(func.count()).where(
            in_project(self._principal, logged_model_artifacts), logged_model_artifacts.c.model_id == logged_models.c.id
        )
        mine = visible_to(self._principal, logged_models).add_columns(files.scalar_subquery().label("artifacts"))
        mine = mine.join(experiments, experiments.c.id == logged_models.c.experiment_id).where(readable(self._principal))
        return await self._session.all(mine.where(logged_models.c.id.in_(model_ids)))

    async def model_metrics(self, model_id: str, *, limit: int) -> Sequence[Record]:
        """The points that speak of a model."""
        metric = logged_model_metrics.c
        mine = visible_to(self._principal, logged_model_metrics).where(metric.model_id == model_id)
        order = (metric.run_id, metric.key, metric.step, metric.timestamp, metric.value)
        return await self._session.all(mine.order_by(*order).limit(limit))

    async def artifacts(self, shelf: Shelf, owners: Sequence[str], *, after: Place | None, limit: int) -> Sequence[Record]:
        """The files of these runs or logged models, by owner and path."""
        owner, path = shelf.table.c[shelf.owner], shelf.table.c.path
        mine = visible_to(self._principal, shelf.table).add_columns(owner.label("owner_id")).where(owner.in_(owners))
        if after is not None:
            mine = mine.where(beyond((owner, path), after))
        return await self._session.all(mine.order_by(owner, path).limit(limit)) if owners else ()

    async def those_within(self, shelf: Shelf, experiment_id: str, ids: Sequence[str]) -> list[str]:
        """Those of these runs or logged models that belong to the experiment."""
        table = runs if shelf is RUNS else logged_models
        mine = visible_to(self._principal, table).with_only_columns(table.c.id)
        rows = await self._session.all(mine.where(table.c.id.in_(ids), table.c.experiment_id == experiment_id))
        return [row.id for row in rows]

    async def point_counts(self, experiment_id: str, run_ids: Sequence[str]) -> dict[str, int]:
        """How many points those of these runs have that belong to the experiment."""
        counted = (
            select(run_metrics.c.run_id, cast(func.sum(run_metrics.c.count), BigInteger).label("points"))
            .join(runs, runs.c.id == run_metrics.c.run_id)
            .where(in_project(self._principal, run_metrics, runs), runs.c.experiment_id == experiment_id)
            .where(run_metrics.c.run_id.in_(run_ids))
            .group_by(run_metrics.c.run_id)
        )
        return {row.run_id: row.points for row in await self._session.all(counted)}

    async def points(self, run_ids: Sequence[str], *, after: Place | None, limit: int) -> Sequence[Record]:
        """Points in the order of their index. `after` is a place within the one run that is then asked for."""
        point = metric_points.c
        place = (point.run_id, point.key_id, point.step, point.timestamp, point.value)
        statement = (
            visible_to(self._principal, metric_points)
            .with_only_columns(*place, point.arrived)
            .where(point.run_id.in_(run_ids))
        )
        if after is not None:
            statement = statement.where(beyond(place[1:], after))
        return await self._session.all(statement.order_by(*place).limit(limit))

    async def keys(self, ids: Sequence[int]) -> dict[int, Record]:
        """Metric keys by number."""
        mine = visible_to(self._principal, metric_keys).where(metric_keys.c.id.in_(ids))
        return {row.id: row for row in await self._session.all(mine)}

    async def known_runs(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these that are runs of the project."""
        mine = visible_to(self._principal, runs).with_only_columns(runs.c.id).where(runs.c.id.in_(run_ids))
        return {row.id for row in await self._session.all(mine)} if run_ids else set()

    async def imported(self, kind: str, ids: Sequence[str]) -> dict[str, Record]:
        """What is known of the imports of these."""
        mine = visible_to(self._principal, imports).where(imports.c.kind == kind, imports.c.target_id.in_(ids))
        return {row.target_id: row for row in await self._session.all(mine)} if ids else {}

    async def imported_experiment(self, source_id: str, name: str) -> Record | None:
        """The experiment of this name that an import of this source has made."""
        statement = (
            visible_to(self._principal, experiments)
            .join(imports, imports.c.target_id == experiments.c.id)
            .where(in_project(self._principal, imports), imports.c.kind == "experiment")
            .where(imports.c.source_id == source_id, experiments.c.name == name, experiments.c.purged_at.is_(None))
        )
        return await self._session.first(statement.order_by(experiments.c.id))

    async def anywhere(self, experiment_id: str) -> Record | None:
        """The experiment of the project with this id, one that is being removed too."""
        return await self._session.first(visible_to(self._principal, experiments).where(experiments.c.id == experiment_id))


def _fitting(sizes: Mapping[str, int], limit: int) -> tuple[list[str], bool]:
    found: list[str] = []
    total = 0
    for run_id, size in sizes.items():
        total += size
        if len(found) == limit or (found and total > PAGE_BYTES):
            return found, True
        found.append(run_id)
    return found, False
