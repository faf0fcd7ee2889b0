"""An experiment leaves whole and comes back as it was; what is there with other content stays as it is."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from mlops_platform.core.audit.tables import audit_entries
from mlops_platform.core.events.tables import events
from mlops_platform.core.identity import Role, new_id
from mlops_platform.tracking.tables import imports, metric_points, run_chores
from mlops_platform.tracking.tasks import remove_for_ever
from tests.conftest import Caller, Platform
from tests.factories.archives import AT, a_full_experiment, a_model, a_record, an_archived_experiment
from tests.factories.tracking import a_run, an_experiment, log

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def get(caller, path, **params):
    response = await caller.http.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def pages(caller, path, **params):
    found, token = [], None
    while True:
        page = await get(caller, path, **params, **({"page_token": token} if token else {}))
        found.append(page)
        token = page["next_page_token"]
        if token is None:
            return found


async def exported_runs(caller, experiment_id):
    found = await pages(caller, f"/api/experiments/{experiment_id}/export/runs")
    return [item for page in found for item in page["items"]]


async def exported(caller, experiment_id):
    """Everything that an experiment has, in the words of the wire."""
    base = f"/api/experiments/{experiment_id}/export"
    runs = await pages(caller, f"{base}/runs")
    models = [item for page in await pages(caller, f"{base}/models") for item in page["items"]]
    items = [item for page in runs for item in page["items"]]
    ids, model_ids = [it["id"] for it in items], [it["id"] for it in models]
    return {
        "experiment": await get(caller, base),
        "runs": items,
        "datasets": [item for page in runs for item in page["datasets"]],
        "models": models,
        "points": sorted(as_rows(await pages(caller, f"{base}/points", run_id=ids)), key=str),
        "files": (await get(caller, f"{base}/artifacts", owner_id=ids))["items"],
        "model_files": (await get(caller, f"{base}/artifacts", owner_id=model_ids, owners="models"))["items"],
    }


def as_rows(found):
    """Points without the numbers of their keys, which are each project's own."""
    columns = ("step", "time_us", "value", "arrived")
    return [
        (page["run_ids"][run], json.dumps(page["keys"][key]), *rest)
        for page in found
        for run, key, *rest in zip(page["run"], page["key"], *(page[it] for it in columns), strict=True)
    ]


def as_columns(rows):
    runs, keys = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    steps, times, values, arrived = ([row[n] for row in rows] for n in range(2, 6))
    columns = {"step": steps, "time_us": times, "value": values, "arrived": arrived}
    places = {"run": [runs.index(row[0]) for row in rows], "key": [keys.index(row[1]) for row in rows]}
    return {"run_ids": runs, "keys": [json.loads(key) for key in keys], **places, **columns}


async def post(caller, path, body, status=200):
    response = await caller.http.post(f"/api/experiments/{path}", json=body)
    assert response.status_code == status, response.text
    return response.json()


async def brought_in(caller, archive, contents, name=None):
    """Do what a client does with an archive; the id of the experiment."""
    made = await post(caller, "import", {"experiment": archive["experiment"], **({"name": name} if name else {})})
    target = made["id"]
    await post(caller, f"{target}/import/models", {"models": archive["models"]})
    body = {"runs": archive["runs"], "datasets": archive["datasets"]}
    assert {it["outcome"] for it in (await post(caller, f"{target}/import/runs", body))["items"]} == {"created"}
    await post(caller, f"{target}/import/points", as_columns(archive["points"]))
    for file in archive["files"]:
        url = f"/api/runs/{file['owner_id']}/artifacts/{file['path']}"
        headers = {"Content-Type": file["content_type"]}
        assert (await caller.http.put(url, content=contents[file["sha256"]], headers=headers)).status_code == 200
    number = (await get(caller, f"/api/experiments/{target}"))["number"]
    for file in archive["model_files"]:
        url = f"/api/2.0/mlflow-artifacts/artifacts/{number}/models/m-{file['owner_id']}/artifacts/{file['path']}"
        assert (await caller.http.put(url, content=contents[file["sha256"]])).status_code == 200
    await post(caller, f"{target}/import/finish", {**ends(archive), "experiment": True})
    return target


