"""Statements on runs, their parameters and their tags."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import SOMEONE, Someone, in_project, seen_by, visible_to
from mlops_platform.core.db.session import ReadSession, Record, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.keys import key_parts, spell_key
from mlops_platform.tracking.domain.params import Param, ParamKind
from mlops_platform.tracking.domain.search import Selection
from mlops_platform.tracking.repository import metrics
from mlops_platform.tracking.repository.experiments import EXPERIMENTS_READ, readable
from mlops_platform.tracking.tables import experiments, metric_keys, run_metrics, run_params, run_tags, runs


@dataclass(slots=True)
class RunData:
    """What hangs on a run: parameters, tags, and the last value of each metric."""

    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class RunRows:
    """The same as rows, by run: with the texts of parameters, and the steps and times of metrics."""

    params: dict[str, list[Record]] = field(default_factory=dict)
    tags: dict[str, list[Record]] = field(default_factory=dict)
    metrics: dict[str, list[Record]] = field(default_factory=dict)


class RunReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def run(self, run_id: str, *, experiment_id: str | None = None) -> Record | None:
        """One run, deleted or not, with its experiment's name and whether that is deleted."""
        return await self._first(_RUN, run_id, experiment_id)

    async def whole(self, run_id: str, *, experiment_id: str | None = None) -> Record | None:
        """The same with what hangs on it, for `data_of`."""
        return await self._first(_WHOLE, run_id, experiment_id)

    async def runs(self, run_ids: Sequence[str]) -> list[Record]:
        """The rows of these runs, in this order."""
        found = await self._session.all(visible_to(self._principal, runs).where(runs.c.id.in_(run_ids)))
        by_id = {row.id: row for row in found}
        return [by_id[run_id] for run_id in run_ids if run_id in by_id]

    async def readable_runs(self, run_ids: Sequence[str]) -> list[Record]:
        """Those of them that the principal may read by their experiment's name, in this order."""
        found = await self._session.all(_with_experiment(self._principal).where(runs.c.id.in_(run_ids)))
        by_id = {row.id: row for row in found}
        return [by_id[run_id] for run_id in run_ids if run_id in by_id]

    async def data(self, run_ids: Collection[str], selection: Selection | None = None) -> dict[str, RunData]:
        """What hangs on these runs, as far as it is wanted."""
        selection = selection or Selection()
        found = {run_id: RunData() for run_id in run_ids}
        for row in await self._those(run_params, run_ids, selection.params):
            found[row.run_id].params[row.key] = to_param(row).value
        for row in await self._those(run_tags, run_ids, selection.tags):
            found[row.run_id].tags[row.key] = row.value
        for row in await self._last_metrics(run_ids, selection.metrics):
            found[row.run_id].metrics[spell_key(row.key, row.context)] = row.last_value
        return found

    async def children(self, run_id: str, *, after: str | None, limit: int) -> Sequence[Record]:
        """The live runs below this one, in the order of their making, in whatever experiments they are."""
        mine = visible_to(self._principal, runs).join(experiments, experiments.c.id == runs.c.experiment_id)
        statement = mine.where(runs.c.parent_run_id == run_id, runs.c.deleted_at.is_(None), readable(self._principal))
        if after is not None:
            statement = statement.where(runs.c.id > after)
        return await self._session.all(statement.order_by(runs.c.id).limit(limit))

    async def rows(self, run_ids: Collection[str]) -> RunRows:
        """What hangs on these runs, as it is kept."""
        found = RunRows()
        if not run_ids:
            return found
        for row in await self._those(run_params, run_ids, None):
            found.params.setdefault(row.run_id, []).append(row)
        for row in await self._those(run_tags, run_ids, None):
            found.tags.setdefault(row.run_id, []).append(row)
        for row in await self._last_metrics(run_ids, None):
            found.metrics.setdefault(row.run_id, []).append(row)
        return found

    async def params(self, run_id: str, keys: Collection[str]) -> dict[str, Param]:
        """Those parameters that the run has."""
        rows = await self._session.all(
            visible_to(self._principal, run_params).where(run_params.c.run_id == run_id, run_params.c.key.in_(keys))
        )
        return {row.key: to_param(row) for row in rows}

    async def _those(self, table: Any, run_ids: Collection[str], keys: frozenset[str] | None) -> Sequence[Record]:
        if keys is not None and not keys:
            return ()
        statement = visible_to(self._principal, table).where(table.c.run_id.in_(run_ids))
        if keys is not None:
            statement = statement.where(table.c.key.in_(keys))
        return await self._session.all(statement.order_by(table.c.run_id, table.c.key))

    async def _last_metrics(self, run_ids: Collection[str], keys: frozenset[str] | None) -> Sequence[Record]:
        if keys is not None and not keys:
            return ()
        statement = metrics.kept(self._principal).where(run_metrics.c.run_id.in_(run_ids))
        if keys is not None:
            parts = [key_parts(key) for key in keys]
            statement = statement.where(tuple_(metric_keys.c.name, metric_keys.c.context).in_(parts))
        order = (run_metrics.c.run_id, metric_keys.c.name, metric_keys.c.context)
        return await self._session.all(statement.order_by(*order))

    async def _first(self, statement: Select[Any], run_id: str, experiment_id: str | None) -> Record | None:
        row = await self._session.first(statement, {**seen_by(self._principal, EXPERIMENTS_READ), "run": run_id})
        return row if row is not None and experiment_id in {None, row.experiment_id} else None


