import asyncio
import random

import pytest
from sqlalchemy import text

from tests.conftest import Caller, Platform
from tests.factories.ab_testing import a_test, expose, outcomes, results, route, variants

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("ab-testing")


@pytest.fixture
def flush(platform):
    return platform.apps["ab-testing"].edge.state.exposures.flush


def split(count: int, offset: int = 0) -> dict[str, str]:
    return {f"u{i}": "control" if i % 2 == 0 else "treatment" for i in range(offset, offset + count)}


class TestOutcomes:
    async def test_one_and_many_are_recorded(self, ada):
        await a_test(ada)
        assert await outcomes(ada, {"unit_id": "u", "metric": "score", "value": 0.5}) == {"recorded": 1, "duplicates": 0}
        batch = [{"unit_id": f"u{i}", "metric": "score", "value": i} for i in range(50)]
        assert await outcomes(ada, batch) == {"recorded": 50, "duplicates": 0}

    async def test_the_same_id_again_changes_nothing(self, ada):
        await a_test(ada)
        await expose(ada, {"u": "control"}, timestamp=EARLY)
        one = {"unit_id": "u", "metric": "score", "value": 1.5, "outcome_id": "o-1"}
        await outcomes(ada, one)
        assert await outcomes(ada, [one, {**one, "value": 99}]) == {"recorded": 0, "duplicates": 2}
        assert (await results(ada))["metrics"][0]["variants"][0]["sum"] == 1.5

    async def test_the_same_moment_again_changes_nothing(self, ada):
        await a_test(ada)
        one = {"unit_id": "u", "metric": "score", "value": 1.5, "timestamp": EARLY}
        assert await outcomes(ada, [one, one, {**one, "metric": "other"}]) == {"recorded": 2, "duplicates": 1}
        assert await outcomes(ada, [{**one, "timestamp": "2026-01-01T01:00:00+01:00"}]) == {"recorded": 0, "duplicates": 1}

    async def test_twenty_deliveries_at_once_record_one(self, ada):
        await a_test(ada, metrics=[{"name": "score", "kind": "mean"}])
        one = {"unit_id": "u", "metric": "score", "value": 1, "outcome_id": "o"}
        answers = await asyncio.gather(*(outcomes(ada, one) for _ in range(20)))
        assert sum(answer["recorded"] for answer in answers) == 1

    async def test_a_test_without_metrics_learns_them(self, ada):
        await a_test(ada)
        await outcomes(
            ada,
            [
                {"unit_id": "u", "metric": "bought", "value": True},
                {"unit_id": "u", "metric": "price", "value": 1},
            ],
        )
        metrics = (await ada.http.get("/api/experiments/model_v2_test")).json()["metrics"]
        assert {m["name"]: m["kind"] for m in metrics} == {"bought": "proportion", "price": "mean"}

    async def test_a_test_with_metrics_refuses_others(self, ada):
        await a_test(ada, metrics=[{"name": "bought"}])
        response = await ada.http.post(
            "/api/experiments/model_v2_test/outcomes",
            json=[{"unit_id": "u", "metric": "bought", "value": 1}, {"unit_id": "u", "metric": "sold", "value": 1}],
        )
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "1.metric"
        assert (await results(ada))["metrics"][0]["variants"][0]["n"] == 0

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"value": "NaN"}, "0.value"), ({"value": "true"}, "0.value"), ({"value": None}, "0.value"),
            ({"value": 1e200}, "0.value"), ({"value": 10**400}, "0.value"), ({"value": 0.5}, "0.value"),
            ({"value": -1}, "0.value"), ({"unit_id": ""}, "0.unit_id"), ({"unit_id": "a\x00"}, "0.unit_id"),
            ({"unit_id": "x" * 257}, "0.unit_id"), ({"unit_id": 5}, "0.unit_id"), ({"metric": "../x"}, "0.metric"),
            ({"timestamp": "tomorrow"}, "0.timestamp"), ({"timestamp": "2026-01-01T00:00:00"}, "0.timestamp"),
            ({"timestamp": 0}, "0.timestamp"), ({"timestamp": "2999-01-01T00:00:00Z"}, "0.timestamp"),
            ({"outcome_id": ""}, "0.outcome_id"), ({"extra": 1}, "0.extra"),
        ],
    )  # fmt: skip
    async def test_a_bad_field_is_named(self, ada, change, field):
        await a_test(ada, metrics=[{"name": "bought"}])
        body = {"unit_id": "u", "metric": "bought", "value": 1, **change}
        response = await ada.http.post("/api/experiments/model_v2_test/outcomes", json=body)
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"]), response.text

    @pytest.mark.parametrize("body", [[], "x", 1, None, [[]], [1]])
    async def test_a_body_of_another_form_is_refused(self, ada, body):
        await a_test(ada)
        response = await ada.http.post("/api/experiments/model_v2_test/outcomes", json=body)
        assert response.status_code == 422

    @pytest.mark.parametrize(("moves", "status"), [(["stop"], 201), (["stop", "archive"], 409), (["pause"], 201)])
    async def test_late_outcomes_are_taken_until_the_test_is_archived(self, ada, moves, status):
        await a_test(ada)
        for move in moves:
            await ada.http.post(f"/api/experiments/model_v2_test/{move}")
        body = {"unit_id": "u", "metric": "score", "value": 1}
        response = await ada.http.post("/api/experiments/model_v2_test/outcomes", json=body)
        assert response.status_code == status

    async def test_an_unknown_test_takes_nothing(self, ada):
        body = {"unit_id": "u", "metric": "score", "value": 1}
        assert (await ada.http.post("/api/experiments/nobody/outcomes", json=body)).status_code == 404


