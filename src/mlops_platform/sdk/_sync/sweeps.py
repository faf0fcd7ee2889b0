# Generated from sdk/_async/sweeps.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""Sweeps: searching a space of parameters, with any number of workers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.client import ServiceClient
from mlops_platform.sdk._sync.listing import Listing
from mlops_platform.sdk._sync.runs import ActiveRun
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


class Sweeping(ABC):
    """The part of `platform.tracking` that searches.

    ```python
    sweep = platform.tracking.sweep("churn", {"lr": {"min": 1e-5, "max": 0.1, "log": True}}, objective="val_loss")
    for trial in sweep:
        with trial:
            for epoch in range(10):
                trial.report(train(trial.params), epoch)
                if trial.should_prune():
                    trial.prune()
    ```
    """

    _client: ServiceClient
    _settings: ClientSettings

    @abstractmethod
    def ensure_experiment(self, name_or_id: str) -> Experiment: ...

    @abstractmethod
    def experiment(self, name_or_id: str) -> Experiment: ...

    @abstractmethod
    def _handed_run(self, run_id: str) -> ActiveRun: ...

    def sweep(
        self,
        experiment: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        objective: Any = None,
        goal: str = "minimize",
        method: str | None = None,
        config: Mapping[str, Any] | None = None,
        **options: Unpack[SweepOptions],
    ) -> "ActiveSweep":
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
        fields["experiment_id"] = (self.ensure_experiment(experiment)).id
        made = self._client.send("POST", "/api/sweeps", Sweep, json=fields)
        sweep = self._opened(made)
        if self._settings.capture:
            backend.in_thread(reproduction.record, self._handed_run(made.id), seeds=made.seed)
        return sweep

    def open_sweep(self, sweep_id: str) -> "ActiveSweep":
        """A sweep that is there already: how further workers join it."""
        return self._opened(self._client.get(Sweep, f"/api/sweeps/{segment(sweep_id)}"))

    def sweeps(
        self, experiment: str | None = None, *, status: RunStatus | str | None = None, limit: int | None = None
    ) -> Listing[Sweep]:
        """Sweeps, the newest first."""
        experiment_id = (self.experiment(experiment)).id if experiment is not None else None
        query = given(experiment_id=experiment_id, status=RunStatus(status).value if status is not None else None)
        return Listing(lambda: self._client.pages(Sweep, "/api/sweeps", params=query, limit=limit))

    def _opened(self, info: Sweep) -> "ActiveSweep":
        return ActiveSweep(info, self._client, self._handed_run)


