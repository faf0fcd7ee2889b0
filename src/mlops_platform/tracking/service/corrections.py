"""The one way to change a parameter: with a reason, and on the record."""

from mlops_platform.contracts.tracking_runs import ParamCorrection
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.tracking.domain import params as rules
from mlops_platform.tracking.errors import ParamNotFound
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.service.holding import hold_run, record_run


async def correct_param(
    work: UnitOfWork, run_id: str, correction: ParamCorrection, *, experiment_id: str | None = None
) -> None:
    """Replace the value of a parameter that the run has. Old value, new value and reason stand in the audit as they are."""
    if isinstance(correction.value, dict) and correction.value:
        raise InvalidInput.of("value", "is an object: correct each of its parameters by its dotted key")
    new = rules.to_param(correction.key, correction.value)
    row = await hold_run(work, run_id, experiment_id=experiment_id)
    runs = RunRepository(work.session, work.principal)
    old = (await runs.params(run_id, [correction.key])).get(correction.key)
    if old is None:
        raise ParamNotFound(
            f"The run {run_id!r} has no parameter {correction.key!r}.", hint=f"POST /api/runs/{run_id}/params adds it."
        )
    if old == new:
        return
    await runs.correct_param(run_id, new)
    await runs.change(run_id, {"updated_at": work.clock.now()})
    before, after = {correction.key: old.value}, {correction.key: new.value}
    detail = {"key": old.key, "old": old.value, "new": new.value, "reason": correction.reason}
    facts = {"experiment_id": row.experiment_id, **detail}
    await record_run(work, "run.param_corrected", run_id, facts, before=before, after=after, detail=detail)
