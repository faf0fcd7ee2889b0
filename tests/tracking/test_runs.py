import asyncio

import pytest
from tests.conftest import Caller, Platform
from tests.factories.tracking import RUN, a_run, an_experiment

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def get(caller, run_id):
    return (await caller.http.get(f"/api/runs/{run_id}")).json()


class TestCreateRun:
    async def test_the_briefs_request_makes_a_running_run(self, ada):
        experiment_id = await an_experiment(ada)
        response = await ada.http.post(f"/api/experiments/{experiment_id}/runs", json=RUN)
        assert response.status_code == 201
        body = response.json()
        assert {key: body[key] for key in RUN} == RUN
        assert (body["status"], body["experiment_id"], body["end_time"]) == ("RUNNING", experiment_id, None)
        assert body["start_time"] is not None
        assert body["user"] == ada.principal
        assert (await ada.http.get(response.headers["location"])).json() == body
        assert (await ada.http.get(f"/api/experiments/{experiment_id}/runs/{body['id']}")).json() == body

    async def test_nested_parameters_are_flattened_and_keep_their_types(self, ada):
        run_id = await a_run(
            ada,
            parameters={
                "optimizer": {"name": "adam", "lr": 1e-3, "nested": {"deep": True}},
                "layers": [64, 32],
                "nothing": None,
                "empty": {},
                "big": 2**63 - 1,
                "one": 1.0,
            },
        )
        assert (await get(ada, run_id))["parameters"] == {
            "big": 2**63 - 1,
            "empty": {},
            "layers": [64, 32],
            "nothing": None,
            "one": 1.0,
            "optimizer.lr": 0.001,
            "optimizer.name": "adam",
            "optimizer.nested.deep": True,
        }

    async def test_a_name_is_made_up_when_none_is_given(self, ada):
        assert len((await get(ada, await a_run(ada)))["run_name"].split("-")) == 3

    async def test_a_scheduled_run_has_not_started(self, ada):
        run = await get(ada, await a_run(ada, status="SCHEDULED"))
        assert (run["status"], run["start_time"]) == ("SCHEDULED", None)

    async def test_a_parent_must_exist_in_the_project(self, ada, platform):
        experiment_id = await an_experiment(ada)
        parent = await a_run(ada, experiment_id)
        assert (await get(ada, await a_run(ada, experiment_id, parent_run_id=parent)))["parent_run_id"] == parent
        foreign = await a_run(await platform.caller(SERVICE))
        response = await ada.http.post(f"/api/experiments/{experiment_id}/runs", json={"parent_run_id": foreign})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "parent_run_id"

    async def test_a_run_of_an_unknown_experiment_is_refused(self, ada):
        response = await ada.http.post(f"/api/experiments/{'0' * 32}/runs", json=RUN)
        assert (response.status_code, response.json()["code"]) == (404, "experiment_not_found")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("run_name", ""), ("run_name", "a\x00"), ("run_name", 3), ("run_name", "x" * 501), ("parameters", [1]),
            ("parameters", {"a": "\x00"}), ("parameters", {"a": 2**63}), ("parameters", {"a.b": 1, "a": {"b": 2}}),
            ("parameters", {"": 1}), ("parameters", {"k" * 251: 1}), ("parameters", {"a": "x" * 20_000}),
            ("parameters", {f"k{n}": n for n in range(1001)}), ("tags", {"a": 1}), ("parent_run_id", "x"),
            ("start_time", "2026-01-01T00:00:00"), ("start_time", 1), ("status", "DONE"), ("unknown", 1),
        ],
    )  # fmt: skip
    async def test_bad_input_names_the_field_and_writes_nothing(self, ada, field, value):
        experiment_id = await an_experiment(ada)
        response = await ada.http.post(f"/api/experiments/{experiment_id}/runs", json={field: value})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"].startswith(field)
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 0

    async def test_a_repeated_idempotency_key_makes_one_run(self, ada):
        experiment_id = await an_experiment(ada)
        headers = {"Idempotency-Key": "once"}
        answers = [await ada.http.post(f"/api/experiments/{experiment_id}/runs", json=RUN, headers=headers) for _ in "12"]
        assert answers[0].json() == answers[1].json()
        assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 1