class TestExposures:
    async def test_a_repetition_with_its_moment_changes_nothing(self, platform, ada):
        await a_test(ada)
        for _ in range(3):
            await expose(ada, {"u": "control"}, timestamp=EARLY)
        assert (await results(ada))["variants"][0] == {
            "variant": "control", "model_version": "v1.0", "weight": 0.5, "units": 1, "exposures": 1,
        }  # fmt: skip

    async def test_an_earlier_exposure_that_comes_late_is_the_first(self, ada):
        await a_test(ada)
        await expose(ada, {"u": "treatment"}, timestamp=LATE)
        await expose(ada, {"u": "control"}, timestamp=EARLY)
        body = await results(ada)
        assert {v["variant"]: v["units"] for v in body["variants"]} == {"control": 1, "treatment": 0}
        assert body["crossover_units"] == 1
        assert "crossover_units" in {w["code"] for w in body["warnings"]}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"variant": "nobody"}, "0.variant"),
            ({"allocation_version": 2}, "0.allocation_version"),
            ({"allocation_version": 0}, "0.allocation_version"),
            ({"timestamp": "2999-01-01T00:00:00Z"}, "0.timestamp"),
            ({"unit_id": "\x00"}, "0.unit_id"),
        ],
    )
    async def test_a_bad_field_is_named(self, ada, change, field):
        await a_test(ada)
        body = {"unit_id": "u", "variant": "control", **change}
        response = await ada.http.post("/api/experiments/model_v2_test/exposures", json=body)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == field

    async def test_routing_records_each_unit_once_and_counts_its_visits(self, ada, flush):
        await a_test(ada)
        for _ in range(3):
            await asyncio.gather(*(route(ada, f"u{i}") for i in range(40)))
        await flush()
        body = await results(ada)
        assert body["units"] == 40
        assert sum(v["exposures"] for v in body["variants"]) == 120

    async def test_units_outside_the_test_are_not_exposed(self, ada, flush):
        await a_test(ada)
        await ada.http.post("/api/experiments/model_v2_test/pause")
        await route(ada, "u")
        await flush()
        assert (await results(ada))["units"] == 0


