"""A training script as people write them: autolog, a grid search, a model that is loaded again."""

import mlflow  # type: ignore[import-not-found]
import numpy as np
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from tests.factories.checks import run_checks

client = MlflowClient()
mlflow.set_experiment("iris")
mlflow.autolog(log_input_examples=True)
DATA, TARGET = load_iris(return_X_y=True, as_frame=True)


def check_a_grid_search_is_recorded_with_its_trials():
    search = GridSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0, 10.0]}, cv=2)
    with mlflow.start_run(run_name="grid") as run:
        search.fit(DATA, TARGET)
    parent = client.get_run(run.info.run_id)
    assert parent.data.params["best_C"] == str(search.best_params_["C"])
    assert abs(parent.data.metrics["best_cv_score"] - search.best_score_) < 1e-12
    assert "training_score" in parent.data.metrics
    assert [it.dataset.source_type for it in parent.inputs.dataset_inputs] == ["code"]
    children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", output_format="list")
    assert sorted(it.data.params["C"] for it in children) == ["0.1", "1.0", "10.0"]
    assert {it.info.status for it in children} == {"FINISHED"}
    assert {it.path for it in client.list_artifacts(run.info.run_id)} >= {"cv_results.csv", "estimator.html"}
    return run.info.run_id


def check_a_model_is_logged_and_loaded_again():
    model = LogisticRegression(max_iter=300)
    with mlflow.start_run() as run:
        model.fit(DATA, TARGET)
    outputs = client.get_run(run.info.run_id).outputs.model_outputs
    assert len(outputs) == 1
    logged = mlflow.get_logged_model(outputs[0].model_id)
    assert str(logged.status) == "READY"
    assert logged.source_run_id == run.info.run_id
    loaded = mlflow.sklearn.load_model(f"models:/{logged.model_id}")
    assert np.array_equal(loaded.predict(DATA), model.predict(DATA))
    again = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(again.predict(DATA), model.predict(DATA))
    files = {it.path for it in client.list_logged_model_artifacts(logged.model_id)}
    assert {"MLmodel", "model.pkl"} <= files or {"MLmodel", "model.skops"} <= files, files
    assert {metric.key for metric in logged.metrics} >= {"training_score"}
    return [run.info.run_id, logged.model_id]


run_checks(globals())
