"""Pipelines written as functions."""

import pytest

from mlops_platform.contracts.pipelines import PipelineCreate, Resources
from mlops_platform.pipelines.domain.graph import build_graph
from mlops_platform.sdk.pipelines import ITEM, RUN_ID, PipelineDefinitionError, pipeline, task


@task(retries=2, timeout_seconds=60, resources=Resources(cpus=2))
def train(rows: int, rate: float = 0.1) -> dict:
    """Trains."""
    return {"rows": rows, "rate": rate, "score": rows * rate}


@task
def best(candidates: list) -> dict:
    return max(candidates, key=lambda one: one["score"])


@task
def note(text: str) -> str:
    return text


@task(name="score-one")
def score(value: int, factor: int = 2) -> int:
    return value * factor


@pipeline(name="churn", schedule="@daily")
def churn(rows: int = 100, label: str = "x", grid: list[float] | None = None):
    """Picks the best of two."""
    found = best([train(rows, 0.1), train(rows, rate=0.2)])
    note(text=f"{label}: {found['score']} in {RUN_ID}")


def tasks_of(document: PipelineCreate) -> dict:
    build_graph(document)
    return {spec.name: spec for spec in document.tasks}


class TestTask:
    def test_outside_a_pipeline_it_is_the_function(self):
        assert train(10, rate=0.5) == {"rows": 10, "rate": 0.5, "score": 5.0}
        assert (train.__doc__, train.__name__) == ("Trains.", "train")

    def test_a_pipeline_is_plain_python_when_it_is_called(self):
        assert best([train(1), train(2)])["rows"] == 2

    def test_a_function_that_a_worker_cannot_import_is_refused(self):
        @task
        def inner() -> None: ...

        with pytest.raises(PipelineDefinitionError, match="top of a module"):
            pipeline(name="p")(lambda: [inner()]).document()


class TestDocument:
    def test_calls_become_tasks_and_results_dependencies(self):
        tasks = tasks_of(churn.document())
        assert list(tasks) == ["train", "train-2", "best", "note"]
        assert tasks["best"].arguments == {"candidates": ["${tasks.train.result}", "${tasks.train-2.result}"]}
        assert tasks["train"].arguments == {"rows": "${params.rows}", "rate": 0.1}
        assert tasks["note"].arguments == {"text": "${params.label}: ${tasks.best.result.score} in ${run.id}"}
        assert tasks["train"].entry_point.endswith("test_pipelines:train")

    def test_settings_and_parameters_are_carried_over(self):
        document = churn.document()
        spec = tasks_of(document)["train"]
        assert (spec.retries, spec.timeout_seconds, spec.resources.cpus) == (2, 60, 2)
        assert {name: (p.type, p.default) for name, p in document.parameters.items()} == {
            "rows": ("integer", 100),
            "label": ("string", "x"),
            "grid": ("array", None),
        }
        assert document.schedule is not None
        assert (document.description, document.schedule.cron) == ("Picks the best of two.", "@daily")

    def test_map_runs_a_task_for_each_item(self):
        @pipeline
        def mapped(values: list):
            score.map(values)
            score.options(name="other").map([1, 2], value=3, factor=ITEM["f"])

        tasks = tasks_of(mapped.document())
        assert (tasks["score-one"].for_each, tasks["score-one"].arguments) == ("${params.values}", {"value": "${item}"})
        assert tasks["other"].arguments == {"value": 3, "factor": "${item.f}"}

    def test_after_waits_without_passing_anything(self):
        @pipeline
        def ordered():
            first = note(text="a")
            note.options(name="last", after=[first])(text="b")

        assert tasks_of(ordered.document())["last"].depends_on == ["note"]

    @pytest.mark.parametrize(
        "use",
        [lambda x: x > 1, lambda x: x + 1, bool, len, list, float],
        ids=["compare", "add", "if", "len", "loop", "float"],
    )
    def test_computing_with_what_only_a_run_knows_is_refused_with_advice(self, use):
        def computing(x: int):
            use(x)

        with pytest.raises(PipelineDefinitionError, match="inside a task"):
            pipeline(computing).document()

    def test_a_value_that_is_not_json_is_refused_with_its_place(self):
        def odd():
            note(text={"a": [object()]})  # type: ignore[arg-type]

        with pytest.raises(PipelineDefinitionError, match=r"note\.arguments\.text\.a\.0"):
            pipeline(odd).document()

    def test_a_parameter_without_a_type_is_refused(self):
        def untyped(x):
            note(text=x)

        with pytest.raises(PipelineDefinitionError, match="'x' needs a type"):
            pipeline(untyped).document()

    def test_an_error_in_a_pipeline_function_does_not_leave_tasks_recording(self):
        def broken():
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            pipeline(broken).document()
        assert note("plain") == "plain"