class ActiveSweep:
    """One sweep, as a worker and as a reader. Iterating asks for trials until there is nothing left to try."""

    def __init__(self, info: Sweep, client: ServiceClient, start: Callable[[str], "backend.Later[ActiveRun]"]) -> None:
        self.info = info
        self.id = info.id
        self._client = client
        self._start = start
        self._path = f"/api/sweeps/{info.id}"
        self._writer = new_writer()

    def ask(self, *, wait: bool = False, run_name: str | None = None) -> "ActiveTrial | None":
        """The next trial, or None when there is none. `wait`: until others have ended theirs, since one may be lost."""
        while True:
            body = given(writer=self._writer, run_name=run_name)
            answer = self._client.send("POST", f"{self._path}/ask", SweepAnswer, json=body)
            if answer.trial is not None:
                run = self._start(answer.trial.run_id)
                return ActiveTrial(self, answer.trial, run, self._client, self._writer)
            if not wait or answer.retry_after_seconds is None:
                return None
            backend.sleep(answer.retry_after_seconds)

    def __iter__(self) -> Iterator["ActiveTrial"]:
        while (trial := self.ask()) is not None:
            try:
                yield trial
            except GeneratorExit:
                # The loop was left in the middle of a trial: whether it failed is not known here.
                trial.abandon()
                raise
            trial.settle()

    def run(
        self,
        objective: Callable[["ActiveTrial"], "backend.Later[Any]"],
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
            trial = self.ask(wait=wait)
            if trial is None:
                break
            done += 1
            try:
                with trial:
                    trial.tell(objective(trial))
            except catch:
                continue
        return done

    def refresh(self) -> Sweep:
        """Where the sweep stands now."""
        self.info = self._client.get(Sweep, self._path)
        return self.info

    def stop(self, reason: str | None = None) -> Sweep:
        """Hand out no more trials; those under way go on."""
        self.info = self._client.send("POST", f"{self._path}/stop", Sweep, json=given(reason=reason))
        return self.info

    def resume(self, *, max_trials: int | None = None, timeout_seconds: float | None = None) -> Sweep:
        """Go on, with other limits where they are given."""
        body = given(max_trials=max_trials, timeout_seconds=timeout_seconds)
        self.info = self._client.send("POST", f"{self._path}/resume", Sweep, json=body)
        return self.info

    def trials(self, *, limit: int | None = None) -> Listing[Trial]:
        """Every trial, in the order of the asking."""
        return Listing(lambda: self._client.pages(Trial, f"{self._path}/trials", limit=limit))

    def best(self) -> Trial | None:
        """The best trial; of several objectives the best by the first."""
        found = self.best_trials()
        return found[0] if found else None

    def best_trials(self) -> Sequence[Trial]:
        """The best trial; of several objectives all that no other one beats."""
        return (self._client.get(BestTrials, f"{self._path}/best")).items

    def history(self, objective: str | None = None) -> SweepHistory:
        """Each complete trial with its value, and the best until then."""
        return self._client.get(SweepHistory, f"{self._path}/history", params=given(objective=objective))

    def importance(self, objective: str | None = None) -> Mapping[str, float]:
        """What each parameter is worth."""
        query = given(objective=objective)
        return (self._client.get(SweepImportance, f"{self._path}/importance", params=query)).importances

    def _repr_html_(self) -> str:
        return self.info._repr_html_()  # the name that notebooks look for

    def __repr__(self) -> str:
        return f"<sweep {self.info.name!r} {self.id}>"


class ActiveTrial:
    """One point to try, with a run that records it. As a context manager it tells how its block ended.

    A block that raised `TrialPruned` gave the trial up; another error failed it; Ctrl-C gives the point back.
    """

    def __init__(self, sweep: ActiveSweep, info: Trial, run: ActiveRun, client: ServiceClient, named: str) -> None:
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

    def should_prune(self) -> bool:
        """Whether to give up, judged by what was reported until now. Asks the server, after delivering that."""
        self.run.flush()
        path = f"/api/sweeps/{self.sweep.id}/trials/{self.run.id}/prune"
        decision = self._client.get(PruneDecision, path, params=given(since=self._judged_at))
        self._judged_at = decision.step if decision.step is not None else self._judged_at
        return decision.should_prune

    def prune(self) -> None:
        """Give up: raises `TrialPruned`, which the block of the trial and `sweep.run` understand."""
        raise TrialPruned(f"Trial {self.number} was given up.")

    def tell(
        self, values: Any = None, *, outcome: TrialOutcome | str = TrialOutcome.COMPLETE, reason: str | None = None
    ) -> Trial:
        """Say how it ended: with a value, one for each objective, or None for what was logged. Its run ends with it."""
        if not self._is_open:
            return self.info
        self.run.flush()
        body = given(
            run_id=self.run.id,
            outcome=TrialOutcome(outcome).value,
            values=telling(values),
            reason=reason[:2000] if reason else None,
            writer=self._writer,
        )
        told = self._client.send("POST", f"/api/sweeps/{self.sweep.id}/tell", TrialTold, json=body)
        self.abandon()
        self.info = told.trial
        return self.info

    def settle(self) -> None:
        """Tell it complete with what was logged, unless it was told already."""
        if self._is_open:
            self.tell()

    def abandon(self) -> None:
        """Say nothing more of it. One that was not told is given to another worker once its silence is noticed."""
        self._is_open = False
        self._heart.stop()
        self.run.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if kind is None:
            self.settle()
            return False
        if issubclass(kind, TrialPruned):
            self.tell(outcome=TrialOutcome.PRUNED, reason=str(error) or None)
            return True
        if not self._is_open:
            return False
        try:
            if issubclass(kind, Exception):
                self.tell(outcome=TrialOutcome.FAILED, reason=f"{kind.__name__}: {error}")
            else:
                self.run.finish(RunStatus.KILLED)
        except MlopsError:
            # What went wrong in the block is what its author must see; the server learns of it by the silence.
            self.abandon()
        finally:
            self._heart.stop()
        return False

    def _beat(self) -> bool:
        """Whether to go on beating."""
        try:
            self._client.request("POST", f"/api/runs/{self.run.id}/heartbeat", json={"writer": self._writer})
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
