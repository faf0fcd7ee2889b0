import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.identity import Role
from mlops_platform.core.storage.tables import blob_references
from mlops_platform.tracking.tables import metric_points, run_chores, run_metrics, runs
from mlops_platform.tracking.tasks import remove_for_ever
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def get(caller, run_id):
    return (await caller.http.get(f"/api/runs/{run_id}")).json()


async def counts(caller, experiment_id):
    return (await caller.http.get(f"/api/experiments/{experiment_id}")).json()["runs"]


async def found(caller, experiment_id, text="", **fields):
    body = {"experiment_ids": [experiment_id], "filter": text, **fields}
    return [run["id"] for run in (await caller.http.post("/api/runs/search", json=body)).json()["items"]]


async def bulk(caller, action, **body):
    return await caller.http.post("/api/runs/bulk", json={"action": action, **body})


async def references(platform, caller, run_id):
    async with platform.runtime.database.read() as session:
        mine = blob_references.c.project_id == caller.project, blob_references.c.holder.startswith(f"run/{run_id}/")
        return sorted(row.blob_id for row in await session.all(select(blob_references).where(*mine)))


async def rows_of(platform, table, run_id):
    async with platform.runtime.database.read() as session:
        return await session.scalar(select(func.count()).select_from(table).where(table.c.run_id == run_id))


async def actions(platform, run_id):
    async with platform.runtime.database.read() as session:
        mine = audit_entries.c.resource.endswith(f":run:{run_id}")
        return [row.action for row in await session.all(select(audit_entries).where(mine).order_by(audit_entries.c.id))]


