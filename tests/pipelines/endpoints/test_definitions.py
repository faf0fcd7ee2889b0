"""Pipelines, versions and schedules over HTTP."""

import asyncio

import pytest

from mlops_platform.contracts.pipelines import MAX_TASKS
from mlops_platform.core.identity import Role
from tests.conftest import Caller, Platform
from tests.factories.pipelines import a_pipeline, a_task


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("pipeline-orchestrator")


class TestPost:
    async def test_new_content_is_a_version_and_known_content_is_the_version_that_it_was(self, ada):
        first = await a_pipeline(ada, a_task("a", value=1), description="d")
        second = await a_pipeline(ada, a_task("a", value=2))
        again = await ada.http.post("/api/pipelines", json={"name": "p", "tasks": [a_task("a", value=1)]})
        assert (first["version"], second["version"]) == (1, 2)
        assert (again.status_code, again.json()) == (200, first)
        assert again.headers["location"] == "/api/pipelines/p/versions/1"
        pipeline = (await ada.http.get("/api/pipelines/p")).json()
        assert (pipeline["current_version"], pipeline["description"]) == (1, "d")

    async def test_of_twenty_at_once_one_makes_the_version(self, ada):
        body = {"name": "p", "tasks": [a_task("a", value=1)]}
        answers = await asyncio.gather(*(ada.http.post("/api/pipelines", json=body) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]

    async def test_a_cycle_is_refused_with_its_tasks_named_and_nothing_is_written(self, ada):
        tasks = [a_task("a", depends_on=["b"]), a_task("b", depends_on=["a"])]
        response = await ada.http.post("/api/pipelines", json={"name": "p", "tasks": tasks})
        assert (response.status_code, response.json()["code"]) == (422, "pipeline_invalid")
        assert "a -> b -> a" in response.json()["detail"]
        assert response.json()["errors"][0]["field"] == "tasks.0.depends_on"
        assert (await ada.http.get("/api/pipelines")).json()["items"] == []

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": "../x"}, "name"),
            ({"tasks": []}, "tasks"),
            ({"tasks": [{"name": "a", "entry_point": "os.system"}]}, "tasks.0.entry_point"),
            ({"tasks": [{"name": "a", "entry_point": "m:f.g"}]}, "tasks.0.entry_point"),
            ({"tasks": [a_task("a", retries=-1)]}, "tasks.0.retries"),
            ({"tasks": [a_task("a", timeout_seconds=0)]}, "tasks.0.timeout_seconds"),
            ({"tasks": [a_task("a", value="a\x00b")]}, "tasks.0.arguments"),
            ({"tasks": [a_task("a", value=2**70)]}, "tasks.0.arguments"),
            ({"parameters": {"x": {"type": "integer", "default": "1"}}}, "parameters.x.default"),
            ({"parameters": {"x y": {"type": "integer"}}}, "parameters"),
            ({"schedule": {"cron": "61 * * * *"}}, "schedule.cron"),
            ({"schedule": {"cron": "@daily", "time_zone": "Mars"}}, "schedule.time_zone"),
            ({"schedule": {"cron": "@daily", "parameters": {"typo": 1}}}, "schedule.parameters.typo"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    async def test_a_bad_field_is_named_and_nothing_is_written(self, ada, change, field):
        response = await ada.http.post("/api/pipelines", json={"name": "p", "tasks": [a_task("a", value=1)], **change})
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"]), response.text
        assert (await ada.http.get("/api/pipelines")).json()["items"] == []

    async def test_the_version_comes_back_as_it_was_posted(self, ada):
        tasks = [
            a_task("a", value="${params.x}", retries=2, timeout_seconds=5.5, resources={"cpus": 0.5}),
            a_task("b", for_each=[1, None], value="${item}", depends_on=["a"]),
        ]
        await a_pipeline(ada, *tasks, parameters={"x": {"type": "array", "default": [1, {"y": None}]}})
        version = (await ada.http.get("/api/pipelines/p/versions/1")).json()
        assert [task["name"] for task in version["tasks"]] == ["a", "b"]
        for posted, found in zip(tasks, version["tasks"], strict=True):
            resources = found["resources"] | posted.get("resources", {})
            assert found | posted | {"resources": resources} == found
        assert version["parameters"]["x"]["default"] == [1, {"y": None}]


class TestLifeOfAPipeline:
    async def test_a_deleted_pipeline_is_hidden_keeps_its_name_and_comes_back(self, ada):
        await a_pipeline(ada, a_task("a", value=1), schedule={"cron": "@daily"})
        assert (await ada.http.delete("/api/pipelines/p")).status_code == 204
        assert (await ada.http.get("/api/pipelines/p")).status_code == 404
        assert (await ada.http.post("/api/pipelines/p/runs", json={})).status_code == 404
        response = await ada.http.post("/api/pipelines", json={"name": "p", "tasks": [a_task("a", value=2)]})
        assert (response.status_code, response.json()["code"]) == (409, "pipeline_deleted")
        assert len((await ada.http.get("/api/pipelines?deleted=true")).json()["items"]) == 1
        restored = await ada.http.post("/api/pipelines/p/restore")
        assert (restored.status_code, restored.json()["current_version"]) == (200, 1)

    async def test_the_description_changes_without_a_version(self, ada):
        await a_pipeline(ada, a_task("a", value=1))
        response = await ada.http.patch("/api/pipelines/p", json={"description": "new"})
        assert (response.json()["description"], response.json()["current_version"]) == ("new", 1)

    async def test_pages_meet_each_pipeline_once(self, ada):
        for name in ("b", "a", "C", "d"):
            await a_pipeline(ada, a_task("a", value=1), name=name)
        seen, query = [], "?page_size=3"
        while query:
            page = (await ada.http.get(f"/api/pipelines{query}")).json()
            seen += [item["name"] for item in page["items"]]
            query = f"?page_size=3&page_token={page['next_page_token']}" if page["next_page_token"] else ""
        assert seen == ["C", "a", "b", "d"]

    async def test_every_change_is_audited_in_its_own_words(self, ada):
        await a_pipeline(ada, a_task("a", value=1), schedule={"cron": "@daily"})
        run = (await ada.http.post("/api/pipelines/p/runs", json={})).json()
        await ada.http.post(f"/api/pipeline-runs/{run['id']}/cancel")
        await ada.http.delete("/api/pipelines/p")
        items = (await ada.http.get("/api/platform/audit")).json()["items"]
        assert [item["action"] for item in reversed(items)] == [
            "pipeline.created",
            "pipeline_version.created",
            "schedule.updated",
            "pipeline_run.created",
            "pipeline_run.cancelled",
            "pipeline.deleted",
        ]


class TestSchedule:
    async def test_it_is_set_paused_resumed_and_removed(self, ada):
        await a_pipeline(ada, a_task("a", value=1))
        put = await ada.http.put("/api/pipelines/p/schedule", json={"cron": "0 3 * * *", "time_zone": "Europe/Paris"})
        assert put.status_code == 200
        assert put.json()["next_at"] is not None
        paused = await ada.http.patch("/api/pipelines/p/schedule", json={"is_paused": True})
        assert (paused.json()["is_paused"], paused.json()["next_at"]) == (True, None)
        resumed = await ada.http.patch("/api/pipelines/p/schedule", json={"is_paused": False})
        assert resumed.json()["next_at"] == put.json()["next_at"]
        assert (await ada.http.delete("/api/pipelines/p/schedule")).status_code == 204
        assert (await ada.http.get("/api/pipelines/p/schedule")).status_code == 404

    async def test_a_document_without_one_leaves_it_as_it_is(self, ada):
        await a_pipeline(ada, a_task("a", value=1), schedule={"cron": "@daily"})
        await a_pipeline(ada, a_task("a", value=2))
        assert (await ada.http.get("/api/pipelines/p/schedule")).json()["cron"] == "@daily"


class TestWhoMay:
    async def test_another_projects_pipeline_does_not_exist(self, ada, platform):
        await a_pipeline(ada, a_task("a", value=1))
        run = (await ada.http.post("/api/pipelines/p/runs", json={})).json()["id"]
        eve = await platform.caller("pipeline-orchestrator")
        for path in ("/api/pipelines/p", "/api/pipelines/p/versions/1", f"/api/pipeline-runs/{run}"):
            assert (await eve.http.get(path)).status_code == 404
        for path in ("/tasks", "/tasks/a", "/tasks/a/logs"):
            assert (await eve.http.get(f"/api/pipeline-runs/{run}{path}")).status_code == 404
        assert (await eve.http.post(f"/api/pipeline-runs/{run}/cancel")).status_code == 404
        assert (await eve.http.get("/api/pipeline-runs")).json()["items"] == []

    async def test_a_viewer_reads_and_changes_nothing(self, ada, platform):
        await a_pipeline(ada, a_task("a", value=1))
        bob = await platform.caller("pipeline-orchestrator", Role.VIEWER, project=ada.project)
        assert (await bob.http.get("/api/pipelines/p")).status_code == 200
        assert (await bob.http.post("/api/pipelines/p/runs", json={})).status_code == 403

    async def test_a_grant_limited_to_names_reaches_runs_too(self, ada, platform):
        await a_pipeline(ada, a_task("a", value=1), name="fraud-eu")
        await a_pipeline(ada, a_task("a", value=1), name="churn")
        run = (await ada.http.post("/api/pipelines/churn/runs", json={})).json()["id"]
        bob = await platform.caller("pipeline-orchestrator", Role.CONTRIBUTOR, project=ada.project, pattern="fraud-*")
        assert [item["name"] for item in (await bob.http.get("/api/pipelines")).json()["items"]] == ["fraud-eu"]
        assert (await bob.http.get(f"/api/pipeline-runs/{run}")).status_code == 403
        assert (await bob.http.post(f"/api/pipeline-runs/{run}/cancel")).status_code == 403
        assert (await bob.http.get("/api/pipeline-runs")).json()["items"] == []
        body = {"name": "churn", "tasks": [a_task("a", value=2)]}
        assert (await bob.http.post("/api/pipelines", json=body)).status_code == 403


class TestLargest:
    async def test_a_document_of_as_many_tasks_as_may_be_is_taken_over_the_wire(self, ada):
        """The limit of bodies must not be what limits a pipeline of plain tasks with names that say something."""
        tasks = [
            {
                "name": f"train-fold-{number:05d}",
                "entry_point": "churn.training:train_model",
                "depends_on": [f"train-fold-{before:05d}" for before in [number - 1] if number % 900],
            }
            for number in range(MAX_TASKS)
        ]
        as_json = {"Content-Type": "application/json"}
        answer = await ada.http.post("/api/pipelines", json={"name": "largest", "tasks": tasks})
        assert answer.status_code == 201, answer.text
        assert (await ada.http.post("/api/pipelines", content=b" " * 5 * 1024**2, headers=as_json)).status_code == 413
