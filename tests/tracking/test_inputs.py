"""What runs read and made: stated natively, listed, seen by MLflow's clients, and in the lineage graph."""

from typing import Any

import pytest
from sqlalchemy import select

from mlops_platform.core.events.tables import events
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"
CUSTOMERS = {
    "name": "customers",
    "digest": "5f3a9c1e",
    "source_type": "s3",
    "source": "s3://data/customers.parquet",
    "columns": '[{"name":"age","type":"int64"}]',
    "profile": '{"rows":4096}',
    "context": "training",
    "tags": {"part": "1"},
}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def state(caller, run_id, status=201, **body):
    response = await caller.http.post(f"/api/runs/{run_id}/inputs", json=body)
    assert response.status_code == status, response.text
    return response.json()


async def make(caller, run_id, status=201, **body):
    response = await caller.http.post(f"/api/runs/{run_id}/models", json={"name": "churn", **body})
    assert response.status_code == status, response.text
    return response.json()


async def seen(caller, run_id, what):
    return (await caller.http.get(f"/api/runs/{run_id}/{what}")).json()


async def actions(caller, run_id):
    return [entry["action"] for entry in (await caller.http.get("/api/platform/audit")).json()["items"]]


class TestDatasets:
    async def test_a_dataset_is_listed_as_it_was_told(self, ada):
        run_id = await a_run(ada)
        stated = await state(ada, run_id, datasets=[CUSTOMERS])
        assert stated["objects"] == [f"urn:mlops:{ada.project}:dataset:customers@5f3a9c1e"]
        (found,) = await seen(ada, run_id, "inputs")
        assert {key: found[key] for key in CUSTOMERS} == CUSTOMERS

    async def test_it_is_an_input_for_mlflow_too(self, ada):
        run_id = await a_run(ada)
        await state(ada, run_id, datasets=[CUSTOMERS])
        answer = await ada.http.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id})
        (use,) = answer.json()["run"]["inputs"]["dataset_inputs"]
        assert use["dataset"]["schema"] == CUSTOMERS["columns"]
        assert {"key": "mlflow.data.context", "value": "training"} in use["tags"]

    async def test_the_search_finds_runs_by_any_of_the_datasets_that_they_read(self, ada):
        run_id = await a_run(ada)
        await state(ada, await a_run(ada, await an_experiment(ada, "other")), datasets=[{"name": "others", "digest": "1"}])
        await state(ada, run_id, datasets=[CUSTOMERS, {"name": "more", "digest": "2"}])
        for text in (
            "datasets.digest = '5f3a9c1e'",
            "dataset.name LIKE 'cust%' AND datasets.name = 'more'",
            "datasets.context IN ('training') AND NOT datasets.name = 'others'",
            "datasets.context IS NOT NULL",
        ):
            found = await ada.http.get("/api/runs", params={"filter": text})
            assert [run["id"] for run in found.json()["items"]] == [run_id], text

    @pytest.mark.parametrize(
        ("question", "column"),
        [
            ({"filter": "datasets.source = 's3'"}, 10),
            ({"filter": "status = 'RUNNING' AND datasets = 'a'"}, 33),
            ({"filter": "datasets.digest > 5"}, 19),
            ({"order_by": "datasets.name"}, 1),
            ({"fields": "datasets.name"}, 1),
        ],
    )
    async def test_what_cannot_be_asked_of_datasets_is_refused_at_its_column(self, ada, question, column):
        answer = await ada.http.get("/api/runs", params=question)
        assert answer.status_code in {400, 422}, answer.text
        assert f"column {column}" in answer.text, answer.text

    async def test_told_again_it_is_there_once_with_one_entry_in_the_audit(self, ada):
        run_id = await a_run(ada)
        for _ in range(3):
            await state(ada, run_id, datasets=[CUSTOMERS, CUSTOMERS])
        assert len(await seen(ada, run_id, "inputs")) == 1
        assert (await actions(ada, run_id)).count("run.datasets_logged") == 1

    async def test_urns_and_datasets_go_together(self, ada):
        run_id = await a_run(ada)
        urn = f"urn:mlops:{ada.project}:training-set:patients"
        stated = await state(ada, run_id, inputs=[urn], datasets=[{"name": "a b/c", "digest": "sha256:0"}])
        assert stated["objects"] == [urn, f"urn:mlops:{ada.project}:dataset:a%20b%2Fc@sha256%3A0"]
        assert {"run.inputs_stated", "run.datasets_logged"} <= set(await actions(ada, run_id))

    async def test_a_bad_urn_beside_a_dataset_leaves_neither(self, ada):
        run_id = await a_run(ada)
        other = f"urn:mlops:{'0' * 32}:training-set:other"
        await state(ada, run_id, 422, inputs=[other], datasets=[CUSTOMERS])
        assert await seen(ada, run_id, "inputs") == []

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"datasets": []},
            {"datasets": [{"name": "a"}]},
            {"datasets": [{"name": "", "digest": "1"}]},
            {"datasets": [{"name": "a", "digest": "1" * 129}]},
            {"datasets": [{"name": "a", "digest": "1", "tags": {"k": "v" * 501}}]},
            {"datasets": [{"name": "a", "digest": "1", "source": "\x00"}]},
            {"datasets": [{"name": "a", "digest": "1"}] * 101},
        ],
    )
    async def test_what_is_no_dataset_is_refused(self, ada, body):
        await state(ada, await a_run(ada), 422, **body)

    async def test_a_deleted_run_reads_nothing(self, ada):
        run_id = await a_run(ada)
        await ada.http.delete(f"/api/runs/{run_id}")
        assert (await state(ada, run_id, 409, datasets=[CUSTOMERS]))["code"] == "run_deleted"

    async def test_the_experiment_of_the_path_must_be_the_runs(self, ada):
        run_id = await a_run(ada)
        other = await an_experiment(ada, "other")
        for what, body in (("inputs", {"datasets": [CUSTOMERS]}), ("models", {"name": "m"})):
            answer = await ada.http.post(f"/api/experiments/{other}/runs/{run_id}/{what}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
        assert await seen(ada, run_id, "inputs") == await seen(ada, run_id, "models") == []


class TestModels:
    async def test_a_model_is_listed_with_the_run_that_made_it(self, ada):
        run_id = await a_run(ada)
        made = await make(
            ada, run_id, model_type="scikit-learn", path="model", step=3, params={"C": "1"}, tags={"team": "vision"}
        )
        assert (made["status"], made["direction"], made["step"], made["path"]) == ("READY", "output", 3, "model")
        assert await seen(ada, run_id, "models") == [made]
        assert {"logged_model.created", "run.models_logged"} <= set(await actions(ada, run_id))

    async def test_mlflow_finds_it_and_its_files_among_the_artifacts_of_the_run(self, ada):
        run_id = await a_run(ada)
        await ada.http.put(f"/api/runs/{run_id}/artifacts/model/weights.bin", content=b"weights")
        made = await make(ada, run_id, path="model")
        info = (await ada.http.get(f"/api/2.0/mlflow/logged-models/{made['id']}")).json()["model"]["info"]
        assert (info["status"], info["source_run_id"], info["name"]) == ("LOGGED_MODEL_READY", run_id, "churn")
        place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
        answer = await ada.http.get(f"/api/2.0/mlflow-artifacts/artifacts/{place}/weights.bin")
        assert answer.content == b"weights"
        listed = await ada.http.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": place})
        assert [file["path"] for file in listed.json()["files"]] == ["weights.bin"]

    async def test_the_same_request_again_makes_it_once(self, ada):
        run_id = await a_run(ada)
        answers = [
            await ada.http.post(f"/api/runs/{run_id}/models", json={"name": "m"}, headers={"Idempotency-Key": "one"})
            for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()
        assert len(await seen(ada, run_id, "models")) == 1

    async def test_said_again_it_is_one_and_said_otherwise_another(self, ada):
        run_id = await a_run(ada)
        first = await make(ada, run_id, path="model", tags={"a": "1"})
        assert await make(ada, run_id, path="model", tags={"a": "1"}) == first
        others: list[dict[str, Any]] = [
            {"path": "model"},
            {"path": "other", "tags": {"a": "1"}},
            {"path": "model", "tags": {"a": "1"}, "step": 1},
        ]
        ids = {first["id"], *[(await make(ada, run_id, **body))["id"] for body in others]}
        assert len(ids) == len(await seen(ada, run_id, "models")) == 4

    async def test_it_goes_with_its_run_and_one_with_files_of_its_own_stays(self, ada):
        run_id = await a_run(ada)
        number = (await ada.http.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id})).json()["run"]["info"]
        of_run = (await make(ada, run_id, path="model"))["id"]
        body = {"experiment_id": number["experiment_id"], "name": "own", "source_run_id": run_id}
        own = (await ada.http.post("/api/2.0/mlflow/logged-models", json=body)).json()["model"]["info"]["model_id"]
        await ada.http.delete(f"/api/runs/{run_id}")
        assert (await ada.http.post(f"/api/runs/{run_id}/purge")).status_code in {200, 204}
        answers = [await ada.http.get(f"/api/2.0/mlflow/logged-models/{model_id}") for model_id in (of_run, own)]
        assert [answer.status_code for answer in answers] == [404, 200]

    async def test_that_it_went_with_its_run_is_audited_and_told(self, ada, platform):
        run_id = await a_run(ada)
        model_id = (await make(ada, run_id, path="model"))["id"]
        await ada.http.delete(f"/api/runs/{run_id}")
        await ada.http.post(f"/api/runs/{run_id}/purge")
        entries = (await ada.http.get("/api/platform/audit")).json()["items"]
        purged = [entry["resource"] for entry in entries if entry["action"] == "logged_model.purged"]
        assert purged == [f"urn:mlops:{ada.project}:logged-model:{model_id}"]
        async with platform.runtime.database.read() as session:
            mine = (events.c.project_id == ada.project) & (events.c.type == "logged_model.purged")
            assert [row.subject for row in await session.all(select(events).where(mine))] == purged

    @pytest.mark.parametrize(
        "body",
        [
            {"name": ""},
            {"name": "a/b"},
            {"name": "a.b"},
            {"path": "../../etc"},
            {"path": "/model"},
            {"path": ""},
            {"step": -1},
            {"params": {"a": 1}},
            {"params": {"a": "x" * 6001}},
        ],
    )
    async def test_what_is_no_model_is_refused(self, ada, body):
        run_id = await a_run(ada)
        await make(ada, run_id, 422, **body)
        assert await seen(ada, run_id, "models") == []

    async def test_a_deleted_run_makes_nothing(self, ada):
        run_id = await a_run(ada)
        await ada.http.delete(f"/api/runs/{run_id}")
        assert (await make(ada, run_id, 409))["code"] == "run_deleted"