class TestMove:
    async def test_a_moved_run_is_found_by_everything_in_its_new_experiment_and_by_nothing_in_the_old(self, ada):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        run_id = await a_run(ada, old, parameters={"lr": 1}, tags={"t": "x"}, metrics={"loss": 0.5})
        response = await ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": new})
        assert (response.json()["id"], response.json()["experiment_id"]) == (run_id, new)
        for text in ("", "params.lr = 1", "tags.t = 'x'", "metrics.loss < 1"):
            assert await found(ada, new, text) == [run_id]
            assert await found(ada, old, text) == []
        assert await found(ada, new, order_by=["metrics.loss ASC"]) == [run_id]
        assert (await counts(ada, old), await counts(ada, new)) == ({}, {"RUNNING": 1})
        await log(ada, run_id, {"loss": 0.4, "step": 2})
        assert await found(ada, new, "metrics.loss < 0.45") == [run_id]

    async def test_it_goes_to_no_deleted_archived_or_foreign_experiment(self, ada, platform):
        run_id = await a_run(ada)
        deleted, archived = await an_experiment(ada, "deleted"), await an_experiment(ada, "archived")
        await ada.http.delete(f"/api/experiments/{deleted}")
        await ada.http.post(f"/api/experiments/{archived}/archive")
        foreign = await an_experiment(await platform.caller(SERVICE))
        codes = {}
        for name, target in (("deleted", deleted), ("archived", archived), ("foreign", foreign)):
            response = await ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": target})
            codes[name] = response.json()["code"]
        assert codes == {
            "deleted": "experiment_deleted",
            "archived": "experiment_archived",
            "foreign": "experiment_not_found",
        }

    async def test_both_experiments_must_be_the_callers_to_write(self, ada, platform):
        mine, other = await an_experiment(ada, "mine"), await an_experiment(ada, "other")
        run_id = await a_run(ada, mine)
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="mine*")
        response = await limited.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": other})
        assert response.status_code in {403, 404}
        assert (await get(ada, run_id))["experiment_id"] == mine

    async def test_a_summary_that_a_request_under_way_left_behind_is_set_right_later(self, ada, platform):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        run_id = await a_run(ada, old, metrics={"loss": 0.5})
        await ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": new})
        async with platform.runtime.database.write() as session:
            mine = run_metrics.c.run_id == run_id
            await session.execute(update(run_metrics).where(mine).values(experiment_id=old))
            await session.execute(update(run_chores).where(run_chores.c.run_id == run_id).values(since=LONG_AGO))
        await remove_for_ever(platform.runtime, None)
        assert await found(ada, new, "metrics.loss < 1") == [run_id]
        assert await rows_of(platform, run_chores, run_id) == 0

    async def test_changes_at_the_moment_of_a_move_still_find_the_run(self, ada):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        run_id = await a_run(ada, old)
        moves = [ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": at}) for at in (new, old) * 4]
        changes = [ada.http.post(f"/api/runs/{run_id}/tags", json={"tags": {f"t{n}": "x"}}) for n in range(8)]
        answers = await asyncio.gather(*(each for pair in zip(moves, changes, strict=True) for each in pair))
        assert {answer.status_code for answer in answers} == {200}
        run = await get(ada, run_id)
        assert len(run["tags"]) == 8
        assert await found(ada, run["experiment_id"], "tags.t0 = 'x' AND tags.t7 = 'x'") == [run_id]


class TestCopy:
    async def test_a_copy_has_all_that_the_run_has_and_goes_its_own_way(self, ada, platform):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        points = [{"loss": 1 / (step + 1), "step": step} for step in range(50)] + [{"nan": "NaN"}]
        run_id = await a_run(ada, old, run_name="first", parameters={"lr": 1}, tags={"t": "x"}, metrics=points)
        await ada.http.put(f"/api/runs/{run_id}/artifacts/a/model.bin", content=b"weights")
        await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})
        response = await ada.http.post(f"/api/runs/{run_id}/copy", json={"experiment_id": new, "run_name": "second"})
        assert response.status_code == 201, response.text
        copy, original = response.json(), await get(ada, run_id)
        assert (copy["run_name"], copy["experiment_id"], copy["status"]) == ("second", new, "FINISHED")
        for field in ("parameters", "tags", "metrics", "start_time", "end_time", "user"):
            assert copy[field] == original[field]
        assert (await counts(ada, old), await counts(ada, new)) == ({"FINISHED": 1}, {"FINISHED": 1})
        assert await found(ada, new, "metrics.loss.count = 50 AND params.lr = 1") == [copy["id"]]
        history = [(await ada.http.get(f"/api/runs/{each}/metrics/loss")).json()["items"] for each in (run_id, copy["id"])]
        assert history[0] == history[1]
        assert await references(platform, ada, run_id) == await references(platform, ada, copy["id"])
        await ada.http.delete(f"/api/runs/{run_id}/artifacts/a")
        assert (await ada.http.get(f"/api/runs/{copy['id']}/artifacts/a/model.bin")).content == b"weights"
        await log(ada, copy["id"], {"loss": 9.0, "step": 99})
        assert (await get(ada, run_id))["metrics"]["loss"] == original["metrics"]["loss"]

    async def test_metrics_and_artifacts_may_be_left_out(self, ada, platform):
        run_id = await a_run(ada, status="FINISHED", metrics={"loss": 1})
        await ada.http.put(f"/api/runs/{run_id}/artifacts/m", content=b"x")
        body = {
            "experiment_id": (await get(ada, run_id))["experiment_id"],
            "with_metrics": False,
            "with_artifacts": False,
        }
        copy = (await ada.http.post(f"/api/runs/{run_id}/copy", json=body)).json()
        assert copy["metrics"] == {}
        assert await references(platform, ada, copy["id"]) == []

    async def test_a_run_that_goes_on_is_not_copied(self, ada):
        run_id = await a_run(ada)
        body = {"experiment_id": (await get(ada, run_id))["experiment_id"]}
        assert (await ada.http.post(f"/api/runs/{run_id}/copy", json=body)).json()["code"] == "run_state_conflict"