def _with_experiment(principal: Principal | Someone) -> Select[Any]:
    return (
        visible_to(principal, runs)
        .join(experiments, experiments.c.id == runs.c.experiment_id)
        .add_columns(
            experiments.c.name.label("experiment_name"),
            experiments.c.deleted_at.label("experiment_deleted_at"),
            experiments.c.number.label("experiment_number"),
            experiments.c.artifact_location.label("artifact_location"),
        )
        .where(readable(principal))
    )


def _hanging(source: FromClause, table: Table, *columns: ColumnElement[Any]) -> ScalarSelect[str]:
    """Rows of a table that hang on the run at hand, sorted by these columns, as the text of a JSON array."""
    listed = func.json_agg(aggregate_order_by(func.json_build_array(*columns), *columns[:2]))
    mine = in_project(SOMEONE, table), table.c.run_id == runs.c.id
    return select(cast(listed, Text)).select_from(source).where(*mine).correlate(runs).scalar_subquery()


_RUN = _with_experiment(SOMEONE).where(runs.c.id == bindparam("run"))
_HELD = _RUN.with_for_update(of=runs)
_OF_KEYS = run_metrics.join(metric_keys, metric_keys.c.id == run_metrics.c.key_id)
_WHOLE = _RUN.add_columns(
    _hanging(run_params, run_params, run_params.c.key, run_params.c.kind, run_params.c.text).label("params"),
    _hanging(run_tags, run_tags, run_tags.c.key, run_tags.c.value).label("tags"),
    _hanging(_OF_KEYS, run_metrics, metric_keys.c.name, metric_keys.c.context, run_metrics.c.last_value).label("metrics"),
)
_params_in = msgspec.json.Decoder(list[tuple[str, str, str]])
_tags_in = msgspec.json.Decoder(list[tuple[str, str]])
# What is no finite number is a text in JSON.
_metrics_in = msgspec.json.Decoder(list[tuple[str, str, float | str]])


def data_of(row: Record) -> RunData:
    """What hangs on a run that was read whole."""
    return RunData(
        params={key: Param(key, ParamKind(kind), text).value for key, kind, text in _params_in.decode(row.params or "[]")},
        tags=dict(_tags_in.decode(row.tags or "[]")),
        metrics={spell_key(name, context): float(last) for name, context, last in _metrics_in.decode(row.metrics or "[]")},
    )