class TestResults:
    async def test_a_test_without_data_says_so(self, ada):
        await a_test(ada, metrics=[{"name": "bought"}, {"name": "price", "kind": "mean"}])
        body = await results(ada)
        assert body["units"] == 0
        for metric in body["metrics"]:
            assert metric["comparisons"][0]["verdict"] == "not_enough_data"
            assert metric["comparisons"][0]["p_value"] is None
            assert metric["comparisons"][0]["reason"]
        assert body["srm"]["p_value"] is None
        assert body["srm"]["reason"]

    async def test_proportions_are_those_of_the_textbook(self, ada):
        # 5 of 83 against 12 of 99: z = -1.407830, p = 0.159181 (statsmodels' documentation).
        await a_test(ada, metrics=[{"name": "bought"}])
        units = {f"c{i}": "control" for i in range(99)} | {f"t{i}": "treatment" for i in range(83)}
        await expose(ada, units, timestamp=EARLY)
        bought = [f"c{i}" for i in range(12)] + [f"t{i}" for i in range(5)]
        await outcomes(ada, [{"unit_id": u, "metric": "bought", "value": 1, "timestamp": LATE} for u in bought])
        metric = (await results(ada))["metrics"][0]
        assert [(v["n"], v["sum"]) for v in metric["variants"]] == [(99, 12.0), (83, 5.0)]
        comparison = metric["comparisons"][0]
        assert comparison["statistic"] == pytest.approx(-1.407830, abs=1e-6)
        assert comparison["p_value"] == pytest.approx(0.159181, abs=1e-6)
        assert comparison["verdict"] == "no_difference_shown"
        assert comparison["difference_interval"]["low"] < 0 < comparison["difference_interval"]["high"]

    async def test_means_are_those_of_student(self, ada):
        one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
        two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
        await a_test(ada, metrics=[{"name": "sleep", "kind": "mean"}])
        await expose(ada, split(20), timestamp=EARLY)
        values = [x for pair in zip(two, one, strict=True) for x in pair]
        await outcomes(
            ada, [{"unit_id": f"u{i}", "metric": "sleep", "value": v, "timestamp": LATE} for i, v in enumerate(values)]
        )
        comparison = (await results(ada))["metrics"][0]["comparisons"][0]
        assert comparison["statistic"] == pytest.approx(-1.860813, abs=1e-6)
        assert comparison["degrees_of_freedom"] == pytest.approx(17.7765, abs=1e-4)
        assert comparison["p_value"] == pytest.approx(0.0793941, abs=1e-7)
        interval = comparison["difference_interval"]
        assert (interval["low"], interval["high"]) == pytest.approx((-3.36548, 0.20548), abs=1e-5)

    async def test_each_kind_makes_one_number_of_a_units_outcomes(self, ada):
        await a_test(
            ada,
            metrics=[
                {"name": "bought"}, {"name": "clicks", "kind": "count"}, {"name": "rating", "kind": "mean"},
            ],
        )  # fmt: skip
        await expose(ada, {"u0": "control", "u2": "control", "u1": "treatment"}, timestamp=EARLY)
        values = {"bought": [0, 1, 1], "clicks": [2, 3, 5], "rating": [1, 2, 6]}
        await outcomes(
            ada,
            [
                {"unit_id": "u0", "metric": m, "value": v, "outcome_id": f"{m}{i}"}
                for m, vs in values.items()
                for i, v in enumerate(vs)
            ],
        )
        control = {m["metric"]: m["variants"][0] for m in (await results(ada))["metrics"]}
        assert {m: (v["n"], v["sum"], v["mean"]) for m, v in control.items()} == {
            "bought": (2, 1.0, 0.5),
            "clicks": (2, 10.0, 5.0),
            "rating": (1, 3.0, 3.0),
        }

    async def test_only_outcomes_since_the_first_exposure_count(self, ada):
        await a_test(ada, metrics=[{"name": "clicks", "kind": "count"}])
        await expose(ada, {"u": "control"}, timestamp=LATE)
        await outcomes(
            ada,
            [
                {"unit_id": "u", "metric": "clicks", "value": 100, "timestamp": EARLY},
                {"unit_id": "u", "metric": "clicks", "value": 1, "timestamp": LATE},
                {"unit_id": "stranger", "metric": "clicks", "value": 1000, "timestamp": LATE},
            ],
        )
        assert (await results(ada))["metrics"][0]["variants"][0]["sum"] == 1.0

    async def test_an_outcome_stamped_to_the_second_follows_an_exposure_within_that_second(self, ada):
        await a_test(ada, metrics=[{"name": "clicks", "kind": "count"}])
        await expose(ada, {"u": "control"}, timestamp="2026-01-02T00:00:05.123456Z")
        stamps = {"2026-01-02T00:00:05Z": 1, "2026-01-02T00:00:05.123Z": 2, "2026-01-02T00:00:04.999Z": 100}
        batch = [{"unit_id": "u", "metric": "clicks", "value": v, "timestamp": at} for at, v in stamps.items()]
        await outcomes(ada, batch)
        assert (await results(ada))["metrics"][0]["variants"][0]["sum"] == 3.0

    async def test_a_clear_effect_is_found_and_its_direction_is_judged_by_the_goal(self, ada):
        await a_test(
            ada,
            metrics=[{"name": "error", "kind": "mean", "goal": "decrease"}, {"name": "bought", "goal": "increase"}],
        )
        await expose(ada, split(400), timestamp=EARLY)
        rng = random.Random(5)
        batch = []
        for unit, variant in split(400).items():
            treated = variant == "treatment"
            batch.append({"unit_id": unit, "metric": "error", "value": rng.gauss(2.0 if treated else 3.0, 1)})
            batch.append({"unit_id": unit, "metric": "bought", "value": rng.random() < (0.6 if treated else 0.3)})
        await outcomes(ada, batch)
        verdicts = {m["metric"]: m["comparisons"][0] for m in (await results(ada))["metrics"]}
        assert {name: c["verdict"] for name, c in verdicts.items()} == {"error": "better", "bought": "better"}
        assert verdicts["error"]["relative_lift_interval"]["high"] < 0 < verdicts["bought"]["relative_lift_interval"]["low"]

    async def test_several_variants_are_corrected_for(self, ada):
        await a_test(ada, variants=variants(control=0.4, a=0.3, b=0.3), metrics=[{"name": "bought"}])
        units = {f"{v}{i}": v for v in ("control", "a", "b") for i in range(100)}
        await expose(ada, units, timestamp=EARLY)
        hits = {"control": 10, "a": 21, "b": 12}
        await outcomes(
            ada,
            [
                {"unit_id": f"{v}{i}", "metric": "bought", "value": 1, "outcome_id": f"{v}{i}"}
                for v, n in hits.items()
                for i in range(n)
            ],
        )
        first, second = (await results(ada))["metrics"][0]["comparisons"]
        assert first["p_value"] < 0.05 < first["p_value_adjusted"] == pytest.approx(2 * first["p_value"])
        assert first["verdict"] == "no_difference_shown"
        assert second["p_value_adjusted"] == pytest.approx(second["p_value"])

    async def test_a_broken_split_raises_the_alarm(self, ada):
        await a_test(ada)
        await expose(ada, {f"u{i}": "control" if i < 300 else "treatment" for i in range(500)})
        body = await results(ada)
        assert body["srm"]["is_mismatch"] is True
        assert "sample_ratio_mismatch" in {w["code"] for w in body["warnings"]}

    async def test_a_change_of_weights_is_no_broken_split(self, ada):
        await a_test(ada)
        await expose(ada, split(200), timestamp=EARLY)
        body = {"variants": [{"name": "control", "weight": 0.9}, {"name": "treatment", "weight": 0.1}]}
        await ada.http.patch("/api/experiments/model_v2_test", json=body)
        await expose(ada, {f"v{i}": "control" if i < 180 else "treatment" for i in range(200)}, timestamp=LATE)
        found = await results(ada)
        assert found["srm"]["is_mismatch"] is False
        assert found["srm"]["degrees_of_freedom"] == 2
        assert "allocation_changed" in {w["code"] for w in found["warnings"]}

    async def test_the_largest_values_give_no_nan(self, ada):
        await a_test(ada, metrics=[{"name": "big", "kind": "mean"}, {"name": "same", "kind": "mean"}])
        await expose(ada, split(8), timestamp=EARLY)
        batch = [
            {"unit_id": f"u{i}", "metric": "big", "value": 1e100 * (-1) ** (i // 2), "outcome_id": f"b{i}"}
            for i in range(8)
        ] + [{"unit_id": f"u{i}", "metric": "same", "value": 1e-100, "outcome_id": f"s{i}"} for i in range(8)]
        await outcomes(ada, batch)
        metrics = {m["metric"]: m["comparisons"][0] for m in (await results(ada))["metrics"]}
        assert metrics["big"]["relative_lift_interval"] is None
        assert metrics["same"]["reason"] == "the values of the units do not vary"

    @pytest.mark.parametrize("confidence", ["0.4", "1", "NaN", "x", "-1"])
    async def test_a_senseless_confidence_is_refused(self, ada, confidence):
        await a_test(ada)
        response = await ada.http.get("/api/experiments/model_v2_test/results", params={"confidence": confidence})
        assert response.status_code == 422

    async def test_a_lower_confidence_gives_narrower_intervals(self, ada):
        await a_test(ada, metrics=[{"name": "bought"}])
        await expose(ada, split(100), timestamp=EARLY)
        await outcomes(ada, [{"unit_id": f"u{i}", "metric": "bought", "value": 1} for i in range(30)])
        widths = []
        for confidence in (0.8, 0.95):
            body = await results(ada, confidence=confidence)
            interval = body["metrics"][0]["comparisons"][0]["difference_interval"]
            widths.append(interval["high"] - interval["low"])
        assert widths[0] < widths[1]

    async def test_the_whole_way_from_routing_to_a_verdict(self, ada, flush):
        await a_test(ada)
        rng = random.Random(3)
        batch = []
        for i in range(300):
            variant = (await route(ada, f"u{i}"))["variant"]
            batch.append(
                {"unit_id": f"u{i}", "metric": "bought", "value": rng.random() < (0.7 if variant == "treatment" else 0.3)}
            )
        await flush()
        await outcomes(ada, batch)
        body = await results(ada)
        assert body["units"] == 300
        assert body["srm"]["is_mismatch"] is False
        assert body["metrics"][0]["comparisons"][0]["verdict"] == "better"


class TestSampleSize:
    async def test_a_proportion_needs_what_r_says(self, ada):
        response = await ada.http.get("/api/sample-size", params={"baseline": 0.2, "minimum_effect": 0.05})
        assert (response.json()["units_per_variant"], response.json()["units_total"]) == (1094, 2188)

    async def test_a_mean_needs_what_r_says(self, ada):
        query = {"kind": "mean", "minimum_effect": 1, "standard_deviation": 1, "power": 0.9}
        assert (await ada.http.get("/api/sample-size", params=query)).json()["units_per_variant"] == 23

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"baseline": 0.2}, "minimum_effect"), ({"baseline": 0.2, "minimum_effect": 0}, "minimum_effect"),
            ({"baseline": 0.2, "minimum_effect": 0.9}, "minimum_effect"),
            ({"baseline": 0, "minimum_effect": 0.1}, "baseline"),
            ({"baseline": 0.2, "minimum_effect": "NaN"}, "minimum_effect"),
            ({"kind": "mean", "minimum_effect": 1}, "standard_deviation"),
            ({"kind": "mean", "minimum_effect": 1e-90, "standard_deviation": 1e90}, "minimum_effect"),
            ({"baseline": 0.2, "minimum_effect": 0.1, "power": 1}, "power"),
            ({"baseline": 0.2, "minimum_effect": 0.1, "x": 1}, "x"),
            ({"baseline": 0.2, "minimum_effect": 1e-12}, "minimum_effect"),
        ],
    )  # fmt: skip
    async def test_a_senseless_plan_is_refused(self, ada, query, field):
        response = await ada.http.get("/api/sample-size", params=query)
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"] == field


async def test_the_database_keeps_one_row_per_unit_and_variant(platform, ada, flush):
    made = await a_test(ada)
    for _ in range(5):
        await asyncio.gather(*(route(ada, "same") for _ in range(10)))
        await flush()
    async with platform.runtime.database.read() as session:
        rows = await session.all(
            text("SELECT exposures FROM ab_testing.exposures WHERE test_id = CAST(:t AS uuid)"), {"t": made["id"]}
        )
    assert [row.exposures for row in rows] == [50]
