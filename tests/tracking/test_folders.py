import pytest
from sqlalchemy import select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.identity import Role
from mlops_platform.tracking.tables import experiments
from mlops_platform.tracking.tasks import remove_for_ever
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def folder(caller, path="", **parameters):
    response = await caller.http.get("/api/experiments/folders", params={"path": path, **parameters})
    assert response.status_code == 200, response.text
    return response.json()


async def lines(caller, path=""):
    items = (await folder(caller, path))["items"]
    return [(it["path"], it["is_folder"], it["experiment_id"] is not None, it["experiments"], it["runs"]) for it in items]


async def names(caller, **parameters):
    return [it["name"] for it in (await caller.http.get("/api/experiments", params=parameters)).json()["items"]]


class TestFolders:
    async def test_a_level_counts_what_lies_below_it(self, ada):
        made = {name: await an_experiment(ada, name) for name in ("vision/cats/v1", "vision/cats/v2", "vision", "text")}
        await a_run(ada, made["vision/cats/v1"])
        await a_run(ada, made["vision"])
        assert await lines(ada) == [("text", False, True, 1, 0), ("vision", True, True, 3, 2)]
        assert await lines(ada, "vision") == [("vision/cats", True, False, 2, 1)]
        assert await lines(ada, "vision/cats") == [
            ("vision/cats/v1", False, True, 1, 1),
            ("vision/cats/v2", False, True, 1, 0),
        ]

    @pytest.mark.parametrize("name", ["/a/b", "a//b", "a/", "//", "%/_", "ü/é", "a b/ c"])
    async def test_every_odd_name_is_reached_by_following_folders(self, ada, name):
        experiment_id = await an_experiment(ada, name)
        path, seen = "", []
        while True:
            [line] = (await folder(ada, path))["items"]
            seen.append(line["path"])
            if line["experiment_id"] is not None:
                break
            path = line["path"]
        assert (line["experiment_id"], line["path"]) == (experiment_id, name)
        assert len(seen) == len(set(seen))

    async def test_pages_show_each_line_once_and_count_all_of_it(self, ada):
        for name in ("a", "a/x", "a/y", "b", "c/1", "c/2", "d"):
            await an_experiment(ada, name)
        shown, token = [], None
        while True:
            page = await folder(ada, page_size=1, **({"page_token": token} if token else {}))
            shown += [(it["path"], it["experiments"]) for it in page["items"]]
            if (token := page["next_page_token"]) is None:
                break
        assert shown == [("a", 3), ("b", 1), ("c", 2), ("d", 1)]

    async def test_deleted_and_archived_experiments_and_hidden_names_are_left_out(self, ada, platform):
        made = {name: await an_experiment(ada, name) for name in ("a/1", "a/2", "a/3", "b/1")}
        await ada.http.delete(f"/api/experiments/{made['a/1']}")
        await ada.http.post(f"/api/experiments/{made['a/2']}/archive")
        assert await lines(ada) == [("a", True, False, 1, 0), ("b", True, False, 1, 0)]
        limited = await platform.caller(SERVICE, Role.VIEWER, project=ada.project, pattern="b/*")
        assert await lines(limited) == [("b", True, False, 1, 0)]


class TestOwnerAndArchive:
    async def test_the_owner_is_who_made_it_and_can_change(self, ada):
        experiment_id = await an_experiment(ada, "mine")
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["owner"] == ada.principal
        await ada.http.patch(f"/api/experiments/{experiment_id}", json={"owner": "grace"})
        await an_experiment(ada, "other")
        assert await names(ada, owner="grace") == ["mine"]

    async def test_an_archived_experiment_keeps_its_name_is_read_and_takes_no_runs(self, ada):
        experiment_id = await an_experiment(ada, "old")
        run_id = await a_run(ada, experiment_id)
        for _ in range(2):
            response = await ada.http.post(f"/api/experiments/{experiment_id}/archive")
            assert response.json()["archived_at"] is not None
        assert (await names(ada), await names(ada, archived="only")) == ([], ["old"])
        assert (await ada.http.post("/api/experiments", json={"name": "old"})).json()["code"] == "experiment_name_taken"
        refused = await ada.http.post(f"/api/experiments/{experiment_id}/runs", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "experiment_archived")
        assert (await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})).status_code == 200
        assert (await ada.http.post("/api/runs/search", json={})).json()["items"] == []
        named = await ada.http.post("/api/runs/search", json={"experiment_ids": [experiment_id]})
        assert [run["id"] for run in named.json()["items"]] == [run_id]
        await ada.http.post(f"/api/experiments/{experiment_id}/restore")
        await a_run(ada, experiment_id)

    async def test_retention_is_set_and_taken_away(self, ada):
        experiment_id = await an_experiment(ada, retention_days=7)
        path = f"/api/experiments/{experiment_id}"
        assert (await ada.http.patch(path, json={"description": "x"})).json()["retention_days"] == 7
        assert (await ada.http.patch(path, json={"retention_days": 0})).json()["retention_days"] is None