class TestBulk:
    async def test_each_action_counts_what_it_changed_and_audits_each_run(self, ada, platform):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        ids = [await a_run(ada, old, metrics={"n": n}) for n in range(5)]
        assert (await bulk(ada, "tag", run_ids=ids, tags={"a": "1", "b": "2"})).json()["changed"] == 5
        assert (await bulk(ada, "tag", run_ids=ids[:2], tags={"b": None})).json()["changed"] == 2
        assert [(await get(ada, run_id))["tags"] for run_id in ids[1:3]] == [{"a": "1"}, {"a": "1", "b": "2"}]
        moved = (await bulk(ada, "move", run_ids=ids[:3], experiment_id=new)).json()
        assert (moved["changed"], moved["unchanged"]) == (3, 0)
        assert (await counts(ada, old), await counts(ada, new)) == ({"RUNNING": 2}, {"RUNNING": 3})
        await ada.http.delete(f"/api/runs/{ids[0]}")
        deleted = (await bulk(ada, "delete", run_ids=ids)).json()
        assert (deleted["changed"], deleted["unchanged"]) == (4, 1)
        assert (await counts(ada, old), await counts(ada, new)) == ({}, {})
        assert (await bulk(ada, "restore", run_ids=ids)).json()["changed"] == 5
        assert (await counts(ada, old), await counts(ada, new)) == ({"RUNNING": 2}, {"RUNNING": 3})
        tagged, gone = ["run.tags_changed"], ["run.deleted", "run.restored"]
        assert await actions(platform, ids[2]) == ["run.created", *tagged, "run.moved", *gone]

    async def test_a_search_names_the_runs(self, ada):
        experiment_id = await an_experiment(ada)
        ids = [await a_run(ada, experiment_id, metrics={"n": n}) for n in range(4)]
        search = {"filter": "metrics.n >= 2", "experiment_ids": [experiment_id]}
        assert sorted((await bulk(ada, "delete", search=search)).json()["run_ids"]) == ids[2:]
        assert sorted(await found(ada, experiment_id)) == ids[:2]
        assert sorted((await bulk(ada, "restore", search=search)).json()["run_ids"]) == ids[2:]

    async def test_one_unknown_or_foreign_run_stops_all(self, ada, platform):
        run_id = await a_run(ada)
        foreign = await a_run(await platform.caller(SERVICE))
        response = await bulk(ada, "delete", run_ids=[run_id, foreign])
        assert (response.status_code, response.json()["code"]) == (404, "run_not_found")
        assert (await get(ada, run_id))["deleted_at"] is None

    async def test_one_deleted_run_stops_tagging_all(self, ada):
        experiment_id = await an_experiment(ada)
        ids = [await a_run(ada, experiment_id) for _ in range(3)]
        await ada.http.delete(f"/api/runs/{ids[2]}")
        assert (await bulk(ada, "tag", run_ids=ids, tags={"a": "1"})).json()["code"] == "run_deleted"
        assert [(await get(ada, run_id))["tags"] for run_id in ids] == [{}, {}, {}]

    async def test_runs_of_names_that_the_caller_may_not_write_stop_all(self, ada, platform):
        mine, other = (
            await a_run(ada, await an_experiment(ada, "mine")),
            await a_run(ada, await an_experiment(ada, "other")),
        )
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="mine*")
        assert (await bulk(limited, "delete", run_ids=[mine, other])).status_code in {403, 404}
        assert (await get(ada, mine))["deleted_at"] is None

    async def test_more_runs_than_one_request_changes_are_refused_whole(self, ada, platform):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        async with platform.runtime.database.write() as session:
            row = await session.first(select(runs).where(runs.c.id == run_id))
            values = dict(row._mapping)
            many = [values | {"id": f"{'0' * 24}{n:08x}"[::-1]} for n in range(1, 1001)]
            await session.execute(runs.insert(), many)
        response = await bulk(ada, "delete", search={"experiment_ids": [experiment_id]})
        assert (response.status_code, response.json()["code"]) == (413, "too_many_runs")
        assert (await get(ada, run_id))["deleted_at"] is None

    @pytest.mark.parametrize(
        "body",
        [
            {"action": "delete"}, {"action": "delete", "run_ids": []}, {"action": "tag", "run_ids": ["0" * 32]},
            {"action": "delete", "run_ids": ["0" * 32], "tags": {"a": "1"}}, {"action": "move", "run_ids": ["0" * 32]},
            {"action": "drop", "run_ids": ["0" * 32]}, {"action": "delete", "search": {"filter": ""}},
        ],
    )  # fmt: skip
    async def test_a_body_that_does_not_add_up_is_refused(self, ada, body):
        assert (await ada.http.post("/api/runs/bulk", json=body)).status_code == 422

    async def test_overlapping_requests_at_once_leave_the_counts_right(self, ada):
        old, new = await an_experiment(ada, "old"), await an_experiment(ada, "new")
        ids = [await a_run(ada, old) for _ in range(20)]
        orders = (ids, ids[::-1], ids[5:] + ids[:5])
        moves = (bulk(ada, "move", run_ids=order, experiment_id=target) for order in orders for target in (old, new))
        answers = await asyncio.gather(*moves)
        assert {answer.status_code for answer in answers} == {200}
        left, right = await counts(ada, old), await counts(ada, new)
        assert left.get("RUNNING", 0) + right.get("RUNNING", 0) == 20
        assert len(await found(ada, new)) == right.get("RUNNING", 0)


