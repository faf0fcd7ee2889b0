import asyncio

import pytest
from tests.conftest import Caller, Platform
from tests.factories.features import BRIEF, a_feature_set

from mlops_platform.core.identity import Role

AGE = {"name": "age", "type": "int"}
SESSION = {"name": "avg_session_duration", "type": "float"}
CITY = {"name": "city", "type": "string"}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


async def names(caller: Caller, query: str = "") -> list[str]:
    return [item["name"] for item in (await caller.http.get(f"/api/feature-sets{query}")).json()["items"]]


class TestCreate:
    async def test_the_briefs_request_makes_a_feature_set(self, ada):
        response = await ada.http.post("/api/feature-sets", json=BRIEF)
        assert response.status_code == 201, response.text
        assert response.headers["location"] == "/api/feature-sets/user_features"
        body = response.json()
        assert {key: body[key] for key in ("name", "description")} == {"name": "user_features", "description": "..."}
        assert [(f["name"], f["type"]) for f in body["features"]] == [("age", "int"), ("avg_session_duration", "float")]
        assert (body["entity"], body["version"], body["online"], body["ttl_seconds"]) == ("entity_id", 1, True, None)
        assert (await ada.http.get("/api/feature-sets/user_features")).json() == body

    async def test_a_taken_name_is_a_conflict_even_after_deletion(self, ada):
        await a_feature_set(ada)
        assert (await ada.http.post("/api/feature-sets", json=BRIEF)).status_code == 409
        await ada.http.delete("/api/feature-sets/user_features")
        response = await ada.http.post("/api/feature-sets", json=BRIEF)
        assert (response.status_code, response.json()["code"]) == (409, "feature_set_name_taken")

    async def test_of_ten_at_once_one_wins(self, ada):
        answers = await asyncio.gather(*(ada.http.post("/api/feature-sets", json=BRIEF) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "../../etc/passwd"), ("name", ""), ("name", "a" * 129), ("name", "a\x00b"), ("name", 7),
            ("description", 1), ("description", "\x00"), ("features", []), ("features", "age"), ("features", None),
            ("features", [{"name": "age"}]), ("features", [{"name": "age", "type": "decimal"}]),
            ("features", [AGE, AGE]), ("features", [{"name": "a:b", "type": "int"}]),
            ("features", [{"name": "event_timestamp", "type": "timestamp"}]), ("features", [{**AGE, "x": 1}]),
            ("features", [{"name": f"f{i}", "type": "int"} for i in range(1001)]),
            ("ttl_seconds", 0), ("ttl_seconds", -1), ("ttl_seconds", 1.5), ("ttl_seconds", 10**12), ("ttl_seconds", "1d"),
            ("online", "maybe"), ("tags", "x"), ("tags", [""]), ("owner", ""), ("entity", "a b"), ("unknown", 1),
        ],
    )  # fmt: skip
    async def test_a_bad_field_is_named_and_nothing_is_written(self, ada, field, value):
        response = await ada.http.post("/api/feature-sets", json={**BRIEF, field: value})
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"])
        assert await names(ada) == []

    @pytest.mark.parametrize("entity", ["age", "event_timestamp"])
    async def test_the_entity_column_is_nothing_else(self, ada, entity):
        assert (await ada.http.post("/api/feature-sets", json={**BRIEF, "entity": entity})).status_code == 422