def ends(archive):
    def of(owners, files):
        return [
            {
                "id": owner["id"],
                "artifacts": [
                    {key: file[key] for key in ("path", "sha256", "created_at")}
                    for file in files
                    if file["owner_id"] == owner["id"]
                ],
            }
            for owner in owners
        ]

    return {"runs": of(archive["runs"], archive["files"]), "models": of(archive["models"], archive["model_files"])}


async def contents_of(caller, archive):
    number = archive["experiment"]["number"]
    found = {}
    for file in archive["files"]:
        url = f"/api/runs/{file['owner_id']}/artifacts/{file['path']}"
        found[file["sha256"]] = (await caller.http.get(url)).content
    for file in archive["model_files"]:
        url = f"/api/2.0/mlflow-artifacts/artifacts/{number}/models/m-{file['owner_id']}/artifacts/{file['path']}"
        found[file["sha256"]] = (await caller.http.get(url)).content
    return found


async def purged(platform, caller, experiment_id):
    name = (await get(caller, f"/api/experiments/{experiment_id}"))["name"]
    await post(caller, f"{experiment_id}/purge", {"preview": False, "confirm": name})
    await remove_for_ever(platform.runtime, None)


async def taken(caller, name="vision/cats"):
    experiment_id, runs = await a_full_experiment(caller, name)
    archive = await exported(caller, experiment_id)
    return experiment_id, runs, archive, await contents_of(caller, archive)


