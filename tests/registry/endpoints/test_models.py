import asyncio
import json
from urllib.parse import quote

import pytest
from sqlalchemy import func, select, text

from mlops_platform.core.identity import Grant, Principal, PrincipalId, PrincipalKind, Role
from mlops_platform.core.storage.tables import blob_references
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.repository.models import ModelRepository
from mlops_platform.registry.service.models import ModelRegistry
from tests.factories.asgi import exchange, raw_request
from tests.factories.registry import BRIEF, a_ready_version, a_version
from tests.factories.waiting import until

JSON = {"content-type": "application/json"}


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
    async def test_a_new_version_of_a_deleted_model_brings_it_back_on_the_record(self, ada):
        await a_version(ada, version="1")
        await ada.http.delete("/api/models/fraud")
        await a_version(ada, version="2")
        assert (await ada.http.get("/api/models/fraud/versions/1")).status_code == 200
        entries = (await ada.http.get("/api/platform/audit", params={"page_size": 100})).json()["items"]
        of_model = [entry["action"] for entry in entries if entry["action"].startswith("model.")]
        assert sorted(of_model) == ["model.created", "model.deleted", "model.restored"]

    async def test_a_deleted_model_is_gone_until_it_is_restored(self, ada):
        await a_version(ada, version="1")
        assert (await ada.http.delete("/api/models/fraud")).status_code == 204
        assert (await ada.http.get("/api/models/fraud/versions/1")).status_code == 404
        assert (await ada.http.post("/api/models/fraud/restore")).status_code == 200
        assert (await ada.http.get("/api/models/fraud/versions/1")).status_code == 200


async def names(caller, query=""):
    return [item["name"] for item in (await caller.http.get(f"/api/models{query}")).json()["items"]]


