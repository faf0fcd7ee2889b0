"""Statements that lay runs side by side. The database leaves out what is alike and answers a column a row."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Numeric, Text, case, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from mlops_platform.contracts.tracking_compare import MAX_COMPARED_KEYS, MetricSummary
from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.comparison import CUT, MetricCells, ParamCells
from mlops_platform.tracking.tables import metric_keys, run_metrics, run_params

# 1 and 1.0 are the same value, and integers past what a float holds are not.
_WHOLE = (run_params.c.kind == "float") & (run_params.c.number == func.trunc(run_params.c.number))
_SAME = case(
    (run_params.c.kind == "int", run_params.c.text),
    (_WHOLE & (func.abs(run_params.c.number) < 1e15), cast(cast(run_params.c.number, Numeric), Text)),
    else_=run_params.c.kind + ":" + run_params.c.text,
)


class Comparing:
    """Reads over a set of runs that the caller has checked; their order is the order of every column."""

    def __init__(self, session: ReadSession, principal: Principal, run_ids: Sequence[str]) -> None:
        self._session = session
        self._principal = principal
        self._run_ids = list(run_ids)

    async def differing(self, keys: Sequence[str] | None) -> tuple[list[str], int]:
        """The parameters that are not the same in all runs; and how many are."""
        differs = or_(func.count() < len(self._run_ids), func.count(_SAME.distinct()) > 1)
        statement = (
            select(run_params.c.key, differs.label("differs"))
            .where(in_project(self._principal, run_params), run_params.c.run_id.in_(self._run_ids))
            .group_by(run_params.c.key)
            .order_by(run_params.c.key)
        )
        if keys is not None:
            statement = statement.where(run_params.c.key.in_(keys))
        rows = await self._session.all(statement)
        return [row.key for row in rows if row.differs], sum(1 for row in rows if not row.differs)

    async def params(self, keys: Sequence[str]) -> list[ParamCells]:
        """The values of these parameters."""
        place = self._places()
        text = func.left(run_params.c.text, CUT + 1)
        statement = (
            select(
                run_params.c.key,
                func.array_agg(place.c.place).label("places"),
                func.array_agg(run_params.c.kind).label("kinds"),
                func.array_agg(text).label("texts"),
                func.array_agg(run_params.c.number).label("numbers"),
            )
            .join(place, run_params.c.run_id == place.c.run_id)
            .where(in_project(self._principal, run_params), run_params.c.key.in_(keys))
            .group_by(run_params.c.key)
            .order_by(run_params.c.key)
        )
        rows = await self._session.all(statement)
        return [ParamCells(row.key, _from_zero(row), row.kinds, row.texts, row.numbers) for row in rows]

    async def metrics(self, keys: Sequence[str] | None, summary: MetricSummary) -> tuple[list[MetricCells], int]:
        """The values of the first metrics by name, and how many there are beyond them."""
        place = self._places()
        statement = (
            select(
                metric_keys.c.name,
                func.array_agg(place.c.place).label("places"),
                func.array_agg(_value(summary)).label("values"),
                func.count().over().label("in_all"),
            )
            .select_from(run_metrics)
            .join(metric_keys, metric_keys.c.id == run_metrics.c.key_id)
            .join(place, run_metrics.c.run_id == place.c.run_id)
            .where(in_project(self._principal, run_metrics))
            .group_by(metric_keys.c.name)
            .order_by(metric_keys.c.name)
            .limit(MAX_COMPARED_KEYS)
        )
        if keys is not None:
            statement = statement.where(metric_keys.c.name.in_(keys))
        rows = await self._session.all(statement)
        cells = [MetricCells(row.name, _from_zero(row), row.values) for row in rows]
        return cells, (rows[0].in_all - len(rows) if rows else 0)

    def _places(self) -> Any:
        given = func.unnest(cast(self._run_ids, ARRAY(UUID(as_uuid=False))))
        return given.table_valued("run_id", with_ordinality="place").render_derived("place")


def _value(summary: MetricSummary) -> Any:
    match summary:
        case MetricSummary.LAST:
            return run_metrics.c.last_value
        case MetricSummary.MIN:
            return run_metrics.c.min_value
        case MetricSummary.MAX:
            return run_metrics.c.max_value
        case MetricSummary.MEAN:
            return run_metrics.c.total / func.nullif(run_metrics.c.count - run_metrics.c.nan_count, literal(0))


def _from_zero(row: Record) -> list[int]:
    return [place - 1 for place in row.places]
