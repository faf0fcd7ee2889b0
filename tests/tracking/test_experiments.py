import asyncio

import pytest
from tests.conftest import Caller, Platform
from tests.factories.tracking import EXPERIMENT, a_run, an_experiment

from mlops_platform.core.identity import Role

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


class TestCreateExperiment:
    async def test_the_briefs_request_makes_an_experiment(self, ada):
        response = await ada.http.post("/api/experiments", json=EXPERIMENT)
        assert response.status_code == 201
        body = response.json()
        assert {key: body[key] for key in EXPERIMENT} == EXPERIMENT
        assert response.headers["location"] == f"/api/experiments/{body['id']}"
        assert (await ada.http.get(response.headers["location"])).json() == body

    async def test_a_live_name_is_given_once_even_to_twenty_at_once(self, ada):
        answers = await asyncio.gather(*(ada.http.post("/api/experiments", json=EXPERIMENT) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"experiment_name_taken"}

    async def test_two_projects_may_use_one_name(self, platform):
        for _ in range(2):
            await an_experiment(await platform.caller(SERVICE), "same")

    @pytest.mark.parametrize("name", ["../../etc/passwd", "a b/c", "ünïcode 実験", "x" * 500])
    async def test_odd_names_are_only_text(self, ada, name):
        experiment_id = await an_experiment(ada, name)
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["name"] == name

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", ""), ("name", " "), ("name", "a\x00b"), ("name", "a\nb"), ("name", "x" * 501), ("name", 7),
            ("name", None),
            ("description", 3), ("description", "x" * 10_001), ("tags", {"a": 1}), ("tags", ["a"]), ("tags", {"": "a"}),
            ("tags", {"a": "x" * 8001}), ("unknown", 1),
        ],
    )  # fmt: skip
    async def test_bad_input_names_the_field_and_writes_nothing(self, ada, field, value):
        response = await ada.http.post("/api/experiments", json={"name": "fine", field: value})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"].startswith(field)
        assert (await ada.http.get("/api/experiments")).json()["items"] == []


class TestReadExperiments:
    async def test_an_unknown_id_is_absent(self, ada):
        response = await ada.http.get(f"/api/experiments/{'0' * 32}")
        assert response.status_code == 404
        assert response.json()["code"] == "experiment_not_found"

    async def test_another_projects_experiment_is_absent(self, ada, platform):
        experiment_id = await an_experiment(ada)
        eve = await platform.caller(SERVICE)
        for response in (
            await eve.http.get(f"/api/experiments/{experiment_id}"),
            await eve.http.patch(f"/api/experiments/{experiment_id}", json={"name": "mine"}),
            await eve.http.delete(f"/api/experiments/{experiment_id}"),
            await eve.http.post(f"/api/experiments/{experiment_id}/runs", json={}),
            await eve.http.get(f"/api/experiments/{experiment_id}/runs"),
        ):
            assert response.status_code == 404
        assert (await eve.http.get("/api/experiments")).json()["items"] == []

    async def test_a_list_goes_by_name_and_pages_without_a_gap(self, ada):
        names = [f"e{number:02d}" for number in range(7)]
        for name in reversed(names):
            await an_experiment(ada, name)
        seen, token = [], None
        while True:
            query = {"page_size": 3, **({"page_token": token} if token else {})}
            page = (await ada.http.get("/api/experiments", params=query)).json()
            seen += [item["name"] for item in page["items"]]
            token = page["next_page_token"]
            if token is None:
                break
        assert seen == names

    async def test_folders_tags_and_exact_names_filter(self, ada):
        await an_experiment(ada, "vision/a", tags={"team": "red", "url": "http://x"})
        await an_experiment(ada, "vision/b", tags={"team": "blue"})
        await an_experiment(ada, "vision_x", tags={"a:b": "c"})

        async def names(**query):
            return [item["name"] for item in (await ada.http.get("/api/experiments", params=query)).json()["items"]]

        assert await names(name_prefix="vision/") == ["vision/a", "vision/b"]
        assert await names(name_prefix="vision_") == ["vision_x"]
        assert await names(name="vision/b") == ["vision/b"]
        assert await names(tag="team") == ["vision/a", "vision/b"]
        assert await names(tag="team:red") == ["vision/a"]
        assert await names(tag=["team:red", "team:blue"]) == []
        assert await names(tag="url:http://x") == ["vision/a"]
        assert await names(tag="a:b") == ["vision_x"]

    async def test_runs_are_counted_by_status_through_their_whole_life(self, ada):
        experiment_id = await an_experiment(ada)
        first, second, _ = [await a_run(ada, experiment_id) for _ in range(3)]
        await ada.http.patch(f"/api/runs/{first}", json={"status": "FINISHED"})
        await ada.http.delete(f"/api/runs/{second}")
        body = (await ada.http.get(f"/api/experiments/{experiment_id}")).json()
        assert body["runs"] == {"RUNNING": 1, "FINISHED": 1}
        assert body["run_count"] == 2
        await ada.http.post(f"/api/runs/{second}/restore")
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 3

    async def test_counts_stay_right_under_concurrent_runs(self, ada):
        experiment_id = await an_experiment(ada)
        await asyncio.gather(*(a_run(ada, experiment_id) for _ in range(30)))
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["runs"] == {"RUNNING": 30}