class TestFilters:
    @pytest.fixture
    async def three(self, ada):
        await a_version(ada, "one", version="1", framework="sklearn", tags=["eu"])
        await a_version(ada, "one", version="2", framework="torch")
        await a_version(ada, "two", version="1", framework="torch", tags=["eu"])
        await a_version(ada, "a-three", version="1")
        await ada.http.post("/api/models/two/versions/1/finalize")
        await ada.http.put("/api/models/one/aliases/champion", json={"version": "2"})
        return ada

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("framework=torch", ["one", "two"]), ("framework=none", []), ("status=ready", ["two"]),
            ("status=pending", ["a-three", "one"]), ("alias=champion", ["one"]), ("alias=nobody", []),
            ("framework=torch&tags=eu", ["two"]), ("alias=champion&framework=sklearn", ["one"]),
            ("order=newest", ["a-three", "two", "one"]), ("order=newest&framework=torch", ["two", "one"]),
        ],
    )  # fmt: skip
    async def test_models_are_found_by_one_version_that_is_all_that_is_asked(self, three, query, expected):
        assert await names(three, f"?{query}") == expected

    @pytest.mark.parametrize(
        ("query", "expected"),
        [("", ["2", "1"]), ("framework=torch", ["2"]), ("alias=champion", ["2"]), ("status=ready", []), ("tags=eu", ["1"])],
    )
    async def test_versions_are_found_the_same_way(self, three, query, expected):
        response = await three.http.get(f"/api/models/one/versions?{query}")
        assert [version["version"] for version in response.json()["items"]] == expected

    @pytest.mark.parametrize(
        "query", ["status=x", "order=x", "alias=..", "framework=%00", "tags=%00", "alias=", "framework=" + "x" * 101]
    )
    async def test_a_bad_filter_is_named(self, ada, query):
        response = await ada.http.get(f"/api/models?{query}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == query.partition("=")[0]

    async def test_pages_of_the_newest_meet_each_model_once(self, three):
        first = (await three.http.get("/api/models?order=newest&page_size=2")).json()
        rest = (await three.http.get(f"/api/models?order=newest&page_token={first['next_page_token']}")).json()
        assert [model["name"] for model in first["items"] + rest["items"]] == ["a-three", "two", "one"]

    @pytest.mark.parametrize(
        "path", ["/api/models?order=newest", "/api/models/one/versions?a=1", "/api/models/one/versions/1/artifacts?a=1"]
    )
    async def test_a_token_of_another_list_is_refused(self, three, path):
        token = (await three.http.get("/api/models?page_size=1")).json()["next_page_token"]
        response = await three.http.get(f"{path}&page_token={token}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "page_token"


class TestPurge:
    async def test_a_purged_version_is_gone_with_its_content(self, ada, runtime):
        await a_ready_version(ada, {"a": b"1", "b": b"2"})
        assert (await ada.http.delete("/api/models/fraud/versions/1")).status_code == 204
        assert (await ada.http.delete("/api/models/fraud/versions/1?purge=true")).status_code == 204
        assert (await ada.http.post("/api/models/fraud/versions/1/restore")).status_code == 404
        assert await held(runtime, ada) == 0
        assert (await a_version(ada, version="1"))["status"] == "pending"
        assert (await ada.http.get("/api/models/fraud/versions/1/artifacts")).json()["items"] == []

    async def test_content_that_another_version_shares_stays(self, ada, runtime):
        await a_ready_version(ada, {"a": b"shared"})
        await a_version(ada, version="2")
        await ada.http.put("/api/models/fraud/versions/2/artifacts/a", content=b"shared")
        await ada.http.delete("/api/models/fraud/versions/1?purge=true")
        assert await held(runtime, ada) == 1
        assert (await ada.http.get("/api/models/fraud/versions/2/artifacts/a")).content == b"shared"

    async def test_an_aliased_version_is_not_purged(self, ada, runtime):
        await a_ready_version(ada, {"a": b"1"})
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        assert (await ada.http.delete("/api/models/fraud/versions/1?purge=true")).status_code == 409
        assert await held(runtime, ada) == 1

    async def test_a_purged_model_takes_everything_with_it(self, ada, runtime):
        await a_ready_version(ada, {"a": b"1"})
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        await ada.http.delete("/api/models/fraud")
        assert (await ada.http.delete("/api/models/fraud?purge=true")).status_code == 204
        assert (await ada.http.delete("/api/models/fraud?purge=true")).status_code == 404
        assert (await ada.http.post("/api/models/fraud/restore")).status_code == 404
        assert await held(runtime, ada) == 0
        assert (await a_version(ada))["version"] == "1"
        assert (await ada.http.get("/api/models/fraud")).json()["aliases"] == {}

    async def test_a_version_that_waited_for_a_purge_makes_the_model_anew(self, ada, runtime):
        await a_version(ada, version="1")
        grants = (Grant(Role.SERVICE),)
        principal = Principal(PrincipalId("0" * 32), "t", PrincipalKind.SERVICE, ada.project, grants)

        async def is_waiting():
            async with runtime.database.read() as session:
                activity = (
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                return await session.scalar(text(activity))

        async with runtime.database.write() as session:
            models = ModelRepository(session, principal)
            model = await models.model("fraud")
            assert model is not None
            await models.lock_model(model.id)
            creating = asyncio.create_task(ada.http.post("/api/models", json={"name": "fraud"}))
            await until(is_waiting)
            await ModelRegistry(UnitOfWork(session, principal, runtime.clock)).purge_model("fraud", runtime.blobs)
        response = await creating
        assert (response.status_code, response.json()["version"]) == (201, "1")

    async def test_only_an_admin_purges(self, ada, platform, runtime):
        await a_ready_version(ada, {"a": b"1"})
        bob = await platform.caller("model-registry", Role.PROMOTER, project=ada.project)
        for path in ("/api/models/fraud", "/api/models/fraud/versions/1"):
            response = await bob.http.delete(f"{path}?purge=true")
            assert response.status_code == 403
            assert "models:admin" in response.json()["detail"]
        assert await held(runtime, ada) == 1

    async def test_uploads_that_race_with_a_purge_leave_nothing_held(self, ada, runtime):
        await a_version(ada, version="1")
        uploads = [ada.http.put(f"/api/models/fraud/versions/1/artifacts/f{n}", content=b"x" * n) for n in range(8)]
        answers = await asyncio.gather(*uploads[:4], ada.http.delete("/api/models/fraud?purge=true"), *uploads[4:])
        assert {answer.status_code for answer in answers} <= {201, 204, 404}
        assert await held(runtime, ada) == 0


async def held(runtime, caller):
    """How many files of the caller's project hold content."""
    async with runtime.database.read() as session:
        mine = blob_references.c.project_id == caller.project
        return await session.scalar(select(func.count()).select_from(blob_references).where(mine))


class TestUpdate:
    async def test_words_about_a_version_change_also_when_it_is_ready(self, ada):
        before = await a_ready_version(ada, {"a": b"1"}, tags=["old"])
        response = await ada.http.patch(
            "/api/models/fraud/versions/1", json={"description": "better", "tags": ["new", "new", "x"]}
        )
        changed = {"description": "better", "tags": ["new", "x"]}
        assert response.json() == {**before, **changed, "updated_at": response.json()["updated_at"]}
        kept = (await ada.http.patch("/api/models/fraud/versions/1", json={})).json()
        assert (kept["description"], kept["tags"]) == ("better", ["new", "x"])

    async def test_a_model_gets_a_description(self, ada):
        await a_version(ada)
        assert (await ada.http.patch("/api/models/fraud", json={"description": "d"})).json()["description"] == "d"

    async def test_what_is_not_there_cannot_be_changed(self, ada):
        await a_version(ada, version="1")
        for method, path in (
            ("PATCH", "/api/models/other"), ("PATCH", "/api/models/fraud/versions/2"), ("DELETE", "/api/models/other"),
            ("POST", "/api/models/other/restore"), ("POST", "/api/models/fraud/versions/2/restore"),
            ("DELETE", "/api/models/fraud/versions/2"), ("DELETE", "/api/models/fraud/versions/2?purge=true"),
            ("DELETE", "/api/models/fraud/aliases/nobody"), ("DELETE", "/api/models/other/aliases/a"),
            ("POST", "/api/models/fraud/versions/2/finalize"), ("GET", "/api/models/other/versions"),
            ("GET", "/api/models/fraud/versions/2/download"), ("GET", "/api/models/fraud/aliases/nobody"),
        ):  # fmt: skip
            response = await ada.http.request(method, path, json={} if method == "PATCH" else None)
            assert (response.status_code, method, path) == (404, method, path)
            assert response.headers["content-type"] == "application/problem+json"

    async def test_a_restored_version_is_as_it_was_and_restoring_twice_is_no_error(self, ada):
        before = await a_ready_version(ada, {"a": b"1"})
        await ada.http.delete("/api/models/fraud/versions/1")
        for _ in range(2):
            assert (await ada.http.post("/api/models/fraud/versions/1/restore")).json() == before
            assert (await ada.http.post("/api/models/fraud/restore")).status_code == 200


CORPUS = [
    "../../etc/passwd", "..%2f..%2f", "..\\..\\x", "a\x00b", "", " ", ".", "..", "a" * 20_000, "a/b", "\r\nSet-Cookie: a=b",
    "'; DROP TABLE registry.aliases; --", "{{7*7}}", "${jndi:ldap://x}", "<script>", "%s%n", "\u202egpj.exe", "e\u0301",
    "\ufeff", "\U0001f4a9", "\ud800", "NaN", "null", "-1", "1e999", "0x10",
]  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("field", ["name", "version", "framework", "description", "run_id", "training_set_id"])
    async def test_a_string_of_a_new_version_is_stored_exactly_or_refused_by_name(self, ada, field):
        accepted = 0
        for number, value in enumerate(CORPUS):
            body = json.dumps({"name": "fraud", "version": f"v{number}", field: value}).encode()
            response = await ada.http.post("/api/models", content=body, headers=JSON)
            if response.status_code == 201:
                accepted += 1
                assert response.json()[field] == value
            else:
                check_refusal(response, field, value)
        models = (await ada.http.get("/api/models")).json()["items"]
        assert sum(model["version_count"] for model in models) == accepted

    @pytest.mark.parametrize("field", ["metrics", "params", "tags"])
    async def test_a_key_or_tag_is_stored_exactly_or_refused_by_name(self, ada, field):
        for value in CORPUS:
            given = [value] if field == "tags" else {value: 1}
            body = json.dumps({"name": "fraud", field: given}).encode()
            response = await ada.http.post("/api/models", content=body, headers=JSON)
            if response.status_code == 201:
                assert response.json()[field] == given
            else:
                check_refusal(response, field, value)

    @pytest.mark.parametrize(
        ("method", "path", "field"),
        [
            ("PATCH", "/api/models/fraud", "description"), ("PATCH", "/api/models/fraud/versions/1", "description"),
            ("PUT", "/api/models/fraud/aliases/champion", "version"),
        ],
    )  # fmt: skip
    async def test_a_string_of_a_change_never_crashes(self, ada, method, path, field):
        await a_version(ada, version="1")
        for value in CORPUS:
            response = await ada.http.request(method, path, content=json.dumps({field: value}).encode(), headers=JSON)
            if response.status_code not in {200, 404}:
                check_refusal(response, field, value)

    @pytest.mark.parametrize(
        "path",
        [
            "/api/models/{}", "/api/models/fraud/versions/{}", "/api/models/fraud/aliases/{}",
            "/api/models/fraud/versions/{}/artifacts", "/api/models/{}/versions/1/download",
            "/api/models/fraud/aliases/{}/lineage",
        ],
    )  # fmt: skip
    async def test_a_name_in_a_path_is_refused_or_not_found(self, ada, path):
        for value in CORPUS:
            if not value or value == "\ud800":
                continue  # one names the list, the other no URL can say
            scope = raw_request(ada, "GET", path.format(quote(value, safe="")))
            status, headers, _ = await exchange(ada, scope, body=[b""])
            assert (status in {404, 422}, value[:40]) == (True, value[:40])
            assert headers["content-type"] == "application/problem+json"

    async def test_the_api_describes_itself(self, ada):
        document = (await ada.http.get("/openapi.json")).json()
        upload = document["paths"]["/api/models/{name}/versions/{version}/artifacts/{path}"]["put"]
        assert "application/octet-stream" in upload["requestBody"]["content"]
        assert "/api/lineage" in document["paths"]


def check_refusal(response, field, value):
    assert response.status_code in {400, 422}, (value[:40], response.text)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 400 or any(error["field"].startswith(field) for error in problem["errors"])
