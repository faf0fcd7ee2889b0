"""What the rules of pruning need: of each trial one value at one step, never its whole history."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, any_, literal, select, true
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on

from mlops_platform.contracts.tracking_metrics import MetricGoal
from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.schema import HexId
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.domain.pruning import Reported
from mlops_platform.tracking.tables import metric_points, run_metrics


class Intermediate:
    """The reported values of one metric."""

    def __init__(self, session: ReadSession, principal: Principal, key_id: int) -> None:
        self._session = session
        self._principal = principal
        self._key_id = key_id

    async def reported(self, run_id: str, goal: MetricGoal) -> Reported | None:
        """What a trial has reported so far; None when it has reported nothing."""
        kept = await self._session.first(
            visible_to(self._principal, run_metrics).where(
                run_metrics.c.run_id == run_id, run_metrics.c.key_id == self._key_id
            )
        )
        if kept is None:
            return None
        before = await self._session.first(
            self._points()
            .where(metric_points.c.run_id == run_id, metric_points.c.step < kept.last_step)
            .order_by(metric_points.c.step.desc())
            .limit(1)
        )
        best = kept.min_value if goal is MetricGoal.MINIMIZE else kept.max_value
        return Reported(kept.last_step, before.step if before else None, kept.last_value, best)

    async def at_step(self, run_ids: Sequence[str], step: int) -> list[float]:
        """The value that each of these has at exactly this step; those without are left out."""
        statement = (
            self._points()
            .where(_among(metric_points.c.run_id, run_ids), metric_points.c.step == step)
            .ext(distinct_on(metric_points.c.run_id))
            .order_by(metric_points.c.run_id, metric_points.c.timestamp.desc(), metric_points.c.value.desc())
        )
        return [row.value for row in await self._session.all(statement)]

    async def reaching(self, run_ids: Sequence[str], step: int) -> dict[str, float]:
        """The first value of each at this step or later."""
        first = (
            self._points()
            .with_only_columns(metric_points.c.value)
            .where(metric_points.c.run_id == run_metrics.c.run_id, metric_points.c.step >= step)
            .order_by(metric_points.c.step, metric_points.c.timestamp.desc(), metric_points.c.value.desc())
            .limit(1)
            .correlate(run_metrics)
            .lateral("first")
        )
        statement = (
            select(run_metrics.c.run_id, first.c.value)
            .select_from(run_metrics.join(first, true()))
            .where(
                in_project(self._principal, run_metrics),
                _among(run_metrics.c.run_id, run_ids),
                run_metrics.c.key_id == self._key_id,
                run_metrics.c.last_step >= step,
            )
        )
        return {row.run_id: row.value for row in await self._session.all(statement)}

    def _points(self) -> Select[Any]:
        return visible_to(self._principal, metric_points).where(metric_points.c.key_id == self._key_id)


def _among(column: ColumnElement[str], run_ids: Sequence[str]) -> ColumnElement[bool]:
    """One parameter, however many runs there are."""
    return column == any_(literal(list(run_ids), ARRAY(HexId)))