class TestThereAndBack:
    async def test_after_a_purge_everything_comes_back_as_it_was(self, ada, platform):
        experiment_id, runs, archive, contents = await taken(ada)
        assert len(archive["runs"]) == 3
        assert len(archive["points"]) == 100 + 3 + 2 + 2 + 1
        await purged(platform, ada, experiment_id)
        assert (await ada.http.get(f"/api/runs/{runs['parent']}")).status_code == 404
        assert await brought_in(ada, archive, contents) == experiment_id
        assert await exported(ada, experiment_id) == archive
        shown = await get(ada, f"/api/experiments/{experiment_id}")
        assert shown["runs"] == {"FINISHED": 1, "RUNNING": 1}
        assert shown["baseline_run_id"] == runs["parent"]
        await remove_for_ever(platform.runtime, None)
        assert await exported(ada, experiment_id) == archive

    async def test_another_installation_gets_the_same(self, ada, platform):
        experiment_id, _, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        bob = await platform.caller(SERVICE)
        assert await brought_in(bob, archive, contents) == experiment_id
        assert await exported(bob, experiment_id) == archive
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).status_code == 404

    async def test_what_a_purge_left_to_be_done_spares_the_points_that_came_into_another_project(self, ada, platform):
        experiment_id, _, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        bob = await platform.caller(SERVICE)
        await brought_in(bob, archive, contents)
        await remove_for_ever(platform.runtime, None)
        assert await exported(bob, experiment_id) == archive

    async def test_a_run_that_was_purged_in_two_projects_leaves_no_points_in_either(self, ada, platform):
        experiment_id, runs, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        bob = await platform.caller(SERVICE)
        await brought_in(bob, archive, contents)
        await purged(platform, bob, experiment_id)
        async with platform.runtime.database.read() as session:
            left = metric_points.c.run_id.in_(runs.values())
            assert await session.scalar(select(func.count()).select_from(metric_points).where(left)) == 0
            both = run_chores.c.run_id == runs["parent"]
            rows = await session.all(select(run_chores.c.project_id).where(both))
        assert {row.project_id for row in rows} == {ada.project, bob.project}
        assert await brought_in(bob, archive, contents) == experiment_id
        await remove_for_ever(platform.runtime, None)
        assert await exported(bob, experiment_id) == archive

    async def test_a_deleted_and_archived_experiment_is_so_again(self, ada, platform):
        experiment_id, _, _, contents = await taken(ada)
        await ada.http.post(f"/api/experiments/{experiment_id}/archive")
        await ada.http.delete(f"/api/experiments/{experiment_id}")
        archive = await exported(ada, experiment_id)
        await purged(platform, ada, experiment_id)
        await brought_in(ada, archive, contents)
        assert await exported(ada, experiment_id) == archive

    async def test_under_another_name_it_is_found_again_by_where_it_came_from(self, ada, platform):
        experiment_id, _, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        await an_experiment(ada, "vision/cats")
        refused = await post(ada, "import", {"experiment": archive["experiment"]}, status=409)
        assert refused["code"] == "experiment_name_taken"
        target = await brought_in(ada, archive, contents, name="vision/old cats")
        again = await post(ada, "import", {"experiment": archive["experiment"], "name": "vision/old cats"})
        assert (again["id"], again["outcome"], again["differs"]) == (target, "unchanged", [])

    async def test_long_histories_come_in_pages_that_end_anywhere(self, ada, platform):
        experiment_id = await an_experiment(ada, "long")
        small = [await a_run(ada, experiment_id, {"a": n, "timestamp": AT}) for n in range(3)]
        long = await a_run(ada, experiment_id)
        for part in range(3):
            await log(
                ada, long, [{"x": n, "y": -n, "step": n, "timestamp": AT} for n in range(part * 4000, part * 4000 + 4000)]
            )
        last = await a_run(ada, experiment_id, {"a": 9, "timestamp": AT})
        found = await pages(
            ada, f"/api/experiments/{experiment_id}/export/points", run_id=[*small, long, last], page_size=10_000
        )
        assert [len(page["run"]) for page in found] == [10_000, 10_000, 4004]
        points = {
            (page["run_ids"][run], page["keys"][key]["name"], step, value)
            for page in found
            for run, key, step, value in zip(page["run"], page["key"], page["step"], page["value"], strict=True)
        }
        expected = {(long, name, n, float(sign * n)) for n in range(12_000) for name, sign in (("x", 1), ("y", -1))}
        assert points == expected | {(run, "a", 0, float(n)) for n, run in enumerate(small)} | {(last, "a", 0, 9.0)}

    async def test_a_page_of_long_runs_ends_early(self, ada):
        experiment_id = await an_experiment(ada, "wide")
        for _ in range(7):
            await a_run(ada, experiment_id, notes="n" * 100_000, parameters={f"p{n}": "x" * 8000 for n in range(100)})
        found = await pages(ada, f"/api/experiments/{experiment_id}/export/runs")
        assert sum(len(page["items"]) for page in found) == 7
        assert len(found) > 1

    @pytest.mark.parametrize("what", ["profile", "columns", "tags"])
    async def test_a_page_of_runs_with_long_datasets_ends_early(self, ada, what):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        of_a_dataset = {what: "x" * 1_000_000} if what != "tags" else {}
        tags = {f"t{n}": "x" * 100_000 for n in range(10)} if what == "tags" else {}
        for digest in ("a", "b", "c", "d", "e", "f"):
            dataset = {"name": "d", "digest": digest, "source_type": "local", "source": "s", **of_a_dataset}
            used = [{"name": "d", "digest": digest, "logged_at": AT, "tags": tags}]
            runs = [a_record(inputs=used), a_record(inputs=[{**used[0], "tags": {}}])]
            await post(ada, f"{target}/import/runs", {"runs": runs, "datasets": [dataset]})
        found = await pages(ada, f"/api/experiments/{target}/export/runs")
        assert sum(len(page["items"]) for page in found) == 12
        assert len(found) == 2

    async def test_runs_of_another_experiment_are_not_among_its_pages(self, ada):
        mine, other = await an_experiment(ada, "mine"), await an_experiment(ada, "other")
        run_id = await a_run(ada, other, {"loss": 1})
        await ada.http.put(f"/api/runs/{run_id}/artifacts/a", content=b"x")
        base = f"/api/experiments/{mine}/export"
        assert (await get(ada, f"{base}/points", run_id=[run_id]))["run"] == []
        assert (await get(ada, f"{base}/artifacts", owner_id=[run_id]))["items"] == []


