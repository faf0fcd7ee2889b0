"""References, parameters, versions and the two state machines."""

import contextlib
import tracemalloc
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.contracts.pipelines import AttemptState, ParameterSpec, PipelineCreate, PipelineRunState, TaskRunState
from mlops_platform.pipelines.domain import parameters, references, states, versions
from mlops_platform.pipelines.domain.scopes import task_scopes
from mlops_platform.pipelines.errors import (
    IllegalTransition,
    ParametersInvalid,
    PipelineInvalid,
    UnresolvableReference,
)

SCOPE = references.Scope(
    parameters={"lr": 0.1, "name": "m"},
    results={"a": {"k": [10, 20]}, "dotted.name": 1},
    run={"id": "r1"},
    item={"x": 7},
    has_item=True,
)


class TestResolve:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("${params.lr}", 0.1),
            ("model-${params.name}-${params.lr}", "model-m-0.1"),
            ("${tasks.a.result}", {"k": [10, 20]}),
            ("${tasks.a.result.k.1}", 20),
            ("${tasks.dotted.name.result}", 1),
            ("got ${tasks.a.result.k}", "got [10,20]"),
            ("${item.x}", 7),
            ("${run.id}", "r1"),
            ("$${params.lr}", "${params.lr}"),
            ("a $ b", "a $ b"),
        ],
    )
    def test_a_reference_gives_its_value_and_keeps_its_type_when_it_stands_alone(self, text, value):
        assert references.resolve({"in": [text]}, SCOPE) == {"in": [value]}

    def test_what_a_value_says_is_never_read_as_a_reference_again(self):
        scope = references.Scope(parameters={"a": "${params.b}", "b": "secret"}, results={}, run={})
        assert references.resolve("x${params.a}", scope) == "x${params.b}"

    @pytest.mark.parametrize(
        "text",
        [
            "${tasks.a.result.nope}",
            "${tasks.a.result.k.2}",
            f"${{tasks.a.result.k.{'1' * 5000}}}",
            "${params.lr.x}",
            "${tasks.b.result}",
        ],
    )
    def test_a_path_that_leads_nowhere_is_an_error_that_says_where(self, text):
        with pytest.raises(UnresolvableReference):
            references.resolve(text, SCOPE)

    @pytest.mark.parametrize("shape", [["${params.big}"] * 10_000, "${params.big}" * 10_000])
    def test_a_short_document_that_names_a_large_value_again_and_again_is_refused_and_not_built(self, shape):
        scope = references.Scope(parameters={"big": "x" * 100_000}, results={}, run={})
        tracemalloc.start()
        try:
            with pytest.raises(UnresolvableReference, match="more than"):
                references.resolve(shape, scope)
            assert tracemalloc.get_traced_memory()[1] < 8 * 1024**2
        finally:
            tracemalloc.stop()

    @given(st.text())
    def test_no_text_breaks_the_parser(self, text):
        with contextlib.suppress(UnresolvableReference):
            list(references.find(text, "at"))