class TestPurge:
    async def test_a_purged_run_leaves_nothing_behind_and_shared_bytes_stay_with_the_other(self, ada, platform):
        experiment_id = await an_experiment(ada)
        points = [{"loss": n, "step": n} for n in range(30)]
        run_id = await a_run(ada, experiment_id, metrics=points, parameters={"a": 1}, heartbeat_seconds=60)
        other = await a_run(ada, experiment_id, parent_run_id=run_id)
        for each in (run_id, other):
            await ada.http.put(f"/api/runs/{each}/artifacts/m", content=b"same")
        await ada.http.post(f"/api/runs/{run_id}/comments", json={"text": "x"})
        assert (await ada.http.post(f"/api/runs/{run_id}/purge")).json()["code"] == "purge_not_confirmed"
        await ada.http.delete(f"/api/runs/{run_id}")
        answer = (await ada.http.post(f"/api/runs/{run_id}/purge")).json()
        assert answer == {"runs": 1, "artifacts": 1, "bytes": 4}
        await remove_for_ever(platform.runtime, None)
        assert (await ada.http.get(f"/api/runs/{run_id}")).status_code == 404
        assert await rows_of(platform, metric_points, run_id) == 0
        assert await rows_of(platform, run_metrics, run_id) == 0
        assert await references(platform, ada, run_id) == []
        assert (await ada.http.get(f"/api/runs/{other}/artifacts/m")).content == b"same"
        assert (await get(ada, other))["parent_run_id"] is None
        assert await counts(ada, experiment_id) == {"RUNNING": 1}
        assert (await actions(platform, run_id))[-1] == "run.purged"

    async def test_only_an_admin_purges(self, ada, platform):
        run_id = await a_run(ada)
        await ada.http.delete(f"/api/runs/{run_id}")
        writer = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project)
        assert (await writer.http.post(f"/api/runs/{run_id}/purge")).status_code == 403

    async def test_runs_that_were_deleted_for_longer_than_they_are_kept_are_removed(self, ada, platform):
        kept, short = await an_experiment(ada, "kept"), await an_experiment(ada, "short", retention_days=7)
        ids = {name: await a_run(ada, at) for name, at in (("kept", kept), ("old", short), ("new", short), ("live", short))}
        for name in ("kept", "old", "new"):
            await ada.http.delete(f"/api/runs/{ids[name]}")
        async with platform.runtime.database.write() as session:
            long_ago = update(runs).where(runs.c.id.in_([ids["kept"], ids["old"]]))
            await session.execute(long_ago.values(deleted_at=func.now() - func.make_interval(0, 0, 0, 8)))
        await remove_for_ever(platform.runtime, None)
        there = [name for name, run_id in ids.items() if (await ada.http.get(f"/api/runs/{run_id}")).status_code == 200]
        assert there == ["kept", "new", "live"]
        assert await counts(ada, short) == {"RUNNING": 1}

    async def test_several_replicas_remove_at_once_without_harm(self, ada, platform):
        experiment_id = await an_experiment(ada, "gone")
        for _ in range(5):
            await a_run(ada, experiment_id, metrics={"a": 1})
        await ada.http.post(f"/api/experiments/{experiment_id}/purge", json={"preview": False, "confirm": "gone"})
        await asyncio.gather(*(remove_for_ever(platform.runtime, None) for _ in range(3)))
        await remove_for_ever(platform.runtime, None)
        async with platform.runtime.database.read() as session:
            assert await session.scalar(select(func.count()).select_from(runs).where(runs.c.project_id == ada.project)) == 0
