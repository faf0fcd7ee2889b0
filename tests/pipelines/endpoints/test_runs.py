"""Runs over HTTP, without a worker."""

import pytest

from tests.conftest import Caller, Platform
from tests.factories.pipelines import a_pipeline, a_run, a_task

PARAMETERS = {"x": {"type": "integer"}, "kind": {"type": "string", "default": "a", "choices": ["a", "b"]}}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("pipeline-orchestrator")


class TestStart:
    async def test_what_waits_for_nothing_is_ready_and_the_rest_waits(self, ada):
        run_id = await a_run(ada, a_task("a", value=1), a_task("b", value="${tasks.a.result}"))
        tasks = (await ada.http.get(f"/api/pipeline-runs/{run_id}/tasks")).json()["items"]
        assert [(task["task"], task["state"], task["pending"]) for task in tasks] == [
            ("a", "ready", 0),
            ("b", "waiting", 1),
        ]

    async def test_a_run_keeps_the_version_and_parameters_that_it_began_with(self, ada):
        await a_pipeline(ada, a_task("a", value="${params.x}"), parameters=PARAMETERS)
        run_id = await a_run(ada, x=7)
        await a_pipeline(ada, a_task("a", value=2))
        run = (await ada.http.get(f"/api/pipeline-runs/{run_id}")).json()
        assert (run["version"], run["parameters"]) == (1, {"x": 7, "kind": "a"})

    async def test_an_older_version_can_be_named(self, ada):
        await a_pipeline(ada, a_task("a", value=1))
        await a_pipeline(ada, a_task("a", value=2))
        response = await ada.http.post("/api/pipelines/p/runs", json={"version": 1})
        assert response.json()["version"] == 1
        missing = await ada.http.post("/api/pipelines/p/runs", json={"version": 9})
        assert (missing.status_code, missing.json()["code"]) == (404, "pipeline_version_not_found")

    @pytest.mark.parametrize(
        ("given", "field"),
        [({}, "x"), ({"x": "1"}, "x"), ({"x": 1.5}, "x"), ({"x": 1, "kind": "z"}, "kind"), ({"x": 1, "typo": 1}, "typo")],
    )
    async def test_parameters_that_do_not_fit_are_named_and_nothing_starts(self, ada, given, field):
        await a_pipeline(ada, a_task("a", value="${params.x}"), parameters=PARAMETERS)
        response = await ada.http.post("/api/pipelines/p/runs", json={"parameters": given})
        assert (response.status_code, response.json()["code"]) == (422, "parameters_invalid")
        assert response.json()["errors"][0]["field"] == f"parameters.{field}"
        assert (await ada.http.get("/api/pipelines/p/runs")).json()["items"] == []

    async def test_the_same_idempotency_key_starts_one_run(self, ada):
        await a_pipeline(ada, a_task("a", value=1))
        headers = {"Idempotency-Key": "k"}
        answers = [await ada.http.post("/api/pipelines/p/runs", json={}, headers=headers) for _ in range(2)]
        assert answers[0].json()["id"] == answers[1].json()["id"]
        assert len((await ada.http.get("/api/pipelines/p/runs")).json()["items"]) == 1

    async def test_ten_thousand_tasks_start_in_one_request(self, ada):
        tasks: list[dict] = [{"name": "root", "entry_point": "m:f"}]
        tasks += [{"name": f"t{n}", "entry_point": "m:f", "depends_on": ["root"]} for n in range(9_999)]
        run_id = await a_run(ada, *tasks)
        run = (await ada.http.get(f"/api/pipeline-runs/{run_id}")).json()
        assert run["task_counts"] == {"ready": 1, "waiting": 9_999}
        await ada.http.post(f"/api/pipeline-runs/{run_id}/cancel")


class TestLists:
    async def test_runs_are_listed_newest_first_in_pages_and_by_state(self, ada):
        await a_pipeline(ada, a_task("a", value=1))
        runs = [await a_run(ada) for _ in range(5)]
        await ada.http.post(f"/api/pipeline-runs/{runs[0]}/cancel")
        seen, query = [], "?page_size=2"
        while query:
            page = (await ada.http.get(f"/api/pipelines/p/runs{query}")).json()
            seen += [item["id"] for item in page["items"]]
            query = f"?page_size=2&page_token={page['next_page_token']}" if page["next_page_token"] else ""
        assert seen == runs[::-1]
        cancelled = (await ada.http.get("/api/pipeline-runs?state=cancelled&pipeline=p")).json()["items"]
        assert [item["id"] for item in cancelled] == runs[:1]

    async def test_tasks_are_listed_in_the_order_of_the_document_in_pages(self, ada):
        run_id = await a_run(ada, *(a_task(f"t{n}", value=n) for n in (3, 1, 2)))
        seen, query = [], "?page_size=2"
        while query:
            page = (await ada.http.get(f"/api/pipeline-runs/{run_id}/tasks{query}")).json()
            seen += [item["task"] for item in page["items"]]
            query = f"?page_size=2&page_token={page['next_page_token']}" if page["next_page_token"] else ""
        assert seen == ["t3", "t1", "t2"]

    async def test_a_page_token_of_another_list_is_refused(self, ada):
        for name in ("p", "q"):
            run_id = await a_run(ada, a_task("a", value=1), name=name)
        token = (await ada.http.get("/api/pipelines?page_size=1")).json()["next_page_token"]
        for path in ("/api/pipeline-runs", f"/api/pipeline-runs/{run_id}/tasks", "/api/pipelines/p/versions"):
            response = await ada.http.get(path, params={"page_token": token})
            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "page_token")

    async def test_a_task_that_is_not_there_is_not_found(self, ada):
        run_id = await a_run(ada, a_task("a", value=1))
        for path in ("tasks/ghost", "tasks/a?item=3", "tasks/ghost/logs"):
            response = await ada.http.get(f"/api/pipeline-runs/{run_id}/{path}")
            assert (response.status_code, response.json()["code"]) == (404, "task_run_not_found")

    async def test_logs_of_a_task_that_has_not_begun_are_empty_and_not_complete(self, ada):
        run_id = await a_run(ada, a_task("a", value=1))
        logs = (await ada.http.get(f"/api/pipeline-runs/{run_id}/tasks/a/logs")).json()
        assert (logs["lines"], logs["next_offset"], logs["is_complete"]) == ([], 0, False)
