"""Features may be added freely; removing or retyping one takes consent and never revives old values."""

import pytest

from mlops_platform.contracts.features import FeatureCreate, FeatureType
from mlops_platform.features.domain.schema import evolve, first_schema, schema_from_json, schema_to_json
from mlops_platform.features.errors import SchemaChangeRefused

AGE = FeatureCreate(name="age", type=FeatureType.INT)
CITY = FeatureCreate(name="city", type=FeatureType.STRING)
FIRST = first_schema([AGE, CITY])


def test_an_added_feature_makes_a_version_and_takes_a_slot_of_its_own():
    schema = evolve(FIRST, [AGE, CITY, FeatureCreate(name="vip", type=FeatureType.BOOL)], consent=False)
    assert schema.version == 2
    assert [(f.name, f.slot, f.since_version) for f in schema.features] == [("age", 0, 1), ("city", 1, 1), ("vip", 2, 2)]


@pytest.mark.parametrize(
    "wanted", [[AGE], [AGE, FeatureCreate(name="city", type=FeatureType.INT)]], ids=["removed", "retyped"]
)
def test_a_feature_is_not_taken_away_without_consent(wanted):
    with pytest.raises(SchemaChangeRefused, match="'city'"):
        evolve(FIRST, wanted, consent=False)


def test_a_feature_that_left_and_came_back_does_not_find_its_old_values():
    back = evolve(evolve(FIRST, [AGE], consent=True), [AGE, CITY], consent=False)
    assert back.by_name()["city"].slot not in {feature.slot for feature in FIRST.features}
    assert back.version == 3


def test_a_retyped_feature_leaves_its_old_values_behind():
    retyped = evolve(FIRST, [AGE, FeatureCreate(name="city", type=FeatureType.INT)], consent=True)
    assert retyped.by_name()["city"].slot == 2
    assert retyped.by_name()["age"] == FIRST.by_name()["age"]


def test_new_words_and_another_order_are_no_new_version():
    schema = evolve(FIRST, [CITY, AGE.model_copy(update={"description": "in years"})], consent=False)
    assert schema.version == 1
    assert schema.by_name()["age"].description == "in years"


def test_a_schema_survives_its_storage_form():
    assert schema_from_json(1, schema_to_json(FIRST), FIRST.next_slot) == FIRST
