import asyncio
import hashlib

import pytest
from sqlalchemy import text
from tests.conftest import Caller, Platform
from tests.factories.ab_testing import BRIEF, a_test, expose, outcomes, route, variants

from mlops_platform.core.identity import Role


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("ab-testing")


async def events_of(platform, caller):
    async with platform.runtime.database.read() as session:
        rows = await session.all(
            text("SELECT type, subject, data FROM core.events WHERE project_id = CAST(:p AS uuid) ORDER BY sequence"),
            {"p": caller.project},
        )
    return [(row.type, row.subject, row.data) for row in rows]


async def links_of(platform, caller):
    events = await events_of(platform, caller)
    prefix = f"urn:mlops:{caller.project}:"
    return {
        (d["subject"].removeprefix(prefix), d["relation"], d["object"].removeprefix(prefix))
        for kind, _, d in events
        if kind == "lineage.stated"
    }


class TestCreate:
    async def test_the_briefs_request_makes_a_running_test(self, ada):
        response = await ada.http.post("/api/experiments", json=BRIEF)
        assert response.status_code == 201
        assert response.headers["location"] == "/api/experiments/model_v2_test"
        body = response.json()
        assert body["status"] == "running"
        assert body["started_at"] is not None
        shown = [{k: v[k] for k in ("name", "weight", "model_version")} for v in body["variants"]]
        assert shown == BRIEF["variants"]
        assert [v["is_control"] for v in body["variants"]] == [True, False]
        assert (await ada.http.get("/api/experiments/model_v2_test")).json() == body

    async def test_the_same_name_twice_is_a_conflict(self, ada):
        await a_test(ada)
        response = await ada.http.post("/api/experiments", json=BRIEF)
        assert response.status_code == 409
        assert response.json()["code"] == "ab_test_taken"

    async def test_of_twenty_at_once_one_wins(self, ada):
        answers = await asyncio.gather(*(ada.http.post("/api/experiments", json=BRIEF) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19

    async def test_a_repeated_idempotency_key_makes_one_test(self, ada):
        headers = {"Idempotency-Key": "k1"}
        first = await ada.http.post("/api/experiments", json=BRIEF, headers=headers)
        second = await ada.http.post("/api/experiments", json=BRIEF, headers=headers)
        assert second.status_code == 201
        assert second.json() == first.json()

    async def test_weights_that_do_not_sum_to_one_are_refused_with_their_sum(self, ada):
        body = {**BRIEF, "variants": variants(control=0.5, treatment=0.4)}
        response = await ada.http.post("/api/experiments", json=body)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "variants"
        assert "0.9" in response.json()["detail"]

    async def test_the_first_variant_is_the_control_when_none_is_called_so(self, ada):
        body = await a_test(ada, variants=variants(a=0.5, b=0.5))
        assert [v["name"] for v in body["variants"] if v["is_control"]] == ["a"]

    async def test_what_is_optional_is_kept(self, ada):
        metrics = [{"name": "clicks", "kind": "count", "goal": "increase", "is_primary": True}]
        body = await a_test(
            ada, description="why", unit_type="session", control="treatment", traffic_share=0.25, metrics=metrics
        )
        assert (body["description"], body["unit_type"], body["traffic_share"]) == ("why", "session", 0.25)
        assert body["metrics"] == metrics
        assert [v["name"] for v in body["variants"] if v["is_control"]] == ["treatment"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "../../etc/passwd"), ("name", ""), ("name", "a" * 129), ("name", "a\x00b"), ("name", 7),
            ("name", "x\n"), ("variants", []), ("variants", variants(only=1.0)), ("variants", "control"),
            ("variants", variants(a=0.0, b=1.0)), ("variants", variants(a=-0.5, b=1.5)),
            ("variants", [*variants(a=0.5), *variants(a=0.5)]),
            ("variants", [{"name": "a", "weight": "0.5", "model_version": "1"}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": True, "model_version": "1"}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 10**400, "model_version": "1"}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 0.5, "model_version": "a\x00"}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 0.5, "model_version": ""}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 0.5, "model_version": "v" * 301}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 0.5}, *variants(b=0.5)]),
            ("variants", [{"name": "a", "weight": 0.5, "model_version": "1", "extra": 1}, *variants(b=0.5)]),
            ("control", "nobody"), ("traffic_share", 0), ("traffic_share", 1.5), ("traffic_share", "NaN"),
            ("status", "stopped"), ("status", "happy"), ("description", "\x00"), ("unit_type", ""),
            ("metrics", [{"name": "a", "kind": "median"}]), ("metrics", [{"name": "a"}, {"name": "a"}]),
            ("metrics", [{"name": "a", "is_primary": True}, {"name": "b", "is_primary": True}]), ("unknown", 1),
        ],
    )  # fmt: skip
    async def test_a_bad_field_is_named_and_nothing_is_written(self, ada, field, value):
        response = await ada.http.post("/api/experiments", json={**BRIEF, field: value})
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"])
        assert (await ada.http.get("/api/experiments")).json()["items"] == []

    @pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
    async def test_numbers_that_json_does_not_have_are_refused(self, ada, constant):
        variant = '{"name":"a","weight":%s,"model_version":"1"}'
        body = '{"name":"t","variants":[' + variant + ',{"name":"b","weight":1,"model_version":"1"}]}'
        response = await ada.http.post(
            "/api/experiments", content=body % constant, headers={"Content-Type": "application/json"}
        )
        assert response.status_code in {400, 422}


class TestList:
    async def test_pages_meet_each_test_once_in_order(self, ada):
        for number in range(5):
            await a_test(ada, f"t{number}")
        names, token = [], None
        while True:
            query = {"page_size": 2, **({"page_token": token} if token else {})}
            body = (await ada.http.get("/api/experiments", params=query)).json()
            names += [item["name"] for item in body["items"]]
            token = body["next_page_token"]
            if token is None:
                break
        assert names == [f"t{number}" for number in range(5)]

    async def test_a_status_selects(self, ada):
        await a_test(ada, "one")
        await a_test(ada, "two", status="draft")
        body = (await ada.http.get("/api/experiments", params={"status": "draft"})).json()
        assert [item["name"] for item in body["items"]] == ["two"]


class TestUpdate:
    async def test_new_weights_make_a_new_allocation_and_move_only_whom_they_must(self, ada):
        await a_test(ada, variants=variants(a=0.5, b=0.25, c=0.25))
        before = {f"u{i}": (await route(ada, f"u{i}"))["variant"] for i in range(300)}
        body = {"variants": [{"name": n, "weight": w} for n, w in [("a", 0.6), ("b", 0.25), ("c", 0.15)]]}
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.json()["allocation_version"] == 2
        after = {unit: await route(ada, unit) for unit in before}
        moved = {(before[unit], after[unit]["variant"]) for unit in before if before[unit] != after[unit]["variant"]}
        assert moved == {("c", "a")}
        assert {answer["allocation_version"] for answer in after.values()} == {2}

    async def test_the_same_weights_again_make_no_new_allocation(self, ada):
        await a_test(ada)
        body = {"variants": [{"name": "control", "weight": 0.5}, {"name": "treatment", "weight": 0.5}]}
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.json()["allocation_version"] == 1

    async def test_a_variant_can_be_added_and_another_retired_while_running(self, ada):
        await a_test(ada)
        body = {
            "variants": [
                {"name": "control", "weight": 0.5},
                {"name": "treatment", "weight": 0},
                {"name": "third", "weight": 0.5, "model_version": "v3"},
            ]
        }
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.status_code == 200, response.text
        seen = {(await route(ada, f"u{i}"))["variant"] for i in range(50)}
        assert seen == {"control", "third"}

    async def test_a_running_variant_keeps_its_model_version(self, ada):
        await a_test(ada)
        body = {
            "variants": [{"name": "control", "weight": 0.5, "model_version": "other"}, {"name": "treatment", "weight": 0.5}]
        }
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.status_code == 409
        assert (await ada.http.get("/api/experiments/model_v2_test")).json()["variants"][0]["model_version"] == "v1.0"

    async def test_a_draft_may_change_its_model_versions(self, ada):
        await a_test(ada, status="draft")
        body = {
            "variants": [{"name": "control", "weight": 0.5, "model_version": "other"}, {"name": "treatment", "weight": 0.5}]
        }
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.json()["variants"][0]["model_version"] == "other"

    @pytest.mark.parametrize(
        "body",
        [
            {"variants": [{"name": "control", "weight": 0.5}, {"name": "new", "weight": 0.5, "model_version": "1"}]},
            {"variants": [{"name": "control", "weight": 0.5}, {"name": "treatment", "weight": 0.6}]},
            {"variants": [*({"name": n, "weight": 0.2} for n in ("control", "treatment")), {"name": "n", "weight": 0.6}]},
            {"traffic_share": 0},
            {"name": "other"},
            {"description": "\x00"},
        ],
    )  # fmt: skip
    async def test_a_change_that_makes_no_sense_is_refused(self, ada, body):
        made = await a_test(ada)
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.status_code == 422
        assert (await ada.http.get("/api/experiments/model_v2_test")).json() == made

    async def test_concurrent_reweightings_are_each_a_version(self, ada):
        await a_test(ada)
        shares = [0.1, 0.2, 0.3, 0.4, 0.6, 0.7]
        await asyncio.gather(
            *(ada.http.patch("/api/experiments/model_v2_test", json={"traffic_share": share}) for share in shares)
        )
        assert (await ada.http.get("/api/experiments/model_v2_test")).json()["allocation_version"] == 1 + len(shares)

    async def test_a_metric_with_outcomes_keeps_its_kind(self, ada):
        await a_test(ada, metrics=[{"name": "clicks", "kind": "count"}])
        await outcomes(ada, {"unit_id": "u", "metric": "clicks", "value": 3})
        body = {"metrics": [{"name": "clicks", "kind": "mean"}]}
        response = await ada.http.patch("/api/experiments/model_v2_test", json=body)
        assert response.status_code == 422

    async def test_a_new_primary_metric_takes_the_place_of_the_old(self, ada):
        await a_test(ada, metrics=[{"name": "one", "is_primary": True}])
        body = {"metrics": [{"name": "two", "kind": "mean", "is_primary": True}]}
        metrics = (await ada.http.patch("/api/experiments/model_v2_test", json=body)).json()["metrics"]
        assert [(m["name"], m["is_primary"]) for m in metrics] == [("two", True), ("one", False)]


class TestLifecycle:
    async def test_a_draft_starts_pauses_goes_on_and_stops(self, ada):
        await a_test(ada, status="draft")
        states = [
            (await ada.http.post(f"/api/experiments/model_v2_test/{action}")).json()["status"]
            for action in ("start", "pause", "start", "stop", "archive")
        ]
        assert states == ["running", "paused", "running", "stopped", "archived"]

    async def test_an_illegal_move_is_a_conflict_that_says_what_is_legal(self, ada):
        await a_test(ada)
        await ada.http.post("/api/experiments/model_v2_test/stop")
        response = await ada.http.post("/api/experiments/model_v2_test/start")
        assert response.status_code == 409
        assert response.json()["code"] == "illegal_transition"
        assert "archived" in response.json()["hint"]

    async def test_the_winner_is_recorded_and_served_to_everyone(self, ada):
        await a_test(ada)
        response = await ada.http.post(
            "/api/experiments/model_v2_test/stop", json={"winner": "treatment", "note": "clearly better"}
        )
        assert (response.json()["winner"], response.json()["note"]) == ("treatment", "clearly better")
        answers = [await route(ada, f"u{i}") for i in range(20)]
        assert {(a["model_version"], a["reason"], a["in_experiment"]) for a in answers} == {("v2.0", "concluded", False)}

    async def test_a_winner_may_be_given_after_the_stop_but_only_once(self, ada):
        await a_test(ada)
        await ada.http.post("/api/experiments/model_v2_test/stop", json={"note": "first look"})
        late = await ada.http.post("/api/experiments/model_v2_test/stop", json={"winner": "treatment"})
        assert (late.json()["winner"], late.json()["note"]) == ("treatment", "first look")
        assert (await route(ada, "u"))["model_version"] == "v2.0"
        again = await ada.http.post("/api/experiments/model_v2_test/stop", json={"winner": "control"})
        assert again.status_code == 409

    async def test_a_winner_must_be_a_variant(self, ada):
        await a_test(ada)
        response = await ada.http.post("/api/experiments/model_v2_test/stop", json={"winner": "nobody"})
        assert response.status_code == 422
        assert (await route(ada, "u"))["reason"] == "split"

    @pytest.mark.parametrize("action", ["start", "pause", "stop", "archive", "restore"])
    async def test_an_unknown_test_is_not_found(self, ada, action):
        assert (await ada.http.post(f"/api/experiments/nobody/{action}")).status_code == 404


class TestDelete:
    async def test_a_deleted_test_is_gone_from_lists_and_routing(self, ada):
        await a_test(ada)
        assert (await ada.http.delete("/api/experiments/model_v2_test")).status_code == 204
        assert (await ada.http.get("/api/experiments/model_v2_test")).status_code == 404
        assert (await ada.http.get("/api/experiments")).json()["items"] == []
        response = await ada.http.get("/api/route", params={"user_id": "u", "experiment": "model_v2_test"})
        assert response.status_code == 404

    async def test_a_restored_test_is_as_it_was_and_units_keep_their_variants(self, ada):
        made = await a_test(ada)
        before = [await route(ada, f"u{i}") for i in range(30)]
        await ada.http.delete("/api/experiments/model_v2_test")
        restored = await ada.http.post("/api/experiments/model_v2_test/restore")
        assert restored.json() == made
        assert [await route(ada, f"u{i}") for i in range(30)] == before

    async def test_a_name_in_use_again_stands_in_the_way_of_restoring(self, ada):
        await a_test(ada)
        await ada.http.delete("/api/experiments/model_v2_test")
        await a_test(ada)
        response = await ada.http.post("/api/experiments/model_v2_test/restore")
        assert response.status_code == 409


class TestProjectsAndRoles:
    async def test_another_project_sees_nothing(self, platform, ada):
        await a_test(ada)
        eve = await platform.caller("ab-testing")
        for method, path in [
            ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/results"), ("GET", "/allocation"),
        ]:  # fmt: skip
            sent: object = {} if method in {"PATCH", "POST"} else None
            response = await eve.http.request(method, f"/api/experiments/model_v2_test{path}", json=sent)
            assert response.status_code == 404, path
        response = await eve.http.get("/api/route", params={"user_id": "u", "experiment": "model_v2_test"})
        assert response.status_code == 404
        assert (await eve.http.get("/api/experiments")).json()["items"] == []

    async def test_a_viewer_routes_and_reads_but_changes_nothing(self, platform, ada):
        await a_test(ada)
        viewer = await platform.caller("ab-testing", Role.VIEWER, project=ada.project)
        await route(viewer, "u")
        assert (await viewer.http.post("/api/experiments", json=BRIEF)).status_code == 403
        assert (await viewer.http.post("/api/experiments/model_v2_test/stop")).status_code == 403

    async def test_a_grant_for_a_name_pattern_opens_only_those_names(self, platform, ada):
        await a_test(ada, "mine-1")
        await a_test(ada, "theirs-1")
        bob = await platform.caller("ab-testing", Role.CONTRIBUTOR, project=ada.project, pattern="mine-*")
        assert [t["name"] for t in (await bob.http.get("/api/experiments")).json()["items"]] == ["mine-1"]
        await route(bob, "u", "mine-1")
        for response in (
            await bob.http.get("/api/route", params={"user_id": "u", "experiment": "theirs-1"}),
            await bob.http.post("/api/experiments", json={**BRIEF, "name": "theirs-2"}),
            await bob.http.delete("/api/experiments/theirs-1"),
        ):
            assert response.status_code == 403


class TestRecord:
    async def test_each_change_is_told_once(self, platform, ada):
        await a_test(ada)
        await ada.http.patch("/api/experiments/model_v2_test", json={"traffic_share": 0.5})
        await ada.http.post("/api/experiments/model_v2_test/stop", json={"winner": "treatment"})
        kinds = [kind for kind, _, _ in await events_of(platform, ada) if kind != "lineage.stated"]
        assert sorted(kinds) == sorted(
            [
                "ab_test.created",
                "ab_test.started",
                "ab_test.reallocated",
                "ab_test.updated",
                "ab_test.stopped",
                "ab_test.concluded",
            ]
        )

    async def test_a_refused_change_is_not_told(self, platform, ada):
        await a_test(ada)
        before = await events_of(platform, ada)
        await ada.http.post("/api/experiments/model_v2_test/archive")
        assert await events_of(platform, ada) == before

    async def test_a_registry_version_is_linked_and_free_text_is_not(self, platform, ada):
        bodies = [("control", "churn/1.0.0"), ("champion", "churn@champion"), ("text", "v1.0")]
        await a_test(
            ada,
            variants=[
                {"name": n, "weight": w, "model_version": v} for (n, v), w in zip(bodies, (0.5, 0.25, 0.25), strict=True)
            ],
        )
        routes = {link for link in await links_of(platform, ada) if link[1] == "routes_to"}
        assert routes == {("variant:model_v2_test/control", "routes_to", "model-version:churn/1.0.0")}

    async def test_a_concluded_test_is_linked_to_its_outcome(self, platform, ada):
        await a_test(ada)
        await ada.http.post("/api/experiments/model_v2_test/stop", json={"winner": "treatment"})
        links = await links_of(platform, ada)
        assert ("ab-test:model_v2_test", "concluded_with", "outcome:model_v2_test") in links
        assert ("outcome:model_v2_test", "favours", "variant:model_v2_test/treatment") in links

    async def test_each_change_leaves_an_audit_entry(self, platform, ada):
        await a_test(ada)
        await expose(ada, {"u": "control"})
        await ada.http.post("/api/experiments/model_v2_test/stop")
        await ada.http.delete("/api/experiments/model_v2_test")
        async with platform.runtime.database.read() as session:
            rows = await session.all(
                text("SELECT action FROM core.audit_entries WHERE project_id = CAST(:p AS uuid)"), {"p": ada.project}
            )
        assert sorted(row.action for row in rows) == ["ab_test.created", "ab_test.deleted", "ab_test.stopped"]


class TestAllocation:
    async def test_a_client_can_assign_as_the_server_does(self, ada):
        await a_test(ada, variants=variants(a=0.3, b=0.7), traffic_share=0.5)
        told = (await ada.http.get("/api/experiments/model_v2_test/allocation")).json()
        for i in range(100):
            digest = hashlib.sha256(f"{told['salt']}\x1fu{i}".encode()).digest()
            traffic, slot = (int.from_bytes(digest[k : k + 8], "big") * told["slots"] // 2**64 for k in (0, 8))
            expected = next(r["variant"] for r in told["ranges"] if r["start"] <= slot < r["end"])
            answer = await route(ada, f"u{i}")
            assert answer["in_experiment"] == (traffic < told["traffic_slots"])
            if answer["in_experiment"]:
                assert answer["variant"] == expected