class TestUpdate:
    async def test_an_added_feature_makes_version_two(self, ada):
        await a_feature_set(ada)
        response = await ada.http.patch("/api/feature-sets/user_features", json={"features": [AGE, SESSION, CITY]})
        assert response.status_code == 200, response.text
        assert response.json()["version"] == 2
        versions = (await ada.http.get("/api/feature-sets/user_features/versions")).json()["items"]
        assert [(v["version"], len(v["features"])) for v in versions] == [(2, 3), (1, 2)]

    @pytest.mark.parametrize("features", [[AGE], [AGE, {**SESSION, "type": "int"}]], ids=["removed", "retyped"])
    async def test_taking_a_feature_away_needs_consent(self, ada, features):
        await a_feature_set(ada)
        refused = await ada.http.patch("/api/feature-sets/user_features", json={"features": features})
        assert (refused.status_code, refused.json()["code"]) == (409, "schema_change_refused")
        assert (await ada.http.get("/api/feature-sets/user_features")).json()["version"] == 1
        agreed = await ada.http.patch("/api/feature-sets/user_features", json={"features": features, "new_version": True})
        assert (agreed.status_code, agreed.json()["version"]) == (200, 2)

    async def test_words_tags_and_ttl_change_without_a_new_version(self, ada):
        await a_feature_set(ada, ttl_seconds=60)
        change = {"description": "new", "tags": ["b", "a", "b"], "owner": "ada", "ttl_seconds": None, "online": False}
        body = (await ada.http.patch("/api/feature-sets/user_features", json=change)).json()
        assert {key: body[key] for key in change} == {**change, "tags": ["a", "b"]}
        assert body["version"] == 1

    async def test_an_empty_change_changes_nothing(self, ada):
        before = await a_feature_set(ada, ttl_seconds=60, tags=["x"])
        after = (await ada.http.patch("/api/feature-sets/user_features", json={})).json()
        assert {**after, "updated_at": None} == {**before, "updated_at": None}

    async def test_two_additions_at_once_both_count_or_one_is_refused(self, ada):
        await a_feature_set(ada)
        wanted = [[AGE, SESSION, CITY], [AGE, SESSION, {"name": "vip", "type": "bool"}]]
        answers = await asyncio.gather(
            *(ada.http.patch("/api/feature-sets/user_features", json={"features": features}) for features in wanted)
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]


class TestDeleteAndList:
    async def test_a_deleted_set_is_gone_until_it_is_restored(self, ada):
        await a_feature_set(ada)
        assert (await ada.http.delete("/api/feature-sets/user_features")).status_code == 204
        assert (await ada.http.get("/api/feature-sets/user_features")).status_code == 404
        assert await names(ada) == []
        assert await names(ada, "?deleted=true") == ["user_features"]
        assert (await ada.http.post("/api/feature-sets/user_features/restore")).status_code == 200
        assert await names(ada) == ["user_features"]

    async def test_filters_and_pages(self, ada):
        for number in range(5):
            await a_feature_set(ada, f"s{number}", tags=["even" if number % 2 == 0 else "odd", "all"], owner=f"o{number}")
        assert await names(ada, "?tags=even,all") == ["s0", "s2", "s4"]
        assert await names(ada, "?owner=o3") == ["s3"]
        first = (await ada.http.get("/api/feature-sets?page_size=3")).json()
        rest = (await ada.http.get(f"/api/feature-sets?page_size=3&page_token={first['next_page_token']}")).json()
        assert [item["name"] for item in first["items"] + rest["items"]] == [f"s{number}" for number in range(5)]
        assert rest["next_page_token"] is None

    async def test_another_projects_set_does_not_exist(self, ada, platform):
        await a_feature_set(ada)
        eve = await platform.caller("feature-store")
        path = "/api/feature-sets/user_features"
        answers = [
            await eve.http.get(path),
            await eve.http.patch(path, json={}),
            await eve.http.delete(path),
            await eve.http.post(f"{path}/restore"),
            await eve.http.get(f"{path}/versions"),
            await eve.http.post(f"{path}/rows", json={"rows": []}),
            await eve.http.post(f"{path}/materialize", json={}),
        ]
        assert [answer.status_code for answer in answers] == [404] * 7
        assert await names(eve) == []

    async def test_a_grant_limited_to_names_shows_and_takes_only_those(self, ada, platform):
        await a_feature_set(ada, "user_a")
        await a_feature_set(ada, "shop_a")
        bob = await platform.caller("feature-store", Role.CONTRIBUTOR, project=ada.project, pattern="user_*")
        assert await names(bob) == ["user_a"]
        assert (await bob.http.get("/api/feature-sets/shop_a")).status_code == 403
        assert (await bob.http.post("/api/feature-sets", json={**BRIEF, "name": "shop_b"})).status_code == 403
        assert (await bob.http.post("/api/feature-sets/shop_a/rows", json={"rows": []})).status_code == 403

    async def test_a_viewer_reads_and_does_not_write(self, ada, platform):
        await a_feature_set(ada)
        vic = await platform.caller("feature-store", Role.VIEWER, project=ada.project)
        assert (await vic.http.get("/api/feature-sets/user_features")).status_code == 200
        assert (await vic.http.post("/api/feature-sets", json={**BRIEF, "name": "x"})).status_code == 403
        assert (await vic.http.post("/api/feature-sets/user_features/rows", json={"rows": []})).status_code == 403
        assert (await vic.http.post("/api/training-sets", json={})).status_code == 403
