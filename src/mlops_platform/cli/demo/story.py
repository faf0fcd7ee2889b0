"""The five steps of the demo, through the SDK and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import monotonic, sleep
from typing import Any, TypeVar

from mlops_platform.cli.demo.candidates import CANDIDATES
from mlops_platform.cli.demo.data import ENTITY, FEATURE_SET, Patients
from mlops_platform.cli.demo.narrator import Narrator
from mlops_platform.cli.demo.tasks import breast_cancer_training
from mlops_platform.contracts.ab_testing import ABTestResults, Comparison
from mlops_platform.contracts.features import FeatureSet
from mlops_platform.contracts.pipelines import TaskRunState
from mlops_platform.contracts.registry import LineageGraph
from mlops_platform.sdk import Platform
from mlops_platform.sdk.errors import Conflict, MlopsError

A = TypeVar("A")

EXPERIMENT = "breast-cancer"
MODEL = "breast-cancer-classifier"
ALIAS = "champion"
METRIC = "correct"
_PIPELINE_SECONDS = 300.0
_START_SECONDS = 30.0
_SETTLE_SECONDS = 15.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the two versions that compete."""

    variant: str
    version: str
    name: str
    run_id: str

    @property
    def label(self) -> str:
        return f"{MODEL}/{self.version}"