class RunRepository(RunReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, values: Mapping[str, Any]) -> bool:
        """Insert a run. False: a run has this id, here or in another project; one that is just being made is waited for."""
        return bool(await self._session.all(_ADD, {**values, "project_id": self._principal.project}))

    async def hold(self, run_id: str, *, experiment_id: str | None = None) -> Record | None:
        """The row, held until the commit."""
        row = await self._first(_HELD, run_id, experiment_id)
        if row is None:
            await self._lock([run_id])
            row = await self._first(_HELD, run_id, experiment_id)
        return row

    async def hold_each(self, run_ids: Collection[str]) -> Sequence[Record]:
        """These rows, held until the commit; in one order, so that two requests over the same runs never deadlock."""
        await self._lock(run_ids)
        held = _with_experiment(self._principal).where(runs.c.id.in_(run_ids))
        return await self._session.all(held.order_by(runs.c.id))

    async def _lock(self, run_ids: Collection[str]) -> None:
        """Without the join: a row that was moved while we waited no longer fits the experiment that the join had found."""
        mine = visible_to(self._principal, runs).with_only_columns(runs.c.id).where(runs.c.id.in_(run_ids))
        await self._session.all(mine.order_by(runs.c.id).with_for_update())

    async def change_each(self, run_ids: Collection[str], values: Mapping[str, Any]) -> None:
        """The same change to each."""
        mine = in_project(self._principal, runs)
        await self._session.execute(update(runs).where(mine, runs.c.id.in_(run_ids)).values(values))

    async def change(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Change columns."""
        await self._session.execute(_CHANGE, {**values, "project": self._principal.project, "run": run_id})

    async def add_params(self, experiment_id: str, run_id: str, params: Sequence[Param]) -> set[str]:
        """Insert those that are new; the keys of those. One statement, whatever their number."""
        if not params:
            return set()
        ordered = sorted(params, key=lambda param: param.key)
        columns = zip(*((param.key, param.kind.value, param.text, param.number) for param in ordered), strict=True)
        place = self._principal.project, experiment_id, run_id
        return {row["key"] for row in await self._session.fetch(_ADD_PARAMS, *place, *columns)}

    async def correct_param(self, run_id: str, param: Param) -> None:
        """Replace the value of one that is there."""
        mine = in_project(self._principal, run_params)
        values = {"kind": param.kind.value, "text": param.text, "number": param.number}
        await self._session.execute(
            update(run_params).where(mine, run_params.c.run_id == run_id, run_params.c.key == param.key).values(values)
        )

    async def change_tags(self, experiment_id: str, run_id: str, changes: Mapping[str, str | None]) -> None:
        """Set those with a value, remove the others."""
        removed = [key for key, value in changes.items() if value is None]
        if removed:
            mine = in_project(self._principal, run_tags)
            await self._session.execute(
                delete(run_tags).where(mine, run_tags.c.run_id == run_id, run_tags.c.key.in_(removed))
            )
        given = sorted((key, value) for key, value in changes.items() if value is not None)
        if given:
            await self._session.fetch(_SET_TAGS, self._principal.project, experiment_id, run_id, *zip(*given, strict=True))


_ADD = upsert(runs).on_conflict_do_nothing().returning(runs.c.id)
_CHANGE = update(runs).where(in_project(SOMEONE, runs), runs.c.id == bindparam("run"))
_ADD_PARAMS = """
    INSERT INTO tracking.run_params (project_id, experiment_id, run_id, key, kind, text, number)
    SELECT $1, $2, $3, given.* FROM unnest($4::text[], $5::text[], $6::text[], $7::float8[]) AS given
    ON CONFLICT DO NOTHING RETURNING key"""
_SET_TAGS = """
    INSERT INTO tracking.run_tags (project_id, experiment_id, run_id, key, value)
    SELECT $1, $2, $3, given.* FROM unnest($4::text[], $5::text[]) AS given
    ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value"""


def to_param(row: Record) -> Param:
    """A stored parameter."""
    return Param(row.key, ParamKind(row.kind), row.text, row.number)