class TestAgain:
    async def test_a_second_time_changes_nothing(self, ada, platform):
        experiment_id, _, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        await brought_in(ada, archive, contents)
        before = await self.audited(platform, ada)
        body = {"runs": archive["runs"], "datasets": archive["datasets"]}
        assert (await post(ada, "import", {"experiment": archive["experiment"]}))["outcome"] == "unchanged"
        for path, given in (("models", {"models": archive["models"]}), ("runs", body)):
            answer = await post(ada, f"{experiment_id}/import/{path}", given)
            assert {it["outcome"] for it in answer["items"]} == {"unchanged"}
        finished = await post(ada, f"{experiment_id}/import/finish", {**ends(archive), "experiment": True})
        assert finished == {"runs": 0, "models": 0, "experiment": False}
        assert await exported(ada, experiment_id) == archive
        assert await self.audited(platform, ada) == before + 1  # of the export just above

    @staticmethod
    async def audited(platform, caller):
        async with platform.runtime.database.read() as session:
            mine = audit_entries.c.project_id == caller.project
            return await session.scalar(select(func.count()).select_from(audit_entries).where(mine))

    async def test_what_was_broken_off_is_gone_on_with(self, ada, platform):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run = a_record(points=1, deleted_at=AT)
        for _ in range(2):
            answer = await post(ada, f"{target}/import/runs", {"runs": [run]})
            assert answer["items"][0]["outcome"] == "created"
        refused = await post(ada, f"{target}/import/finish", {"runs": [{"id": run["id"]}]}, status=409)
        assert refused["code"] == "import_incomplete"
        point = {"run_ids": [run["id"]], "keys": [{"name": "loss"}], "run": [0], "key": [0], "step": [1]}
        body = {**point, "time_us": [1_790_000_000_000_001], "value": ["NaN"], "arrived": [False]}
        assert (await post(ada, f"{target}/import/points", body))["stored"] == 1
        assert (await post(ada, f"{target}/import/points", body))["duplicates"] == 1
        assert (await post(ada, f"{target}/import/finish", {"runs": [{"id": run["id"]}]}))["runs"] == 1
        assert (await get(ada, f"/api/runs/{run['id']}"))["deleted_at"] == AT
        answer = await post(ada, f"{target}/import/runs", {"runs": [run]})
        assert answer["items"][0]["outcome"] == "unchanged"

    async def test_what_somebody_changed_since_stays_changed(self, ada):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run = a_record(tags={"a": "1"})
        await post(ada, f"{target}/import/runs", {"runs": [run]})
        await post(ada, f"{target}/import/finish", {"runs": [{"id": run["id"]}], "experiment": True})
        await ada.http.post(f"/api/runs/{run['id']}/tags", json={"tags": {"a": "2"}})
        answer = await post(ada, f"{target}/import/runs", {"runs": [run]})
        assert answer["items"][0]["outcome"] == "unchanged"
        other = await post(ada, f"{target}/import/runs", {"runs": [{**run, "notes": "new"}]})
        assert (other["items"][0]["outcome"], other["items"][0]["differs"]) == ("conflict", ["notes", "tags"])
        assert (await get(ada, f"/api/runs/{run['id']}"))["tags"] == {"a": "2"}

    @pytest.mark.parametrize("deleted_at", [None, AT])
    async def test_what_somebody_deleted_before_the_end_stays_deleted_and_is_counted_once(self, ada, deleted_at):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run, other, model = a_record(deleted_at=deleted_at), a_record(), a_model(deleted_at=deleted_at)
        await post(ada, f"{target}/import/models", {"models": [model]})
        await post(ada, f"{target}/import/runs", {"runs": [run, other]})
        await ada.http.delete(f"/api/runs/{run['id']}")
        assert (await ada.http.delete(f"/api/2.0/mlflow/logged-models/m-{model['id']}")).status_code == 200
        at = (await get(ada, f"/api/runs/{run['id']}"))["deleted_at"]
        done = [{"id": it["id"]} for it in (run, other)]
        await post(ada, f"{target}/import/finish", {"runs": done, "models": [{"id": model["id"]}]})
        assert (await get(ada, f"/api/runs/{run['id']}"))["deleted_at"] == at
        assert (await exported(ada, target))["models"][0]["deleted_at"] is not None
        assert (await get(ada, f"/api/experiments/{target}"))["runs"] == {"FINISHED": 1}

    @pytest.mark.parametrize("what", ["deleted_at", "archived_at", "baseline_run_id"])
    async def test_what_somebody_did_with_the_experiment_before_its_end_stays(self, ada, what):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run_id = await a_run(ada, target)
        url = f"/api/experiments/{target}"
        match what:
            case "deleted_at":
                await ada.http.delete(url)
            case "archived_at":
                await ada.http.post(f"{url}/archive")
            case _:
                await ada.http.put(f"{url}/baseline", json={"run_id": run_id})
        before = (await get(ada, url))[what]
        assert before is not None
        assert (await post(ada, f"{target}/import/finish", {"experiment": True}))["experiment"] is True
        assert (await get(ada, url))[what] == before

    async def test_the_original_is_the_same_until_something_differs(self, ada):
        experiment_id, runs, archive, _ = await taken(ada)
        body = {"runs": archive["runs"], "datasets": archive["datasets"]}
        same = await post(ada, f"{experiment_id}/import/runs", body)
        assert {it["outcome"] for it in same["items"]} == {"unchanged"}
        models = await post(ada, f"{experiment_id}/import/models", {"models": archive["models"]})
        assert [it["outcome"] for it in models["items"]] == ["unchanged"]
        await log(ada, runs["child"], {"loss": 7, "step": 9})
        await ada.http.post(f"/api/runs/{runs['gone']}/restore")
        changed = {it["id"]: it for it in (await post(ada, f"{experiment_id}/import/runs", body))["items"]}
        assert changed[runs["parent"]]["outcome"] == "unchanged"
        assert (changed[runs["child"]]["outcome"], changed[runs["child"]]["differs"]) == ("conflict", ["points"])
        assert (changed[runs["gone"]]["outcome"], changed[runs["gone"]]["differs"]) == ("conflict", ["deleted_at"])

    async def test_a_run_that_goes_on_where_it_comes_from_is_followed(self, ada):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run = a_record(status="RUNNING", tags={"a": "1"}, params=[{"key": "lr", "kind": "float", "text": "1e-3"}])
        await post(ada, f"{target}/import/runs", {"runs": [run], "follow": True})
        params = [*run["params"], {"key": "n", "kind": "int", "text": "3"}]
        later = {**run, "status": "FINISHED", "end_time": AT, "tags": {"a": "2"}, "params": params}
        answer = await post(ada, f"{target}/import/runs", {"runs": [later], "follow": True})
        assert answer["items"][0]["outcome"] == "created"
        found = await get(ada, f"/api/runs/{run['id']}")
        assert (found["status"], found["tags"], found["parameters"]) == ("FINISHED", {"a": "2"}, {"lr": 0.001, "n": 3})
        assert (await get(ada, f"/api/experiments/{target}"))["runs"] == {"FINISHED": 1}

    async def test_a_run_that_goes_on_is_tied_to_no_logged_model_that_its_project_does_not_have(self, ada, platform):
        bob = await platform.caller(SERVICE)
        foreign = a_model()
        theirs = (await post(bob, "import", {"experiment": an_archived_experiment()}))["id"]
        await post(bob, f"{theirs}/import/models", {"models": [foreign]})
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run = a_record(status="RUNNING")
        await post(ada, f"{target}/import/runs", {"runs": [run], "follow": True})
        ties = [{"model_id": it, "direction": "output"} for it in (foreign["id"], new_id())]
        for given in ([run["id"]], [run["id"], new_id()]):
            later = [{**run, "id": it, "notes": "later", "models": ties} for it in given]
            await post(ada, f"{target}/import/runs", {"runs": later, "follow": True})
        assert [it["models"] for it in await exported_runs(ada, target)] == [[], []]
        async with platform.runtime.database.read() as session:
            mine = (events.c.project_id == ada.project) & (events.c.type == "lineage.stated")
            assert await session.scalar(select(func.count()).select_from(events).where(mine)) == 0