class TestChangeExperiment:
    async def test_a_rename_keeps_the_id_and_merges_tags(self, ada):
        experiment_id = await an_experiment(ada, tags={"a": "1", "b": "2"})
        response = await ada.http.patch(
            f"/api/experiments/{experiment_id}", json={"name": "new", "tags": {"a": None, "c": "3"}}
        )
        body = response.json()
        assert (body["id"], body["name"], body["tags"]) == (experiment_id, "new", {"b": "2", "c": "3"})

    async def test_a_rename_to_a_live_name_is_a_conflict_and_changes_nothing(self, ada):
        await an_experiment(ada, "taken")
        experiment_id = await an_experiment(ada, "mine")
        response = await ada.http.patch(f"/api/experiments/{experiment_id}", json={"name": "taken", "description": "x"})
        assert response.status_code == 409
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["description"] is None

    async def test_a_deleted_name_is_free_and_a_restore_then_conflicts(self, ada):
        old = await an_experiment(ada, "phoenix")
        assert (await ada.http.delete(f"/api/experiments/{old}")).status_code == 204
        new = await an_experiment(ada, "phoenix")
        assert (await ada.http.post(f"/api/experiments/{old}/restore")).status_code == 409
        await ada.http.delete(f"/api/experiments/{new}")
        restored = await ada.http.post(f"/api/experiments/{old}/restore")
        assert restored.json()["deleted_at"] is None

    async def test_a_deleted_experiment_is_read_and_takes_no_changes(self, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        await ada.http.delete(f"/api/experiments/{experiment_id}")
        await ada.http.delete(f"/api/experiments/{experiment_id}")
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["deleted_at"] is not None
        refused = [
            await ada.http.post(f"/api/experiments/{experiment_id}/runs", json={}),
            await ada.http.patch(f"/api/experiments/{experiment_id}", json={"name": "x"}),
            await ada.http.patch(f"/api/runs/{run_id}", json={"notes": "x"}),
            await ada.http.post(f"/api/runs/{run_id}/metrics", json={"a": 1}),
            await ada.http.post(f"/api/runs/{run_id}/restore"),
        ]
        assert [response.status_code for response in refused] == [409] * 5
        assert (await ada.http.get("/api/experiments")).json()["items"] == []
        only = (await ada.http.get("/api/experiments", params={"deleted": "only"})).json()["items"]
        assert [item["id"] for item in only] == [experiment_id]
        assert (await ada.http.post("/api/runs/search", json={})).json()["items"] == []


class TestPermissions:
    async def test_a_viewer_reads_and_does_not_write(self, platform, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        viewer = await platform.caller(SERVICE, Role.VIEWER, project=ada.project)
        assert (await viewer.http.get(f"/api/experiments/{experiment_id}")).status_code == 200
        assert (await viewer.http.post("/api/runs/search", json={})).status_code == 200
        refused = [
            await viewer.http.post("/api/experiments", json=EXPERIMENT),
            await viewer.http.post(f"/api/experiments/{experiment_id}/runs", json={}),
            await viewer.http.post(f"/api/runs/{run_id}/metrics", json={"a": 1}),
            await viewer.http.post(f"/api/experiments/{experiment_id}/runs/{run_id}/metrics", json={"a": 1}),
            await viewer.http.delete(f"/api/runs/{run_id}"),
        ]
        assert [response.status_code for response in refused] == [403] * 5

    async def test_a_grant_for_some_names_sees_and_changes_only_those(self, platform, ada):
        red, blue = await an_experiment(ada, "red/1"), await an_experiment(ada, "blue/1")
        red_run, blue_run = await a_run(ada, red), await a_run(ada, blue)
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="red/*")
        listed = (await limited.http.get("/api/experiments")).json()["items"]
        assert [item["name"] for item in listed] == ["red/1"]
        found = (await limited.http.post("/api/runs/search", json={"experiment_ids": [red, blue]})).json()["items"]
        assert [item["id"] for item in found] == [red_run]
        found = (await limited.http.post("/api/runs/search", json={"experiment_ids": [blue]})).json()["items"]
        assert found == []
        assert (await limited.http.post(f"/api/runs/{red_run}/metrics", json={"a": 1})).status_code == 200
        refused = [
            await limited.http.get(f"/api/experiments/{blue}"),
            await limited.http.get(f"/api/runs/{blue_run}"),
            await limited.http.post(f"/api/runs/{blue_run}/metrics", json={"a": 1}),
            await limited.http.get(f"/api/runs/{blue_run}/metrics"),
            await limited.http.post("/api/experiments", json={"name": "blue/2"}),
        ]
        assert [response.status_code for response in refused] == [404, 404, 404, 404, 403]
