"""Names resolve to one feature or are refused, and each value says what stands behind it."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.contracts.features import FeatureCreate, FeatureType, ServeResult
from mlops_platform.features.domain.rows import RowBatch, stamp
from mlops_platform.features.domain.schema import FeatureView, first_schema
from mlops_platform.features.domain.serving import RANK_LENGTH, OnlineRow, assemble, make_plan, online_rows
from mlops_platform.features.errors import AmbiguousFeature, EntityMismatch, UnknownFeature


def view(name: str, *features: str, entity="entity_id", ttl: int | None = None, kind=FeatureType.INT) -> FeatureView:
    schema = first_schema([FeatureCreate(name=feature, type=kind) for feature in features])
    return FeatureView(name.ljust(32, "0"), "p", name, entity, ttl, True, schema)


def views(*several: FeatureView) -> dict[str, FeatureView]:
    return {one.name: one for one in several}


USERS = view("users", "age", "visits")


def row(*values: object, event_us: int = 0) -> OnlineRow:
    return OnlineRow(event_us, 0, "0" * 32, "1970-01-01T00:00:00.000000Z", values)


class TestNames:
    def test_a_plain_name_that_one_set_has_is_enough(self):
        plan = make_plan(views(USERS, view("shops", "rent")), ["age"])
        assert [(planned.name, planned.columns) for planned in plan.sets] == [("users", (("age", 0),))]

    def test_an_ambiguous_name_lists_the_candidates(self):
        with pytest.raises(AmbiguousFeature, match="shops:age, users:age"):
            make_plan(views(USERS, view("shops", "age")), ["age"])

    def test_a_qualified_name_is_never_ambiguous(self):
        plan = make_plan(views(USERS, view("shops", "age")), ["users:age", "shops:age"])
        assert plan.labels == ("users:age", "shops:age")

    @pytest.mark.parametrize("reference", ["height", "users:height", "nobody:age", ":age", "users:"])
    def test_a_name_that_nothing_has_is_refused(self, reference):
        with pytest.raises(UnknownFeature):
            make_plan(views(USERS), [reference])

    def test_sets_of_different_entities_are_not_read_together(self):
        with pytest.raises(EntityMismatch):
            make_plan(views(USERS, view("shops", "rent", entity="shop_id")), ["age", "rent"])

    def test_a_feature_asked_for_twice_is_answered_once(self):
        assert make_plan(views(USERS), ["age", "age"]).labels == ("age",)


class TestStatuses:
    plan = make_plan(views(USERS), ["age", "visits"])

    def statuses(self, *rows: OnlineRow | None) -> list[dict[str, str]]:
        return [v.statuses for v in assemble(rows, self.plan, [str(i) for i in range(len(rows))], 0).vectors]

    def test_values_nulls_and_unknown_entities_are_told_apart(self):
        assert self.statuses(row(1, 2), row(0, None), None) == [
            {"age": "present", "visits": "present"},
            {"age": "present", "visits": "null"},
            {"age": "missing", "visits": "missing"},
        ]

    def test_a_row_older_than_the_feature_says_missing_and_not_null(self):
        assert self.statuses(row(1)) == [{"age": "present", "visits": "missing"}]

    def test_one_incomplete_vector_does_not_touch_the_next(self):
        assert self.statuses(None, row(1, 2))[1] == {"age": "present", "visits": "present"}

    def test_the_ttl_is_inclusive_and_an_expired_value_is_not_shown(self):
        plan = make_plan(views(view("users", "age", ttl=1)), ["age"])
        held = row(7, event_us=0)
        at_the_end, after = (assemble([held], plan, ["u"], now).vectors[0] for now in (1_000_000, 1_000_001))
        assert (at_the_end.values, at_the_end.statuses) == ({"age": 7}, {"age": "present"})
        assert (after.values, after.statuses) == ({"age": None}, {"age": "expired"})
        assert after.event_timestamps == {"age": held.event_timestamp}

    def test_features_of_several_sets_make_one_vector(self):
        plan = make_plan(views(USERS, view("more", "score", ttl=1)), ["score", "age"])
        [vector] = assemble([row(5, event_us=-2_000_000), row(1, 2)], plan, ["u"], 0).vectors
        assert vector.values == {"score": None, "age": 1}
        assert vector.statuses == {"score": "expired", "age": "present"}

    def test_the_answer_is_what_the_contract_says(self):
        answer = msgspec.json.encode(assemble([row(1, None), None], self.plan, ["a", "b"], 0))
        assert [v.entity for v in ServeResult.model_validate_json(answer).vectors] == ["a", "b"]


def test_online_rows_are_written_as_json_will_say_them():
    target = view("m", "x", kind=FeatureType.FLOAT)
    batch = RowBatch(["a", "b", "c", "d"], [0, 1, 2, 3], {0: [math.nan, -math.inf, None, 0.5]})
    rows = online_rows(target, stamp(batch, created_us=9, batch_id="f" * 32))
    assert [held.values for _, held in rows] == [("NaN",), ("-Infinity",), (None,), (0.5,)]
    assert rows[3][1].event_timestamp == "1970-01-01T00:00:00.000003Z"


moments = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
ranked = st.builds(OnlineRow, moments, moments, st.integers(0, 2**128 - 1).map("{:032x}".format), st.just(""), st.just(()))


@given(ranked, ranked)
def test_ranks_as_text_are_ordered_like_the_rows(one, other):
    assert len(one.rank()) == RANK_LENGTH
    assert (one.rank() > other.rank()) == one.is_newer_than(other)