class TestBaseline:
    async def test_a_run_of_the_experiment_is_pinned_and_unpinned(self, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        path = f"/api/experiments/{experiment_id}/baseline"
        assert (await ada.http.put(path, json={"run_id": run_id})).json()["baseline_run_id"] == run_id
        assert (await ada.http.delete(path)).json()["baseline_run_id"] is None

    async def test_a_run_of_another_experiment_is_refused(self, ada):
        experiment_id, run_id = await an_experiment(ada, "a"), await a_run(ada)
        response = await ada.http.put(f"/api/experiments/{experiment_id}/baseline", json={"run_id": run_id})
        assert (response.status_code, response.json()["code"]) == (404, "run_not_found")

    async def test_a_run_that_moves_away_is_the_baseline_no_more(self, ada):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        run_id = await a_run(ada, old)
        await ada.http.put(f"/api/experiments/{old}/baseline", json={"run_id": run_id})
        await ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": new})
        assert (await ada.http.get(f"/api/experiments/{old}")).json()["baseline_run_id"] is None


class TestPurgeExperiment:
    async def test_the_preview_says_what_would_go_and_removes_nothing(self, ada):
        experiment_id = await an_experiment(ada, "mine")
        run_id = await a_run(ada, experiment_id, metrics=[{"loss": n, "step": n} for n in range(7)])
        await ada.http.delete(f"/api/runs/{await a_run(ada, experiment_id)}")
        await ada.http.put(f"/api/runs/{run_id}/artifacts/m", content=b"12345")
        body = (await ada.http.post(f"/api/experiments/{experiment_id}/purge", json={})).json()
        assert body == {
            "experiment_id": experiment_id,
            "name": "mine",
            "runs": 1,
            "deleted_runs": 1,
            "artifacts": 1,
            "bytes": 5,
            "metric_points": 7,
            "is_preview": True,
        }
        assert (await ada.http.get(f"/api/runs/{run_id}")).status_code == 200

    @pytest.mark.parametrize("confirm", [None, "", "Mine", "mine "])
    async def test_without_its_exact_name_nothing_is_purged(self, ada, confirm):
        experiment_id = await an_experiment(ada, "mine")
        body = {"preview": False, **({} if confirm is None else {"confirm": confirm})}
        response = await ada.http.post(f"/api/experiments/{experiment_id}/purge", json=body)
        assert (response.status_code, response.json()["code"]) == (409, "purge_not_confirmed")
        assert await names(ada) == ["mine"]

    async def test_a_purged_experiment_is_gone_at_once_its_name_free_and_its_rows_follow(self, ada, platform):
        experiment_id = await an_experiment(ada, "mine")
        run_id = await a_run(ada, experiment_id, metrics={"a": 1})
        await ada.http.post(f"/api/experiments/{experiment_id}/views", json={"name": "v"})
        body = {"preview": False, "confirm": "mine"}
        assert (await ada.http.post(f"/api/experiments/{experiment_id}/purge", json=body)).json()["runs"] == 1
        for path in (f"/api/experiments/{experiment_id}", f"/api/runs/{run_id}"):
            assert (await ada.http.get(path)).status_code == 404
        assert (await ada.http.post(f"/api/experiments/{experiment_id}/restore")).status_code == 404
        assert await names(ada, deleted="include") == []
        await an_experiment(ada, "mine")
        await remove_for_ever(platform.runtime, None)
        async with platform.runtime.database.read() as session:
            assert await session.first(select(experiments).where(experiments.c.id == experiment_id)) is None
            mine = audit_entries.c.resource.endswith(f":experiment:{experiment_id}")
            entries = await session.all(select(audit_entries).where(mine, audit_entries.c.action == "experiment.purged"))
        assert entries[0].detail["runs"] == 1
