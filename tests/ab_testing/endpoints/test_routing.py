from collections import Counter

import pytest
from scipy.stats import chisquare
from tests.conftest import Caller, Platform
from tests.factories.ab_testing import a_test, route, variants

from mlops_platform.ab_testing.endpoints.routing import read_query
from mlops_platform.contracts.ab_testing import Route
from mlops_platform.core.errors import InvalidInput


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("ab-testing")


class TestRoute:
    async def test_the_briefs_request_works_on_the_call_after_creation(self, ada):
        await a_test(ada)
        response = await ada.http.get("/api/route?user_id=user_123&experiment=model_v2_test")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert body == {
            "experiment": "model_v2_test",
            "variant": body["variant"],
            "model_version": {"control": "v1.0", "treatment": "v2.0"}[body["variant"]],
            "user_id": "user_123",
            "in_experiment": True,
            "allocation_version": 1,
            "reason": "split",
        }
        Route.model_validate(body)

    async def test_a_unit_always_gets_the_same_answer(self, ada):
        await a_test(ada)
        assert len({(await route(ada, "user_123"))["variant"] for _ in range(20)}) == 1

    async def test_units_fall_to_the_variants_as_weighted(self, ada):
        await a_test(ada, variants=variants(a=0.2, b=0.8))
        counts = Counter([(await route(ada, f"u{i}"))["variant"] for i in range(400)])
        assert chisquare([counts["a"], counts["b"]], [80, 320]).pvalue > 1e-5

    async def test_a_partial_roll_out_gives_the_rest_the_controls_model(self, ada):
        await a_test(ada, traffic_share=0.3)
        answers = [await route(ada, f"u{i}") for i in range(300)]
        outside = [a for a in answers if not a["in_experiment"]]
        assert chisquare([len(outside), 300 - len(outside)], [210, 90]).pvalue > 1e-5
        assert {(a["variant"], a["model_version"], a["reason"]) for a in outside} == {
            ("control", "v1.0", "outside_traffic")
        }

    async def test_raising_the_traffic_share_moves_nobody_who_was_inside(self, ada):
        await a_test(ada, traffic_share=0.2)
        inside = {u: a["variant"] for i in range(200) if (a := await route(ada, u := f"u{i}"))["in_experiment"]}
        await ada.http.patch("/api/experiments/model_v2_test", json={"traffic_share": 0.9})
        assert {u: (await route(ada, u))["variant"] for u in inside} == inside

    @pytest.mark.parametrize(("action", "reason"), [("pause", "paused"), ("stop", "stopped")])
    async def test_a_test_that_does_not_run_gives_everyone_the_controls_model(self, ada, action, reason):
        await a_test(ada)
        await ada.http.post(f"/api/experiments/model_v2_test/{action}")
        answers = [await route(ada, f"u{i}") for i in range(20)]
        assert {(a["model_version"], a["reason"], a["in_experiment"]) for a in answers} == {("v1.0", reason, False)}

    async def test_a_draft_routes_to_the_control(self, ada):
        await a_test(ada, status="draft")
        assert (await route(ada, "u"))["reason"] == "not_started"

    async def test_an_archived_test_is_not_routed(self, ada):
        await a_test(ada, status="draft")
        await ada.http.post("/api/experiments/model_v2_test/archive")
        response = await ada.http.get("/api/route?user_id=u&experiment=model_v2_test")
        assert response.status_code == 404

    @pytest.mark.parametrize("unit", ["юзер 42", 'a"b\\c', "a&b=c+d%", "\x1f", "x" * 256, "emoji 🙂", "a\nb"])
    async def test_any_text_can_be_a_unit_and_comes_back_as_it_was(self, ada, unit):
        await a_test(ada)
        assert (await route(ada, unit))["user_id"] == unit

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("", "user_id"), ("user_id=u", "experiment"), ("experiment=t", "user_id"),
            ("user_id=&experiment=t", "user_id"), (f"user_id={'x' * 257}&experiment=t", "user_id"),
            ("user_id=a%00b&experiment=t", "user_id"), ("user_id=%ff&experiment=t", "user_id"),
            ("user_id=%ed%a0%80&experiment=t", "user_id"), ("user_id=a&user_id=b&experiment=t", "user_id"),
            ("user_id=u&experiment=../etc", "experiment"), ("user_id=u&experiment=t%0a", "experiment"),
            ("user_id=u&experiment=t&debug=1", "debug"), ("user_id=u&experiment=" + "t" * 129, "experiment"),
        ],
    )  # fmt: skip
    async def test_a_bad_parameter_is_named(self, ada, query, field):
        response = await ada.http.get(f"/api/route?{query}")
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"] == field

    async def test_an_unknown_test_is_not_found(self, ada):
        response = await ada.http.get("/api/route?user_id=u&experiment=nobody")
        assert response.status_code == 404
        assert response.json()["code"] == "ab_test_not_found"

    async def test_without_a_credential_nobody_is_routed(self, platform, ada):
        await a_test(ada)
        response = await platform.client("ab-testing").get("/api/route?user_id=u&experiment=model_v2_test")
        assert response.status_code == 401


class TestReadQuery:
    def test_a_surprising_encoding_is_understood(self):
        assert read_query(b"experiment=a.b&user_id=x%20y+z") == ("x y z", "a.b")

    def test_a_trailing_newline_is_no_part_of_a_name(self):
        with pytest.raises(InvalidInput):
            read_query(b"user_id=u&experiment=t%0A")