class TestPlaces:
    async def test_a_place_behind_another_server_is_none_and_one_of_the_clients_own_is_kept(self, ada):
        for given, kept in (("mlflow-artifacts:/1", None), ("s3://bucket/1", "s3://bucket/1")):
            record = an_archived_experiment(name=f"at {given[:2]}", artifact_location=given)
            target = (await post(ada, "import", {"experiment": record}))["id"]
            assert (await get(ada, f"/api/experiments/{target}/export"))["artifact_location"] == kept
            assert (await post(ada, "import", {"experiment": record}))["differs"] == []


class TestConflicts:
    async def test_ids_of_another_project_are_taken_and_say_nothing_of_it(self, ada, platform):
        experiment_id, runs, archive, _ = await taken(ada)
        bob = await platform.caller(SERVICE)
        made = await post(bob, "import", {"experiment": archive["experiment"]})
        assert made["id"] != experiment_id
        assert made["outcome"] == "created"
        body = {"runs": archive["runs"], "datasets": archive["datasets"]}
        answer = await post(bob, f"{made['id']}/import/runs", body)
        assert [(it["outcome"], it["differs"]) for it in answer["items"]] == [("conflict", ["id"])] * 3
        models = await post(bob, f"{made['id']}/import/models", {"models": archive["models"]})
        assert [(it["outcome"], it["differs"]) for it in models["items"]] == [("conflict", ["id"])]
        assert (await get(ada, f"/api/runs/{runs['parent']}"))["run_name"] == "parent"

    async def test_a_run_that_is_in_another_experiment_stays_there(self, ada):
        experiment_id, runs, archive, _ = await taken(ada)
        other = await an_experiment(ada, "other")
        for run_id in runs.values():
            await ada.http.post(f"/api/runs/{run_id}/restore")
            await ada.http.post(f"/api/runs/{run_id}/move", json={"experiment_id": other})
        body = {"runs": archive["runs"], "datasets": archive["datasets"]}
        answer = await post(ada, f"{experiment_id}/import/runs", body)
        assert [it["differs"] for it in answer["items"]] == [["experiment_id"]] * 3

    async def test_an_experiment_that_is_being_removed_is_waited_for(self, ada, platform):
        experiment_id, _, archive, _ = await taken(ada)
        await post(ada, f"{experiment_id}/purge", {"preview": False, "confirm": "vision/cats"})
        refused = await post(ada, "import", {"experiment": archive["experiment"]}, status=409)
        assert refused["code"] == "import_id_taken"

    async def test_what_a_purge_left_to_be_done_does_not_remove_the_points_that_come_back(self, ada, platform):
        experiment_id, runs, archive, contents = await taken(ada)
        await ada.http.post(f"/api/runs/{runs['gone']}/purge")
        await purged(platform, ada, experiment_id)
        async with platform.runtime.database.read() as session:
            assert await session.scalar(
                select(func.count()).select_from(run_chores).where(run_chores.c.run_id == runs["gone"])
            )
        await brought_in(ada, archive, contents)
        await remove_for_ever(platform.runtime, None)
        assert await exported(ada, experiment_id) == archive

    async def test_an_archived_experiment_takes_none(self, ada):
        experiment_id = await an_experiment(ada, "put away")
        await ada.http.post(f"/api/experiments/{experiment_id}/archive")
        refused = await post(ada, f"{experiment_id}/import/runs", {"runs": [a_record()]}, status=409)
        assert refused["code"] == "experiment_archived"