class TestParameters:
    SPECS: ClassVar = {
        "lr": ParameterSpec(type="number", default=0.1),
        "kind": ParameterSpec(type="string", default="a", choices=["a", "b"]),
        "count": ParameterSpec(type="integer"),
    }

    def test_what_is_given_stands_over_the_defaults(self):
        assert parameters.bind(self.SPECS, {"count": 3, "lr": 1}) == {"lr": 1, "kind": "a", "count": 3}

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({}, "parameters.count"),
            ({"count": None}, "parameters.count"),
            ({"count": True}, "parameters.count"),
            ({"count": 1.5}, "parameters.count"),
            ({"count": 1, "kind": "c"}, "parameters.kind"),
            ({"count": 1, "typo": 2}, "parameters.typo"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_its_field(self, given, field):
        with pytest.raises(ParametersInvalid) as refused:
            parameters.bind(self.SPECS, given)
        assert [error.field for error in refused.value.errors] == [field]

    def test_a_default_of_another_type_is_refused_when_the_pipeline_is_made(self):
        with pytest.raises(PipelineInvalid, match="must be an integer"):
            parameters.check_declarations({"n": ParameterSpec(type="integer", default="1")})


class TestDigest:
    BASE: ClassVar = {"name": "p", "tasks": [{"name": "a", "entry_point": "m:f"}]}

    def digest(self, **changes) -> str:
        return versions.content_digest(PipelineCreate.model_validate(self.BASE | changes))

    def test_description_schedule_and_spelled_out_defaults_do_not_make_a_version(self):
        spelled = {"tasks": [{"name": "a", "entry_point": "m:f", "retries": 0, "depends_on": []}]}
        assert self.digest() == self.digest(description="d", schedule={"cron": "@daily"}, **spelled)

    def test_any_change_of_a_task_makes_a_version(self):
        assert self.digest() != self.digest(tasks=[{"name": "a", "entry_point": "m:f", "retries": 1}])


class TestSettle:
    def settle(self, ended: AttemptState, *, failures=0, losses=0, cancelling=False, **policy) -> states.Settlement:
        progress = states.Progress(failures, losses, cancelling)
        return states.settle(ended, progress, states.RetryPolicy(**policy), jitter=0.5)

    @pytest.mark.parametrize("ended", [AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.CRASHED])
    def test_a_failure_is_tried_again_until_its_retries_are_used_up(self, ended):
        assert self.settle(ended, failures=1, retries=2).state is TaskRunState.RETRY_WAIT
        assert self.settle(ended, failures=2, retries=2).state is TaskRunState.FAILED

    def test_a_lost_worker_does_not_use_up_the_retries(self):
        settled = self.settle(AttemptState.LOST, retries=0)
        assert (settled.state, settled.failures, settled.losses) == (TaskRunState.RETRY_WAIT, 0, 1)

    def test_a_task_that_takes_its_worker_down_each_time_ends(self):
        assert self.settle(AttemptState.LOST, losses=states.MAX_LOSSES).state is TaskRunState.FAILED

    def test_a_task_that_must_not_run_twice_is_not_tried_again_after_a_loss(self):
        assert self.settle(AttemptState.LOST, retries=5, retry_on_loss=False).state is TaskRunState.FAILED

    @pytest.mark.parametrize("ended", [AttemptState.FAILED, AttemptState.LOST, AttemptState.EXPANDED])
    def test_nothing_is_tried_again_while_the_run_is_being_cancelled(self, ended):
        assert self.settle(ended, retries=5, cancelling=True).state is TaskRunState.CANCELLED

    def test_a_result_that_arrives_during_cancellation_still_counts(self):
        assert self.settle(AttemptState.SUCCEEDED, cancelling=True).state is TaskRunState.SUCCEEDED

    @given(
        st.sampled_from([state for state in AttemptState if state is not AttemptState.RUNNING]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.booleans(),
        st.integers(0, 5),
    )
    def test_every_settlement_is_an_edge_of_the_table(self, ended, failures, losses, cancelling, retries):
        settled = self.settle(ended, failures=failures, losses=losses, cancelling=cancelling, retries=retries)
        assert settled.state in states.TASK_TRANSITIONS[TaskRunState.RUNNING]

    @given(st.floats(0, 86_400), st.integers(1, 100), st.floats(0, 1, exclude_max=True))
    def test_backoff_is_never_negative_and_never_endless(self, delay, failures, jitter):
        assert 0 <= states.backoff_seconds(delay, failures, jitter) <= 86_400


class TestRunMoves:
    def test_a_finished_run_cannot_be_cancelled(self):
        with pytest.raises(IllegalTransition, match="succeeded and cannot become cancelling"):
            states.check_run_move(PipelineRunState.SUCCEEDED, PipelineRunState.CANCELLING)

    def test_every_state_has_its_row_in_the_table(self):
        assert set(states.TASK_TRANSITIONS) == set(TaskRunState)
        assert set(states.RUN_TRANSITIONS) == set(PipelineRunState)


class TestTaskScopes:
    @pytest.mark.parametrize(
        ("scopes", "given"),
        [
            (["*"], ["*:read", "*:write"]),
            (["*:*"], ["*:read", "*:write"]),
            (["models:*", "keys:admin"], ["models:read", "models:write"]),
            (["pipelines:write", "models:promote"], ["pipelines:write"]),
            (["models"], []),
            ([], []),
        ],
    )
    def test_a_task_reads_and_writes_what_its_author_may_and_nothing_more(self, scopes, given):
        assert task_scopes(scopes) == given
