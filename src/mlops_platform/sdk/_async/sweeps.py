"""Sweeps: searching a space of parameters, with any number of workers."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from mlops_platform.contracts.tracking import Experiment, RunStatus
from mlops_platform.contracts.tracking_sweeps import (
    BestTrials,
    PruneDecision,
    Sweep,
    SweepAnswer,
    SweepHistory,
    SweepImportance,
    Trial,
    TrialOutcome,
    TrialTold,
)
from mlops_platform.sdk import current, reproduction
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.client import AsyncServiceClient
from mlops_platform.sdk._async.listing import AsyncListing
from mlops_platform.sdk._async.runs import AsyncActiveRun
from mlops_platform.sdk.errors import ApiError, Conflict, MlopsError
from mlops_platform.sdk.heartbeat import new_writer
from mlops_platform.sdk.settings import ClientSettings
from mlops_platform.sdk.sweeps import (
    METHODS,
    Heartbeat,
    SweepOptions,
    TrialPruned,
    read_config,
    read_objectives,
    read_space,
    telling,
)
from mlops_platform.sdk.wire import given, segment

BEAT_SECONDS = 10.0
ANSWER_SECONDS = 20.0


class AsyncSweeping(ABC):
    """The part of `platform.tracking` that searches.

    ```python
    sweep = await platform.tracking.sweep("churn", {"lr": {"min": 1e-5, "max": 0.1, "log": True}}, objective="val_loss")
    async for trial in sweep:
        async with trial:
            for epoch in range(10):
                trial.report(train(trial.params), epoch)
                if await trial.should_prune():
                    trial.prune()
    ```
    """

    _client: AsyncServiceClient
    _settings: ClientSettings

    @abstractmethod
    async def ensure_experiment(self, name_or_id: str) -> Experiment: ...

    @abstractmethod
    async def experiment(self, name_or_id: str) -> Experiment: ...

    @abstractmethod
    async def _handed_run(self, run_id: str) -> AsyncActiveRun: ...

    async def sweep(
        self,
        experiment: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        objective: Any = None,
        goal: str = "minimize",
        method: str | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Unpack[SweepOptions],
    ) -> "AsyncActiveSweep":
        """Start a sweep. The experiment is made when it is absent.

        `parameters`: for each a list of values, a `range`, a fixed value, a mapping such as `{"min": 1e-5, "max": 0.1,
        "log": True}`, or a distribution of Optuna. `objective`: the metric, a mapping of metrics to `minimize` or
        `maximize`, or a list of objectives. `method`: `tpe`, `random`, `grid` or `qmc`. `config`: a sweep configuration
        of W&B. The rest is named in `SweepOptions`.
        """
        fields = read_config(config) if config is not None else {}
        fields |= options
        if parameters is not None:
            fields["parameters"] = read_space(parameters)
        if objective is not None:
            fields["objectives"] = read_objectives(objective, goal)
        if method is not None:
            fields["method"] = METHODS.get(method, method)
        if isinstance(fields.get("pruner"), str):
            fields["pruner"] = {"kind": fields["pruner"]}
        fields["experiment_id"] = (await self.ensure_experiment(experiment)).id
        made = await self._client.send("POST", "/api/sweeps", Sweep, json=fields)
        sweep = self._opened(made)
        if self._settings.capture:
            await backend.in_thread(reproduction.record, await self._handed_run(made.id), seeds=made.seed)
        return sweep

    async def open_sweep(self, sweep_id: str) -> "AsyncActiveSweep":
        """A sweep that is there already: how further workers join it."""
        return self._opened(await self._client.get(Sweep, f"/api/sweeps/{segment(sweep_id)}"))

    async def sweeps(
        self, experiment: str | None = None, *, status: RunStatus | str | None = None, limit: int | None = None
    ) -> AsyncListing[Sweep]:
        """Sweeps, the newest first."""
        experiment_id = (await self.experiment(experiment)).id if experiment is not None else None
        query = given(experiment_id=experiment_id, status=RunStatus(status).value if status is not None else None)
        return AsyncListing(lambda: self._client.pages(Sweep, "/api/sweeps", params=query, limit=limit))

    def _opened(self, info: Sweep) -> "AsyncActiveSweep":
        return AsyncActiveSweep(info, self._client, self._handed_run)


class AsyncActiveSweep:
    """One sweep, as a worker and as a reader. Iterating asks for trials until there is nothing left to try."""

    def __init__(
        self, info: Sweep, client: AsyncServiceClient, start: Callable[[str], "backend.Later[AsyncActiveRun]"]
    ) -> None:
        self.info = info
        self.id = info.id
        self._client = client
        self._start = start
        self._path = f"/api/sweeps/{info.id}"
        self._writer = new_writer()

    async def ask(self, *, wait: bool = False, run_name: str | None = None) -> "AsyncActiveTrial | None":
        """The next trial, or None when there is none. `wait`: until others have ended theirs, since one may be lost."""
        while True:
            body = given(writer=self._writer, run_name=run_name)
            answer = await self._client.send("POST", f"{self._path}/ask", SweepAnswer, json=body)
            if answer.trial is not None:
                run = await self._start(answer.trial.run_id)
                return AsyncActiveTrial(self, answer.trial, run, self._client, self._writer)
            if not wait or answer.retry_after_seconds is None:
                return None
            await backend.sleep(answer.retry_after_seconds)

    async def __aiter__(self) -> AsyncIterator["AsyncActiveTrial"]:
        while (trial := await self.ask()) is not None:
            try:
                yield trial
            except GeneratorExit:
                # The loop was left in the middle of a trial: whether it failed is not known here.
                trial.abandon()
                raise
            await trial.settle()

    async def run(
        self,
        objective: Callable[["AsyncActiveTrial"], "backend.Later[Any]"],
        *,
        trials: int | None = None,
        catch: tuple[type[Exception], ...] = (),
        wait: bool = False,
    ) -> int:
        """Work: call `objective` for trial after trial, at most `trials` times; how many were done.

        What it returns is the value of the trial; None leaves it to the metric that was logged. An error ends the trial
        as failed, and the work too, unless it is one of `catch`. `TrialPruned` gives the trial up.
        """
        done = 0
        while trials is None or done < trials:
            trial = await self.ask(wait=wait)
            if trial is None:
                break
            done += 1
            try:
                async with trial:
                    await trial.tell(await objective(trial))
            except catch:
                continue
        return done

    async def refresh(self) -> Sweep:
        """Where the sweep stands now."""
        self.info = await self._client.get(Sweep, self._path)
        return self.info

    async def stop(self, reason: str | None = None) -> Sweep:
        """Hand out no more trials; those under way go on."""
        self.info = await self._client.send("POST", f"{self._path}/stop", Sweep, json=given(reason=reason))
        return self.info

    async def resume(self, *, max_trials: int | None = None, timeout_seconds: float | None = None) -> Sweep:
        """Go on, with other limits where they are given."""
        body = given(max_trials=max_trials, timeout_seconds=timeout_seconds)
        self.info = await self._client.send("POST", f"{self._path}/resume", Sweep, json=body)
        return self.info

    def trials(self, *, limit: int | None = None) -> AsyncListing[Trial]:
        """Every trial, in the order of the asking."""
        return AsyncListing(lambda: self._client.pages(Trial, f"{self._path}/trials", limit=limit))

    async def best(self) -> Trial | None:
        """The best trial; of several objectives the best by the first."""
        found = await self.best_trials()
        return found[0] if found else None

    async def best_trials(self) -> Sequence[Trial]:
        """The best trial; of several objectives all that no other one beats."""
        return (await self._client.get(BestTrials, f"{self._path}/best")).items

    async def history(self, objective: str | None = None) -> SweepHistory:
        """Each complete trial with its value, and the best until then."""
        return await self._client.get(SweepHistory, f"{self._path}/history", params=given(objective=objective))

    async def importance(self, objective: str | None = None) -> Mapping[str, float]:
        """What each parameter is worth."""
        query = given(objective=objective)
        return (await self._client.get(SweepImportance, f"{self._path}/importance", params=query)).importances

    def _repr_html_(self) -> str:
        return self.info._repr_html_()  # the name that notebooks look for

    def __repr__(self) -> str:
        return f"<sweep {self.info.name!r} {self.id}>"


class AsyncActiveTrial:
    """One point to try, with a run that records it. As a context manager it tells how its block ended.

    A block that raised `TrialPruned` gave the trial up; another error failed it; Ctrl-C gives the point back.
    """

    def __init__(
        self, sweep: AsyncActiveSweep, info: Trial, run: AsyncActiveRun, client: AsyncServiceClient, named: str
    ) -> None:
        self.sweep = sweep
        self.info = info
        self.number = info.number
        self.params: Mapping[str, Any] = info.parameters
        self.run = run
        self.is_lost = False
        """The server has given the point back: it heard nothing for too long, or somebody ended the run."""
        self._client = client
        self._writer = named
        self._judged_at: int | None = None
        self._last_step: int | None = None
        self._is_open = True
        outside = backend.Outside()
        current.enter(run)

        def beat() -> bool:
            return outside.call(self._beat, timeout_seconds=ANSWER_SECONDS)

        seconds = run.info.heartbeat_seconds or sweep.info.heartbeat_seconds
        self._heart = Heartbeat(lambda: _tried(beat), min(BEAT_SECONDS, seconds / 3))

    def report(self, value: float, step: int) -> None:
        """Log an intermediate value of the first objective."""
        metric = self.sweep.info.objectives[0].metric
        if metric.endswith("}"):
            raise ValueError(f"{metric!r} has a context: log it with the metrics of the run, by `trial.run`.")
        self.run.log_metric(metric, value, step=step)
        self._last_step = step

    async def should_prune(self) -> bool:
        """Whether to give up, judged by what was reported until now. Asks the server, after delivering that."""
        await self.run.flush()
        path = f"/api/sweeps/{self.sweep.id}/trials/{self.run.id}/prune"
        decision = await self._client.get(PruneDecision, path, params=given(since=self._judged_at))
        self._judged_at = decision.step if decision.step is not None else self._judged_at
        return decision.should_prune

    def prune(self) -> None:
        """Give up: raises `TrialPruned`, which the block of the trial and `sweep.run` understand."""
        raise TrialPruned(f"Trial {self.number} was given up.")

    async def tell(
        self, values: Any = None, *, outcome: TrialOutcome | str = TrialOutcome.COMPLETE, reason: str | None = None
    ) -> Trial:
        """Say how it ended: with a value, one for each objective, or None for what was logged. Its run ends with it."""
        if not self._is_open:
            return self.info
        await self.run.flush()
        body = given(
            run_id=self.run.id,
            outcome=TrialOutcome(outcome).value,
            values=telling(values),
            reason=reason[:2000] if reason else None,
            writer=self._writer,
        )
        told = await self._client.send("POST", f"/api/sweeps/{self.sweep.id}/tell", TrialTold, json=body)
        self.abandon()
        self.info = told.trial
        return self.info

    async def settle(self) -> None:
        """Tell it complete with what was logged, unless it was told already."""
        if self._is_open:
            await self.tell()

    def abandon(self) -> None:
        """Say nothing more of it. One that was not told is given to another worker once its silence is noticed."""
        self._is_open = False
        self._heart.stop()
        self.run.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if kind is None:
            await self.settle()
            return False
        if issubclass(kind, TrialPruned):
            await self.tell(outcome=TrialOutcome.PRUNED, reason=str(error) or None)
            return True
        if not self._is_open:
            return False
        try:
            if issubclass(kind, Exception):
                await self.tell(outcome=TrialOutcome.FAILED, reason=f"{kind.__name__}: {error}")
            else:
                await self.run.finish(RunStatus.KILLED)
        except MlopsError:
            # What went wrong in the block is what its author must see; the server learns of it by the silence.
            self.abandon()
        finally:
            self._heart.stop()
        return False

    async def _beat(self) -> bool:
        """Whether to go on beating."""
        try:
            await self._client.request("POST", f"/api/runs/{self.run.id}/heartbeat", json={"writer": self._writer})
        except Conflict:
            self.is_lost = self._is_open
            return False
        return True

    def __repr__(self) -> str:
        return f"<trial {self.number} of {self.sweep!r}>"


def _tried(beat: Callable[[], bool]) -> bool:
    """A beat that fails is missed, and the next one may come through."""
    try:
        return beat()
    except (ApiError, MlopsError, TimeoutError, RuntimeError):
        return True
