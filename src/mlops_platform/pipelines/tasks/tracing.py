"""The span of each attempt that a worker runs, in the trace of the request that started the run."""

from time import time_ns

from mlops_platform.contracts.pipelines import AttemptState
from mlops_platform.core.telemetry.tracing import Span, Tracer, child_of
from mlops_platform.pipelines.service.dispatch import ClaimedTask

_SERVICE = "pipeline-worker"
_NO_ERROR = {AttemptState.SUCCEEDED, AttemptState.CANCELLED}


class AttemptSpans:
    """Tells of attempts, when this process exports spans."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def add(self, claimed: ClaimedTask, state: AttemptState, seconds: float) -> None:
        """Tell of an attempt that has ended. What it was given, gave and wrote is not told."""
        if self._tracer is None:
            return
        # A schedule's run has no request: its tasks share a trace that is named after the run.
        context, parent_id = child_of(claimed.trace_parent, claimed.run_id)
        if not self._tracer.wants(context, is_root=parent_id is None):
            return
        attributes: dict[str, str | int] = {
            "mlops.pipeline.run.id": claimed.run_id,
            "mlops.pipeline.task": claimed.task,
            "mlops.pipeline.task_run.id": claimed.task_run_id,
            "mlops.pipeline.attempt": claimed.attempt,
            "mlops.pipeline.attempt.state": state.value,
        }
        if claimed.item is not None:
            attributes["mlops.pipeline.item"] = claimed.item
        self._tracer.add(
            Span(
                context=context,
                parent_id=parent_id,
                name=f"task {claimed.task}",
                service=_SERVICE,
                is_server=False,
                ended_ns=time_ns(),
                seconds=seconds,
                attributes=attributes,
                error=None if state in _NO_ERROR else state.value,
            )
        )
