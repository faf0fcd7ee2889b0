"""Scripts written for MLflow, with the real frameworks and unchanged: the native API shows the same data."""

import json

import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def told(trained):
    return await trained("mlflow_training.py")


async def files(server, run_id):
    return {entry["path"] for entry in (await server.get(f"/api/runs/{run_id}/artifacts"))["items"]}


async def test_a_grid_search_with_its_trials(told, server):
    done = told["check_grid_search"]
    run = await server.run(done["run"])
    assert run["parameters"]["best_logisticregression__C"] == done["best"]
    assert run["metrics"]["best_cv_score"] == pytest.approx(done["score"])
    children = await server.children(done["run"])
    assert sorted(child["parameters"]["logisticregression__C"] for child in children) == [0.1, 1.0, 10.0]
    assert {child["status"] for child in [run, *children]} == {"FINISHED"}
    found = await server.get("/api/runs", filter=f"parent_run_id = '{done['run']}' AND params.logisticregression__C < 5")
    assert len(found["items"]) == 2
    assert {"cv_results.csv", "training_roc_curve.png"} <= await files(server, done["run"])
    assert {model["name"] for model in await server.models(done["run"])} == {"model", "best_estimator"}


async def test_xgboost_with_every_round(told, server):
    done = told["check_xgboost"]
    run = await server.run(done["run"])
    assert (run["parameters"]["max_depth"], run["metrics"]["best_iteration"]) == (2, done["best"])
    for key in ("train-auc", "valid-auc"):
        # At the end MLflow says the best round once more, at the step after the last one.
        values = await server.values(done["run"], key)
        assert list(values) == list(range(done["rounds"] + 1))
        assert values[done["rounds"]] == values[done["best"]]
    assert {"train", "eval"} == set(await server.inputs(done["run"]))
    assert "feature_importance_weight.json" in await files(server, done["run"])
    (model,) = await server.models(done["run"])
    assert (model["status"], model["direction"]) == ("READY", "output")


async def test_lightgbm_with_every_round(told, server):
    run_id = told["check_lightgbm"]
    assert list(await server.values(run_id, "train-auc")) == list(range(7))
    inputs = await server.inputs(run_id)
    assert json.loads(inputs["train"]["profile"])["num_rows"] == 569
    assert len(await server.models(run_id)) == 1


async def test_lightning_with_every_epoch(told, server):
    run_id = told["check_lightning"]
    run = await server.run(run_id)
    assert (run["status"], run["parameters"]["optimizer_name"], run["parameters"]["lr"]) == ("FINISHED", "Adam", 0.01)
    values = await server.values(run_id, "train_loss")
    assert list(values) == [0, 1, 2]
    assert values[2] == run["metrics"]["train_loss"] < values[0]
    assert "model_summary.txt" in await files(server, run_id)
    assert len(await server.models(run_id)) == 1
