"""XGBoost and LightGBM record themselves, the real ones: what the server has afterwards."""

import json

import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def told(trained):
    return await trained("sdk_boosters.py")


async def test_xgboost_records_params_every_round_and_where_it_stopped(told, server):
    done = told["check_xgboost_train"]
    run = await server.run(done["run"])
    assert run["status"] == "FINISHED"
    expected = {"max_depth": 2, "eta": 0.3, "eval_metric": ["logloss", "auc"], "num_boost_round": 200}
    assert expected.items() <= run["parameters"].items()
    assert run["parameters"]["early_stopping_rounds"] == 3
    for key in ("train-logloss", "train-auc", "valid-logloss", "valid-auc"):
        assert list(await server.values(done["run"], key)) == list(range(done["rounds"]))
    assert (run["metrics"]["best_iteration"], run["metrics"]["best_score"]) == (done["best"], done["score"])
    assert max((await server.values(done["run"], "valid-auc")).values()) == done["score"]


async def test_xgboost_tells_its_data_its_model_and_the_importance_of_features(told, server):
    run_id = told["check_xgboost_train"]["run"]
    inputs = await server.inputs(run_id)
    assert set(inputs) == {"training", "validation"}
    assert json.loads(inputs["training"]["profile"]) == {"rows": 426, "columns": 30}
    assert json.loads(inputs["training"]["columns"])["inputs"][0] == {"name": "mean radius", "type": "float"}
    assert (await server.run(run_id))["tags"]["mlops.dataset.digest"] == inputs["training"]["digest"]
    (model,) = await server.models(run_id)
    assert (model["model_type"], model["path"], model["status"], model["direction"]) == (
        "xgboost",
        "model",
        "READY",
        "output",
    )
    assert model["tags"]["mlops.framework_version"].startswith("3.")
    manifest = await server.document(run_id, "model/mlops-model.json")
    assert manifest["signature"]["inputs"][0]["name"] == "mean radius"
    assert manifest["requirements"][0].startswith("xgboost")
    ranked = (await server.document(run_id, "feature_importance.json"))["data"]
    assert ranked == sorted(ranked, key=lambda pair: -pair[1])
    assert ranked[0][0] in {column["name"] for column in manifest["signature"]["inputs"]}


async def test_names_of_columns_are_a_part_of_the_digest(told, server):
    named = await server.inputs(told["check_xgboost_train"]["run"])
    nameless = await server.inputs(told["check_xgboost_of_a_matrix_without_names"])
    assert json.loads(nameless["training"]["columns"])["inputs"][1] == {"name": "f1", "type": "float"}
    assert nameless["training"]["digest"] != named["training"]["digest"]


async def test_a_matrix_that_keeps_no_rows_is_trained_without_a_dataset(told, server):
    run_id = told["check_xgboost_of_a_matrix_that_keeps_no_rows"]
    assert await server.inputs(run_id) == {}
    assert len(await server.models(run_id)) == 1


async def test_of_many_rows_some_are_hashed_and_all_are_counted(told, server):
    inputs = await server.inputs(told["check_xgboost_of_more_rows_than_are_hashed"])
    assert json.loads(inputs["training"]["profile"]) == {"rows": 30_001, "columns": 2}


async def test_xgboost_by_the_way_of_scikit_learn_records_every_round_too(told, server):
    done = told["check_xgboost_by_the_way_of_scikit_learn"]
    run = await server.run(done["run"])
    assert run["tags"]["estimator_class"] == "xgboost.sklearn.XGBClassifier"
    assert list(await server.values(done["run"], "validation_1-auc")) == list(range(done["rounds"]))
    assert run["metrics"]["best_iteration"] == done["best"]
    assert {"training_accuracy", "training_log_loss"} <= set(run["metrics"])
    assert set(await server.inputs(done["run"])) == {"training", "validation"}
    (model,) = await server.models(done["run"])
    assert model["tags"]["mlops.class"] == "xgboost.sklearn.XGBClassifier"
    manifest = await server.document(done["run"], "model/mlops-model.json")
    assert set(manifest["signature"]) == {"inputs", "outputs"}
    assert len((await server.document(done["run"], "feature_importance.json"))["data"]) == 30


async def test_the_candidates_of_a_grid_search_are_runs_and_their_rounds_are_not_mixed_into_it(told, server):
    run_id = told["check_xgboost_in_a_grid_search"]
    children = await server.children(run_id)
    assert sorted(child["parameters"]["max_depth"] for child in children) == [1, 2]
    run = await server.run(run_id)
    assert run["metrics"]["best_score"] == max(child["metrics"]["mean_test_score"] for child in children)
    assert not [key for key in run["metrics"] if key.startswith("validation")]
    assert len(await server.models(run_id)) == 1


async def test_lightgbm_records_params_every_round_and_where_it_stopped(told, server):
    done = told["check_lightgbm_train"]
    run = await server.run(done["run"])
    assert run["parameters"]["metric"] == ["binary_logloss", "auc"]
    for key in ("train-auc", "valid-binary_logloss"):
        assert list(await server.values(done["run"], key)) == list(range(done["best"] + 3))  # the patience
    assert run["metrics"]["best_iteration"] == done["best"]
    inputs = await server.inputs(done["run"])
    assert set(inputs) == {"training", "validation"}
    (model,) = await server.models(done["run"])
    assert model["model_type"] == "lightgbm"


async def test_lightgbm_by_the_way_of_scikit_learn_records_every_round_too(told, server):
    run_id = told["check_lightgbm_by_the_way_of_scikit_learn"]
    assert list(await server.values(run_id, "valid-l2")) == list(range(8))
    assert "best_iteration" not in (await server.run(run_id))["metrics"]
    assert set(await server.inputs(run_id)) == {"training", "validation"}


async def test_columns_with_categories_are_told(told, server):
    inputs = await server.inputs(told["check_frames_with_categories"])
    columns = json.loads(inputs["training"]["columns"])["inputs"]
    assert columns == [{"name": "a", "type": "float64"}, {"name": "b", "type": "category"}]


async def test_a_training_that_fails_is_a_failed_run(told, server):
    found = await server.get("/api/runs", filter="status = 'FAILED'")
    assert [run["run_name"] for run in found["items"]] == ["xgboost"]
