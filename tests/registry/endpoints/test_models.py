import asyncio

import pytest
from tests.conftest import Caller, Platform
from tests.factories.registry import BRIEF, a_version

from mlops_platform.core.identity import Role


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("model-registry")


class TestCreateVersion:
    async def test_the_briefs_request_makes_model_and_version(self, ada):
        response = await ada.http.post("/api/models", json=BRIEF)
        assert response.status_code == 201
        assert response.headers["location"] == "/api/models/my-classifier-v1/versions/1.0.0"
        body = response.json()
        assert {name: body[name] for name in BRIEF} == BRIEF
        assert body["status"] == "pending"
        again = await ada.http.get("/api/models/my-classifier-v1/versions/1.0.0")
        assert again.json() == body

    async def test_the_same_version_twice_is_a_conflict_and_changes_nothing(self, ada):
        await ada.http.post("/api/models", json=BRIEF)
        response = await ada.http.post("/api/models", json={**BRIEF, "framework": "other"})
        assert response.status_code == 409
        assert response.json()["code"] == "model_version_taken"
        assert response.headers["content-type"] == "application/problem+json"
        kept = await ada.http.get("/api/models/my-classifier-v1/versions/1.0.0")
        assert kept.json()["framework"] == "scikit-learn"

    async def test_of_twenty_at_once_one_wins(self, ada):
        answers = await asyncio.gather(*(ada.http.post("/api/models", json=BRIEF) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19

    async def test_without_a_version_the_next_whole_number_is_given(self, ada):
        assert (await a_version(ada, version="7"))["version"] == "7"
        assert (await a_version(ada))["version"] == "8"

    async def test_nan_and_infinity_in_metrics_are_kept_exactly(self, ada):
        metrics = {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.1}
        assert (await a_version(ada, metrics=metrics))["metrics"] == metrics

    async def test_a_deleted_versions_label_stays_taken(self, ada):
        await a_version(ada, version="1")
        await ada.http.delete("/api/models/fraud/versions/1")
        response = await ada.http.post("/api/models", json={"name": "fraud", "version": "1"})
        assert response.status_code == 409

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", "../../etc/passwd"), ("name", ""), ("name", "a" * 129), ("name", "a\x00b"), ("name", 7),
            ("version", "1/2"), ("version", ""), ("metrics", {"a": "fast"}), ("metrics", {"a": True}),
            ("metrics", [1]), ("tags", "production"), ("tags", [""]), ("tags", ["x" * 251]), ("params", {"a": "\x00"}),
            ("params", {"a": 2**63}), ("description", 1), ("run_id", "nope"), ("unknown", 1),
        ],
    )  # fmt: skip
    async def test_a_bad_field_is_named_and_nothing_is_written(self, ada, field, value):
        response = await ada.http.post("/api/models", json={**BRIEF, field: value})
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"])
        assert (await ada.http.get("/api/models")).json()["items"] == []


class TestListModels:
    async def test_tags_find_models_with_a_version_that_carries_them_all(self, ada):
        await a_version(ada, "one", tags=["production", "eu"])
        await a_version(ada, "two", tags=["production"])
        await a_version(ada, "two", tags=["eu"])
        await a_version(ada, "three")
        assert await names(ada, "?tags=production") == ["one", "two"]
        assert await names(ada, "?tags=production,eu") == ["one"]

    async def test_pages_meet_each_model_once(self, ada):
        for number in range(7):
            await a_version(ada, f"m{number}")
        seen, more = [], "?page_size=3"
        while more:
            body = (await ada.http.get(f"/api/models{more}")).json()
            seen += [item["name"] for item in body["items"]]
            more = f"?page_size=3&page_token={body['next_page_token']}" if body["next_page_token"] else ""
        assert seen == [f"m{number}" for number in range(7)]

    async def test_a_forged_page_token_is_refused(self, ada):
        response = await ada.http.get("/api/models?page_token=AAAAAAAAAAAAAAAA")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "page_token"

    async def test_a_model_tells_of_its_versions_tags_and_aliases(self, ada):
        await a_version(ada, version="1", tags=["b"])
        await a_version(ada, version="2", tags=["a"])
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        model = (await ada.http.get("/api/models/fraud")).json()
        assert model["version_count"] == 2
        assert model["latest_version"] == "2"
        assert model["tags"] == ["a", "b"]
        assert model["aliases"] == {"champion": "1"}


class TestProjects:
    async def test_another_projects_model_does_not_exist(self, ada, platform):
        await a_version(ada, version="1")
        eve = await platform.caller("model-registry")
        assert (await eve.http.get("/api/models/fraud")).status_code == 404
        assert (await eve.http.get("/api/models/fraud/versions/1")).status_code == 404
        assert (await eve.http.delete("/api/models/fraud")).status_code == 404
        assert (await eve.http.put("/api/models/fraud/aliases/a", json={"version": "1"})).status_code == 404
        assert await names(eve) == []

    async def test_a_grant_limited_to_names_shows_and_takes_only_those(self, ada, platform):
        await a_version(ada, "fraud-eu")
        await a_version(ada, "churn")
        bob = await platform.caller("model-registry", Role.CONTRIBUTOR, project=ada.project, pattern="fraud-*")
        assert await names(bob) == ["fraud-eu"]
        assert (await bob.http.get("/api/models/churn")).status_code == 403
        assert (await bob.http.post("/api/models", json={"name": "churn"})).status_code == 403
        assert (await bob.http.post("/api/models", json={"name": "fraud-us"})).status_code == 201


class TestAliases:
    async def test_an_alias_moves_and_never_points_nowhere(self, ada):
        for version in ("1", "2"):
            await a_version(ada, version=version)
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})

        async def move(version):
            return await ada.http.put("/api/models/fraud/aliases/champion", json={"version": version})

        async def look():
            return await ada.http.get("/api/models/fraud/aliases/champion")

        answers = await asyncio.gather(*(move("2") if n % 3 else look() for n in range(30)))
        assert {answer.status_code for answer in answers} == {200}
        assert (await look()).json()["version"] == "2"

    async def test_a_contributor_may_not_move_one(self, ada, platform):
        await a_version(ada, version="1")
        bob = await platform.caller("model-registry", Role.CONTRIBUTOR, project=ada.project)
        response = await bob.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        assert response.status_code == 403
        assert "models:promote" in response.json()["detail"]

    async def test_an_aliased_version_cannot_be_deleted(self, ada):
        await a_version(ada, version="1")
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        assert (await ada.http.delete("/api/models/fraud/versions/1")).status_code == 409
        assert (await ada.http.delete("/api/models/fraud/aliases/champion")).status_code == 204
        assert (await ada.http.delete("/api/models/fraud/versions/1")).status_code == 204


class TestDeleteAndRestore:
    async def test_a_deleted_model_is_gone_until_it_is_restored(self, ada):
        await a_version(ada, version="1")
        assert (await ada.http.delete("/api/models/fraud")).status_code == 204
        assert (await ada.http.get("/api/models/fraud/versions/1")).status_code == 404
        assert (await ada.http.post("/api/models/fraud/restore")).status_code == 200
        assert (await ada.http.get("/api/models/fraud/versions/1")).status_code == 200


async def names(caller, query=""):
    return [item["name"] for item in (await caller.http.get(f"/api/models{query}")).json()["items"]]
