"""The stock `mlflow` client, unchanged, against a served app. One process a test: to import it takes seconds."""

import pytest

pytestmark = pytest.mark.timeout(300)


async def test_tracking_works_unchanged_and_the_native_api_shows_the_same(stock_client, caller):
    done = await stock_client("tracking.py")
    run = (await caller.http.get(f"/api/runs/{done['check_the_fluent_api_records_a_training']}")).json()
    assert run["run_name"] == "first"
    assert run["parameters"] == {"lr": 0.01, "layers": "[64, 32]", "optimizer": "adam"}
    assert run["metrics"] == {"loss": 0.1, "acc": 0.2}
    assert run["notes"] == "what it is"
    parent, child = done["check_nested_runs_know_their_parent_and_are_found_by_it"]
    assert (await caller.http.get(f"/api/runs/{child}")).json()["parent_run_id"] == parent
    number, _, digest = done["check_datasets_are_inputs_of_a_run"]
    found = await caller.http.post("/api/2.0/mlflow/experiments/search-datasets", json={"experiment_ids": [number]})
    summary = {"experiment_id": number, "name": "points", "digest": digest, "context": "training"}
    assert found.json() == {"dataset_summaries": [summary]}


async def test_search_finds_with_every_comparator_what_mlflow_would_find(stock_client):
    assert (await stock_client("searching.py"))["check_every_comparator_finds_what_mlflow_would_find"] == 40


async def test_artifacts_go_up_and_come_down_as_they_were(stock_client, caller):
    done = await stock_client("files.py", SIZE_MIB="20")
    run_id = done["check_texts_dicts_and_tables_are_logged"]
    assert (await caller.http.get(f"/api/runs/{run_id}/artifacts/notes/hello.txt")).text == "hello"
    # The client sent parts, for which it has nothing but the token that it was given for them.
    stored = (await caller.http.get("/api/platform/audit", params={"action": "upload.part_stored"})).json()
    assert len(stored["items"]) == 6


@pytest.mark.slow
async def test_an_artifact_of_300_mb_goes_up_and_comes_down(stock_client):
    await stock_client("files.py", SIZE_MIB="300")


async def test_scikit_learn_with_autolog_and_a_grid_search_is_recorded(stock_client, caller):
    done = await stock_client("sklearn_training.py")
    parent = done["check_a_grid_search_is_recorded_with_its_trials"]
    runs = (await caller.http.get("/api/runs", params={"filter": f"parent_run_id = '{parent}' AND params.C < 5"})).json()
    assert len(runs["items"]) == 2
    run_id, model_id = done["check_a_model_is_logged_and_loaded_again"]
    models = (await caller.http.get(f"/api/runs/{run_id}/models")).json()
    assert [(it["id"], it["direction"]) for it in models] == [(model_id, "output")]
    inputs = (await caller.http.get(f"/api/runs/{run_id}/inputs")).json()
    assert [it["context"] for it in inputs] == ["train"]
