"""MLflow's language and rules, without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.core.errors import PlatformError
from mlops_platform.core.query.tree import And, Comparator, Compare, Field, IsNull, Like, OneOf
from mlops_platform.tracking.domain.mlflow_rules import experiment_number, model_id_of, wire_float
from mlops_platform.tracking.domain.mlflow_search import EXPERIMENTS, MODELS, RUNS, read_filter, read_order
from mlops_platform.tracking.domain.params import ParamKind, read_param
from mlops_platform.tracking.endpoints.mlflow.errors import mlflow_error
from mlops_platform.tracking.errors import MlflowInvalid

WORDS = st.sampled_from(
    [
        "metrics", "params", "tags", "attributes", "datasets", ".", "acc", "`a b`", '"c"', "status", "run_id", "created",
        ">", ">=", "=", "!=", "<", "LIKE", "ILIKE", "IN", "NOT", "IS", "NULL", "AND", "OR", "(", ")", ",", "'x'", "1",
        "name", "digest", "'", "`", "start_time", "end_time",
    ]
)  # fmt: skip


def status_of(reading):
    try:
        reading()
    except PlatformError as error:
        return mlflow_error(error).status
    return 200


class TestFilters:
    def test_what_is_read_is_our_own_tree(self):
        tree = read_filter(
            "metrics.acc >= 1 AND tags.`a b` LIKE 'x%' and run_id IN ('a', 'b') AND params.p IS NOT NULL", RUNS
        )
        assert tree == And(
            (
                Compare(Field("acc", "metrics"), Comparator.GE, 1.0),
                Like(Field("a b", "tags"), "x%"),
                OneOf(Field("run_id"), ("a", "b")),
                IsNull(Field("p", "params"), negated=True),
            )
        )

    def test_tags_that_are_fields_here_are_asked_of_the_fields(self):
        assert read_filter("tags.mlflow.parentRunId = 'x'", RUNS) == Compare(Field("parent_run_id"), Comparator.EQ, "x")
        assert read_filter("tag.\"mlflow.runName\" = 'x'", RUNS) == Compare(Field("run_name"), Comparator.EQ, "x")

    @given(
        st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=30).map(" ".join)),
        st.sampled_from([RUNS, EXPERIMENTS, MODELS]),
    )
    def test_any_text_is_read_or_refused(self, text, language):
        assert status_of(lambda: read_filter(text, language)) in {200, 400}

    @given(st.lists(st.one_of(st.text(max_size=50), st.lists(WORDS, max_size=6).map(" ".join)), max_size=4))
    def test_any_order_is_read_or_refused(self, clauses):
        assert status_of(lambda: read_order(clauses, RUNS)) in {200, 400}

    @pytest.mark.parametrize("text", ["a = 1 AND " * 2000, "metrics.a > 1 AND " * 300 + "metrics.a > 1"])
    def test_a_filter_is_bounded(self, text):
        with pytest.raises(PlatformError):
            read_filter(text, RUNS)

    def test_a_time_beyond_the_calendar_finds_nothing_and_breaks_nothing(self):
        assert read_filter(f"start_time > {'9' * 60}", RUNS) is not None
        assert read_filter("start_time > -5", RUNS) is not None


class TestValues:
    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("5", ParamKind.INT),
            ("-5", ParamKind.INT),
            ("0.010", ParamKind.FLOAT),
            ("1e-3", ParamKind.FLOAT),
            (".5", ParamKind.FLOAT),
            ("1e999", ParamKind.STRING),
            ("007", ParamKind.STRING),
            ("-0", ParamKind.STRING),
            ("nan", ParamKind.STRING),
            ("1_000", ParamKind.STRING),
            ("٣", ParamKind.STRING),
            (" 5", ParamKind.STRING),
            ("9" * 30, ParamKind.STRING),
            ("", ParamKind.STRING),
        ],
    )
    def test_a_text_that_reads_as_a_number_is_one_and_keeps_its_text(self, text, kind):
        param = read_param("key", text)
        assert (param.kind, param.text) == (kind, text)
        assert (param.number is not None) is (kind is not ParamKind.STRING)

    @given(st.text(max_size=60))
    def test_any_parameter_has_a_value(self, text):
        assert read_param("key", text).value is not None

    def test_experiments_are_integers_and_models_have_their_form(self):
        assert experiment_number("9" * 40) == -1
        with pytest.raises(MlflowInvalid):
            experiment_number("1.5")
        assert model_id_of("m-" + "0" * 32) == "0" * 32
        assert model_id_of("m-" + "g" * 32) is None

    def test_what_json_cannot_hold_is_a_text(self):
        assert [wire_float(float(text)) for text in ("nan", "inf", "-inf", "1")] == ["NaN", "Infinity", "-Infinity", 1.0]