@dataclass(frozen=True, slots=True)
class Training:
    """What the pipeline made."""

    pipeline_run_id: str
    training_set_id: str
    rows: int
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the story ended: what `-o json` prints."""

    model: str
    champion: str
    is_significant: bool
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    ab_test: str
    units: int
    experiment: str
    pipeline_run_id: str
    training_set_id: str
    feature_set: str
    lineage: Sequence[str]
    seconds: float

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)


class Story:
    """The steps, each using what the ones before have made."""

    def __init__(self, platform: Platform, data: Patients, narrator: Narrator) -> None:
        self._platform = platform
        self._data = data
        self._tell = narrator

    def run(self) -> Outcome:
        began = monotonic()
        self._ingest()
        training = self._train()
        self._materialize()
        test = self._compete(training)
        results = self._judge(test)
        comparison = results.metrics[0].comparisons[0]
        winner = self._decide(training, test, results, comparison)
        graph = self._trace()
        interval = comparison.difference_interval
        outcome = Outcome(
            model=MODEL,
            champion=winner.version,
            is_significant=bool(comparison.is_significant),
            difference=comparison.difference,
            difference_low=interval.low if interval else None,
            difference_high=interval.high if interval else None,
            ab_test=test,
            units=results.units,
            experiment=EXPERIMENT,
            pipeline_run_id=training.pipeline_run_id,
            training_set_id=training.training_set_id,
            feature_set=FEATURE_SET,
            lineage=[node.urn for node in graph.nodes],
            seconds=round(monotonic() - began, 1),
        )
        self._tell.where_next(self._platform.settings.urls, outcome.as_fields())
        return outcome

    # 1

    def _ingest(self) -> None:
        with self._tell.step("Feature set") as step:
            found = self._feature_set()
            table = _table(self._data)
            result = self._platform.features.ingest(FEATURE_SET, table)
            first, last = self._data.measured_at[0], self._data.measured_at[-1]
            step.done(
                f"{result.rows} patients x {len(self._data.features)} measurements in {found.name!r}"
                f" (version {found.version}), from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
            )

    def _feature_set(self) -> FeatureSet:
        features = [{"name": name, "type": "float"} for name in self._data.features]
        try:
            return self._platform.features.create_set(
                FEATURE_SET,
                features,
                entity=ENTITY,
                description="Measurements of cell nuclei, one row a patient (scikit-learn's breast-cancer set).",
                online=False,
                tags=["demo"],
            )
        except Conflict:
            return self._platform.features.get_set(FEATURE_SET)

    # 2

    def _train(self) -> Training:
        pipelines = self._platform.pipelines
        with self._tell.step("Pipeline") as step:
            version = pipelines.create_from(breast_cancer_training)
            parameters = {"experiment": EXPERIMENT, "model": MODEL, "candidates": [dict(one) for one in CANDIDATES]}
            run = pipelines.run(version.pipeline, parameters)
            self._follow(run.id, step.advance)
            pipelines.wait(run.id, timeout_seconds=_SETTLE_SECONDS)
            training_set = pipelines.result(run.id, "join-training-set")
            ranking = pipelines.result(run.id, "evaluate")["ranking"]
            registered = pipelines.result(run.id, "register")
            step.done(
                f"{len(ranking)} candidates trained in parallel on {training_set['rows']} labelled patients, point in time"
            )
        self._tell.ranking(ranking, {made["run_id"]: made["version"] for made in registered})
        variants = ("control", "treatment")
        candidates = [Candidate(variant, **made) for variant, made in zip(variants, registered, strict=True)]
        return Training(run.id, training_set["id"], training_set["rows"], candidates)

    def _follow(self, run_id: str, advance: Callable[[int, int], None]) -> None:
        """Tell how far the run is, until all its tasks have ended."""
        waits_until, ends = monotonic() + _START_SECONDS, monotonic() + _PIPELINE_SECONDS
        while True:
            run = self._platform.pipelines.get_run(run_id)
            counts = run.task_counts
            advance(counts.get(TaskRunState.SUCCEEDED, 0), sum(counts.values()))
            if run.finished_at is not None:
                return
            idle = not any(counts.get(state) for state in (TaskRunState.RUNNING, TaskRunState.SUCCEEDED))
            if idle and monotonic() > waits_until:
                raise MlopsError(
                    f"No worker has taken a task of pipeline run {run_id} for {_START_SECONDS:g} s.",
                    hint="'mlops up' runs one unless MLOPS_WORKER_SLOTS is 0; otherwise start one: mlops worker",
                )
            if monotonic() > ends:
                raise MlopsError(f"Pipeline run {run_id} takes too long.", hint=f"See: mlops pipeline tasks {run_id}")
            sleep(_POLL_SECONDS)

    # 3

    def _materialize(self) -> None:
        with self._tell.step("Online features") as step:
            self._platform.features.update_set(FEATURE_SET, online=True)
            since = self._data.measured_at[self._data.first_held_out]
            result = self._platform.features.materialize(FEATURE_SET, start=since)
            step.done(f"{result.entities} held-out patients, who came after {since:%Y-%m-%d}, are served online")

    # 4

    def _compete(self, training: Training) -> str:
        control, treatment = training.candidates
        test = f"breast-cancer-{control.version}-vs-{treatment.version}"
        with self._tell.step("A/B test") as step:
            self._platform.ab.create(
                test,
                [{"name": one.variant, "weight": 0.5, "model_version": one.label} for one in training.candidates],
                unit_type="patient",
                control=control.variant,
                metrics=[{"name": METRIC, "kind": "proportion", "goal": "increase", "is_primary": True}],
                description="Which of the two versions is right about more patients?",
            )
            models: dict[str, Any] = {}
            held_out = range(self._data.first_held_out, len(self._data.ids))
            for row in held_out:
                self._meet(test, row, models)
                step.advance(row - held_out.start + 1, len(held_out))
            step.done(f"{test!r}: {len(held_out)} patients routed, served, predicted, reported")
        return test

    def _meet(self, test: str, row: int, models: dict[str, Any]) -> None:
        """One patient: the version that the test says, on the features that are online, and whether it was right."""
        patient = self._data.ids[row]
        label = self._platform.ab.route(test, patient).model_version
        if label not in models:
            # The demo's own pipeline wrote this file a moment ago.
            models[label] = self._platform.registry.load(*label.split("/"), trust=True)
        vector = self._platform.features.serve(patient, self._data.references)
        measurements = [[vector.values[name] for name in self._data.references]]
        is_malignant = bool(models[label].predict(measurements)[0])
        self._platform.ab.outcome(test, patient, metric=METRIC, value=is_malignant == self._data.is_malignant[row])

    # 5

    def _judge(self, test: str) -> ABTestResults:
        with self._tell.step("Result") as step:
            expected = len(self._data.ids) - self._data.first_held_out
            # Exposures are written in batches, shortly after the routing.
            results = _awaited(
                lambda: self._platform.ab.results(test),
                lambda found: found.units >= expected,
                f"The A/B test {test!r} does not count all {expected} patients.",
            )
            step.done(f"{results.units} patients counted")
        self._tell.results(results)
        return results

    def _decide(self, training: Training, test: str, results: ABTestResults, comparison: Comparison) -> Candidate:
        control, treatment = training.candidates
        winner = treatment if (comparison.difference or 0.0) > 0 else control
        note = _reason(winner, comparison)
        self._platform.ab.stop(test, winner=winner.variant, note=note)
        self._platform.registry.set_alias(MODEL, ALIAS, winner.version)
        self._tell.say(f"{note} {MODEL}@{ALIAS} is now version {winner.version} ({winner.name}).")
        return winner

    def _trace(self) -> LineageGraph:
        # Other services state their edges as events, which the registry hears a moment later.
        graph = _awaited(
            lambda: self._platform.registry.lineage(f"{MODEL}@{ALIAS}"),
            lambda found: {"run", "training-set", "feature-set", "pipeline-run"} <= {node.kind for node in found.nodes},
            f"The lineage of {MODEL}@{ALIAS} does not reach its feature set.",
        )
        source = next(node.name for node in graph.nodes if node.kind == "training-set")
        training_set = self._platform.features.get_training_set(source)
        self._tell.lineage(graph, training_set)
        return graph


def _reason(winner: Candidate, comparison: Comparison) -> str:
    if comparison.is_significant:
        return f"The {winner.variant} is better, and the difference is significant."
    if not comparison.difference:
        return f"No difference was seen; the {winner.variant} stays."
    return (
        f"The difference is not significant: these patients do not tell the two apart. "
        f"The {winner.variant}, with the better point estimate, is taken."
    )


def _awaited(ask: Callable[[], A], is_there: Callable[[A], bool], otherwise: str) -> A:
    ends = monotonic() + _SETTLE_SECONDS
    while not is_there(answer := ask()):
        if monotonic() > ends:
            raise MlopsError(otherwise, hint="Are the platform's background duties running? See: mlops doctor")
        sleep(_POLL_SECONDS)
    return answer


def _table(data: Patients) -> Any:
    import pyarrow as pa

    columns: dict[str, Any] = {
        ENTITY: pa.array(data.ids),
        "event_timestamp": pa.array(data.measured_at, type=pa.timestamp("us", tz="UTC")),
    }
    for place, name in enumerate(data.features):
        columns[name] = pa.array(data.values[:, place])
    return pa.table(columns)