class TestRunLife:
    async def test_a_final_status_ends_the_run_and_running_resumes_it(self, ada):
        run_id = await a_run(ada)
        finished = (await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})).json()
        assert finished["end_time"] >= finished["start_time"]
        assert finished["duration_seconds"] >= 0
        again = (await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})).json()
        assert again["end_time"] == finished["end_time"]
        resumed = (await ada.http.patch(f"/api/runs/{run_id}", json={"status": "RUNNING"})).json()
        assert (resumed["end_time"], resumed["start_time"]) == (None, finished["start_time"])

    async def test_what_has_run_cannot_be_scheduled(self, ada):
        response = await ada.http.patch(f"/api/runs/{await a_run(ada)}", json={"status": "SCHEDULED"})
        assert (response.status_code, response.json()["code"]) == (409, "run_state_conflict")

    @pytest.mark.parametrize(
        "change",
        [{"end_time": "2026-01-01T00:00:00Z"}, {"status": "FINISHED", "end_time": "2001-01-01T00:00:00Z"}],
    )
    async def test_times_that_cannot_be_are_refused(self, ada, change):
        run_id = await a_run(ada, start_time="2020-01-01T00:00:00Z")
        response = await ada.http.patch(f"/api/runs/{run_id}", json=change)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "end_time"
        assert (await get(ada, run_id))["status"] == "RUNNING"

    async def test_notes_name_and_tags_can_change(self, ada):
        run_id = await a_run(ada, tags={"a": "1", "b": "2"})
        change = {"run_name": "better", "notes": "# Why\nbecause", "tags": {"a": None, "c": "3"}}
        body = (await ada.http.patch(f"/api/runs/{run_id}", json=change)).json()
        assert (body["run_name"], body["notes"], body["tags"]) == ("better", "# Why\nbecause", {"b": "2", "c": "3"})
        body = (await ada.http.post(f"/api/runs/{run_id}/tags", json={"tags": {"c": "4"}})).json()
        assert body["tags"] == {"b": "2", "c": "4"}

    async def test_a_deleted_run_is_read_and_takes_no_changes_until_it_is_restored(self, ada):
        experiment_id = await an_experiment(ada)
        run_id = await a_run(ada, experiment_id)
        assert (await ada.http.delete(f"/api/runs/{run_id}")).status_code == 204
        assert (await ada.http.delete(f"/api/runs/{run_id}")).status_code == 204
        assert (await get(ada, run_id))["deleted_at"] is not None
        for path, body in (("", {"notes": "x"}), ("/params", {"parameters": {"a": 1}}), ("/metrics", {"a": 1})):
            send = ada.http.post if path else ada.http.patch
            response = await send(f"/api/runs/{run_id}{path}", json=body)
            assert (response.status_code, response.json()["code"]) == (409, "run_deleted")
        url = f"/api/experiments/{experiment_id}/runs"
        assert (await ada.http.get(url)).json()["items"] == []
        assert len((await ada.http.get(url, params={"deleted": "only"})).json()["items"]) == 1
        assert (await ada.http.post(f"/api/runs/{run_id}/restore")).json()["deleted_at"] is None
        assert len((await ada.http.get(url)).json()["items"]) == 1

    async def test_a_run_is_not_found_below_another_experiment(self, ada):
        other, run_id = await an_experiment(ada, "other"), await a_run(ada)
        base = f"/api/experiments/{other}/runs/{run_id}"
        answers = [
            await ada.http.get(base),
            await ada.http.patch(base, json={}),
            await ada.http.delete(base),
            await ada.http.post(f"{base}/metrics", json={"a": 1}),
            await ada.http.get(f"{base}/metrics"),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5

    async def test_another_projects_run_is_absent(self, ada, platform):
        run_id = await a_run(ada, metrics={"a": 1})
        eve = await platform.caller(SERVICE)
        answers = [
            await eve.http.get(f"/api/runs/{run_id}"),
            await eve.http.patch(f"/api/runs/{run_id}", json={}),
            await eve.http.delete(f"/api/runs/{run_id}"),
            await eve.http.post(f"/api/runs/{run_id}/params", json={"parameters": {"a": 1}}),
            await eve.http.post(f"/api/runs/{run_id}/tags", json={"tags": {"a": "1"}}),
            await eve.http.post(f"/api/runs/{run_id}/metrics", json={"a": 1}),
            await eve.http.get(f"/api/runs/{run_id}/metrics"),
            await eve.http.get(f"/api/runs/{run_id}/metrics/a"),
            await eve.http.get(f"/api/runs/{run_id}/metric-points", params={"key": "a"}),
        ]
        assert [answer.status_code for answer in answers] == [404] * 9


class TestParams:
    async def test_the_same_value_again_is_fine_and_another_is_a_conflict_that_names_both(self, ada):
        run_id = await a_run(ada, parameters={"lr": 0.001, "opt": "adam"})
        url = f"/api/runs/{run_id}/params"
        assert (await ada.http.post(url, json={"parameters": {"lr": 0.001, "opt": "adam"}})).status_code == 200
        response = await ada.http.post(url, json={"parameters": {"fresh": 1, "opt": "sgd"}})
        assert (response.status_code, response.json()["code"]) == (409, "param_changed")
        assert "'adam'" in response.json()["detail"]
        assert "'sgd'" in response.json()["detail"]
        assert "fresh" not in (await get(ada, run_id))["parameters"]

    @pytest.mark.parametrize(("old", "new", "same"), [(1, 1.0, True), (1, True, False), (1, "1", False), ([1], [1], True)])
    async def test_equal_numbers_are_the_same_value_and_other_types_are_not(self, ada, old, new, same):
        run_id = await a_run(ada, parameters={"x": old})
        response = await ada.http.post(f"/api/runs/{run_id}/params", json={"parameters": {"x": new}})
        assert response.status_code == (200 if same else 409)

    async def test_of_ten_writers_of_one_key_one_value_wins(self, ada):
        run_id = await a_run(ada)
        answers = await asyncio.gather(
            *(ada.http.post(f"/api/runs/{run_id}/params", json={"parameters": {"seed": n}}) for n in range(10))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9


class TestRecords:
    async def test_each_change_leaves_an_audit_entry_and_an_event(self, ada, platform):
        run_id = await a_run(ada, parameters={"a": 1})
        await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED"})
        await ada.http.post(f"/api/runs/{run_id}/params", json={"parameters": {"b": 1}})
        await ada.http.post(f"/api/runs/{run_id}/metrics", json={"acc": 1})
        actions = [entry["action"] for entry in (await ada.http.get("/api/platform/audit")).json()["items"]]
        made = {"experiment.created", "run.created", "run.finished", "run.params_added"}
        assert made <= set(actions)
        assert not [action for action in actions if "metric" in action]

    async def test_inputs_are_stated_as_lineage(self, ada):
        run_id = await a_run(ada)
        urn = f"urn:mlops:{ada.project}:training-set:patients"
        response = await ada.http.post(f"/api/runs/{run_id}/inputs", json={"inputs": [urn, urn]})
        assert response.status_code == 201
        assert response.json() == {
            "subject": f"urn:mlops:{ada.project}:run:{run_id}",
            "relation": "used",
            "objects": [urn],
        }

    @pytest.mark.parametrize(
        "urn", ["patients", "urn:mlops:x", f"urn:mlops:{'0' * 32}:training-set:other-project", "urn:mlops:a:b c:d"]
    )
    async def test_an_input_that_is_no_urn_of_the_project_is_refused(self, ada, urn):
        run_id = await a_run(ada)
        response = await ada.http.post(f"/api/runs/{run_id}/inputs", json={"inputs": [urn]})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"].startswith("inputs")