class TestBadInput:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"id": "0" * 32}, "id"),
            ({"id": "f" * 12 + "7000a000000000c0ffee"}, "id"),
            ({"created_at": "2999-01-01T00:00:00Z"}, "created_at"),
            ({"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"}, "end_time"),
            ({"params": [{"key": "a", "kind": "int", "text": "one"}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "json", "text": "{"}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "json", "text": r'"\ud800"'}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "json", "text": r'[{"\ud800": 1}]'}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "json", "text": r'["\u0000"]'}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "json", "text": "[NaN]"}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "int", "text": "9" * 30}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "bool", "text": "1"}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "int", "text": "9" * 5000}]}, "params.a"),
            ({"params": [{"key": "a", "kind": "int", "text": "1"}] * 2}, "params"),
            ({"inputs": [{"name": "d", "digest": "x", "logged_at": AT}]}, "inputs"),
            ({"status": "DONE"}, "status"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    async def test_a_run_that_cannot_be_is_refused_with_the_others(self, ada, fields, named):
        experiment_id = await an_experiment(ada, "empty")
        good = a_record()
        body = {"runs": [good, {**a_record(), **fields}]}
        refused = await post(ada, f"{experiment_id}/import/runs", body, status=422)
        assert named in refused["errors"][0]["field"]
        assert (await ada.http.get(f"/api/runs/{good['id']}")).status_code == 404

    async def test_columns_of_unlike_length_and_places_beyond_them_are_refused(self, ada):
        run_id = await a_run(ada)
        experiment_id = (await get(ada, f"/api/runs/{run_id}"))["experiment_id"]
        whole = {"run_ids": [run_id], "keys": [{"name": "a"}], "run": [0], "key": [0], "step": [0], "time_us": [1]}
        whole |= {"value": [1], "arrived": [False]}
        changes: list[dict[str, Any]] = [
            {"step": []},
            {"run": [1]},
            {"key": [7]},
            {"time_us": [-1]},
            {"value": ["nan"]},
            {"value": [True]},
        ]
        for change in changes:
            await post(ada, f"{experiment_id}/import/points", {**whole, **change}, status=422)
        assert (await post(ada, f"{experiment_id}/import/points", whole))["stored"] == 1

    async def test_points_go_to_runs_of_the_experiment_alone(self, ada):
        mine, run_id = await an_experiment(ada, "mine"), await a_run(ada)
        body = {"run_ids": [run_id], "keys": [{"name": "a"}], "run": [0], "key": [0], "step": [0], "time_us": [1]}
        await post(ada, f"{mine}/import/points", {**body, "value": [1], "arrived": [False]}, status=404)

    async def test_what_is_under_no_import_cannot_be_finished(self, ada):
        run_id = await a_run(ada)
        experiment_id = (await get(ada, f"/api/runs/{run_id}"))["experiment_id"]
        await post(ada, f"{experiment_id}/import/finish", {"runs": [{"id": run_id}]}, status=409)
        await post(ada, f"{experiment_id}/import/finish", {"models": [{"id": run_id}]}, status=409)
        assert (await post(ada, f"{experiment_id}/import/finish", {"experiment": True}))["experiment"] is False

    async def test_a_file_that_did_not_come_keeps_a_run_open(self, ada):
        target = (await post(ada, "import", {"experiment": an_archived_experiment()}))["id"]
        run, model = a_record(artifacts=1), a_model(artifacts=1)
        await post(ada, f"{target}/import/models", {"models": [model]})
        await post(ada, f"{target}/import/runs", {"runs": [run]})
        file = {"path": "a", "sha256": "0" * 64, "created_at": AT}
        for body in (
            {"runs": [{"id": run["id"]}]},
            {"runs": [{"id": run["id"], "artifacts": [file]}]},
            {"models": [{"id": model["id"]}]},
        ):
            assert (await post(ada, f"{target}/import/finish", body, status=409))["code"] == "import_incomplete"

    async def test_a_parent_that_nobody_knows_is_left_out_and_named(self, ada):
        experiment_id = await an_experiment(ada, "children")
        child = a_record(parent_run_id=new_id())
        (answer,) = (await post(ada, f"{experiment_id}/import/runs", {"runs": [child]}))["items"]
        assert (answer["outcome"], answer["left_out"]) == ("created", ["parent_run_id"])
        assert (await get(ada, f"/api/runs/{child['id']}"))["parent_run_id"] is None


class TestWhoMay:
    async def test_a_viewer_exports_and_imports_nothing(self, ada, platform):
        experiment_id, _, archive, _ = await taken(ada)
        viewer = await platform.caller(SERVICE, Role.VIEWER, project=ada.project)
        assert (await viewer.http.get(f"/api/experiments/{experiment_id}/export")).status_code == 200
        refused = await viewer.http.post("/api/experiments/import", json={"experiment": archive["experiment"]})
        assert refused.status_code == 403

    async def test_a_grant_for_some_names_brings_in_those_alone(self, ada, platform):
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="red/*")
        record = an_archived_experiment()
        assert (await limited.http.post("/api/experiments/import", json={"experiment": record})).status_code == 403
        body = {"experiment": record, "name": "red/one"}
        assert (await limited.http.post("/api/experiments/import", json=body)).status_code == 200

    async def test_what_is_brought_in_hangs_on_nothing_that_the_caller_may_not_see(self, ada, platform):
        blue = await an_experiment(ada, "blue/secret")
        parent, model = await a_run(ada, blue), a_model()
        await post(ada, f"{blue}/import/models", {"models": [model]})
        red = await an_experiment(ada, "red/one")
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="red/*")
        ties = [{"model_id": model["id"], "direction": "input"}]
        child = a_record(parent_run_id=parent, models=ties)
        (answer,) = (await post(limited, f"{red}/import/runs", {"runs": [child]}))["items"]
        assert answer["left_out"] == ["parent_run_id"]
        other = a_record(parent_run_id=parent)
        answers = (await post(limited, f"{red}/import/runs", {"runs": [a_record(id=parent), other]}))["items"]
        assert [(it["outcome"], it["differs"], it["left_out"]) for it in answers] == [
            ("conflict", ["id"], []),
            ("created", [], ["parent_run_id"]),
        ]
        (kept,) = [it for it in await exported_runs(ada, red) if it["id"] == child["id"]]
        assert (kept["parent_run_id"], kept["models"]) == (None, [])
        own = a_record(parent_run_id=parent, models=ties)
        await post(ada, f"{red}/import/runs", {"runs": [own]})
        (kept,) = [it for it in await exported_runs(ada, red) if it["id"] == own["id"]]
        assert (kept["parent_run_id"], [it["model_id"] for it in kept["models"]]) == (parent, [model["id"]])

    async def test_both_ways_are_audited(self, ada, platform):
        experiment_id, runs, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        await brought_in(ada, archive, contents)
        async with platform.runtime.database.read() as session:
            mine = select(audit_entries.c.action).where(audit_entries.c.resource.endswith(runs["parent"]))
            actions = [row.action for row in await session.all(mine.order_by(audit_entries.c.id))]
            its = select(audit_entries.c.action).where(audit_entries.c.resource.endswith(experiment_id))
            of_experiment = [row.action for row in await session.all(its.order_by(audit_entries.c.id))]
        assert actions[-3:] == ["run.imported", "run.artifact_stored", "run.import_finished"]
        assert [it for it in of_experiment if "port" in it] == [
            "experiment.exported",
            "experiment.imported",
            "experiment.import_finished",
        ]

    async def test_a_purge_forgets_what_was_brought_in(self, ada, platform):
        experiment_id, _, archive, contents = await taken(ada)
        await purged(platform, ada, experiment_id)
        await brought_in(ada, archive, contents)
        await purged(platform, ada, experiment_id)
        async with platform.runtime.database.read() as session:
            mine = imports.c.project_id == ada.project
            assert await session.scalar(select(func.count()).select_from(imports).where(mine)) == 0
        assert await brought_in(ada, archive, contents) == experiment_id
