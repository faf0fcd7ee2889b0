"""From rows to what the API answers."""

from datetime import UTC, datetime
from typing import Any

from mlops_platform.contracts.pipelines import (
    Attempt,
    LogLine,
    Pipeline,
    PipelineRun,
    PipelineRunDetail,
    PipelineVersion,
    PipelineVersionSummary,
    Schedule,
    TaskRun,
    TaskRunDetail,
    TaskRunState,
)
from mlops_platform.pipelines.tables import NO_ITEM


def schedule_answer(row: Any) -> Schedule:
    return Schedule.model_validate(row._asdict() | {"next_at": None if row.is_paused else row.next_at})


def pipeline_answer(row: Any, schedule: Any) -> Pipeline:
    shown = schedule_answer(schedule) if schedule is not None else None
    return Pipeline.model_validate(row._asdict() | {"schedule": shown})


def version_answer(row: Any, pipeline: str, tasks: Any) -> PipelineVersion:
    return PipelineVersion.model_validate(row._asdict() | {"pipeline": pipeline, "tasks": [t.spec for t in tasks]})


def version_summary(row: Any) -> PipelineVersionSummary:
    return PipelineVersionSummary.model_validate(row._asdict())


def run_answer(row: Any) -> PipelineRun:
    return PipelineRun.model_validate(row._asdict() | {"created_by": row.principal_name})


def run_detail(row: Any, counts: dict[TaskRunState, int]) -> PipelineRunDetail:
    return PipelineRunDetail.model_validate(row._asdict() | {"created_by": row.principal_name, "task_counts": counts})


def task_answer(row: Any) -> TaskRun:
    return TaskRun.model_validate(_task(row))


def task_detail(row: Any, attempts: Any) -> TaskRunDetail:
    tried = [Attempt.model_validate(attempt._asdict()) for attempt in attempts]
    return TaskRunDetail.model_validate(_task(row) | {"attempts": tried})


def log_lines(chunks: Any, offset: int, limit: int) -> list[LogLine]:
    """The lines from `offset` on, out of the chunks that hold them."""
    numbered = (
        (chunk.first_line + index, line)
        for chunk in chunks
        for index, line in enumerate(chunk.lines)
        if offset <= chunk.first_line + index < offset + limit
    )
    return [
        LogLine(line=number, at=datetime.fromtimestamp(at / 1000, UTC), stream=stream, text=text)
        for number, (at, stream, text) in numbered
    ]


def _task(row: Any) -> dict[str, Any]:
    return {**row._asdict(), "item": None if row.item == NO_ITEM else row.item}
