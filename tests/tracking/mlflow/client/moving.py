"""Fills a place of MLflow's with one of everything (`fill`), or tells all that the stock client sees there (`dump`)."""

import json
import math
import sys
import tempfile
from pathlib import Path

import mlflow  # type: ignore[import-not-found]
import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType  # type: ignore[import-not-found]

client = MlflowClient()
NAME = "moving/day"
ORIGIN = "mlops.imported.run_id"


def fill():
    experiment_id = client.create_experiment(NAME, tags={"team": "vision", "mlflow.note.content": "Why *this*?"})
    mlflow.set_experiment(experiment_id=experiment_id)
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": ["a", "b: 'c'\n- d"]})
    with mlflow.start_run(run_name="parent", description="what it is") as parent:
        mlflow.log_params({"lr": "1e-3", "layers": "[64, 32]", "n": 3, "text": "ä: {b}", "long": "x" * 500})
        mlflow.set_tags({"a": "1", "multi": "first\nsecond: line\n", "nested/key": "v"})
        mlflow.log_input(mlflow.data.from_pandas(frame, name="points"), context="training", tags={"k": "v"})
        for key, values in {"odd": [math.nan, math.inf, -math.inf], "train/deep/loss": [0.5, -0.25]}.items():
            for step, value in enumerate(values):
                mlflow.log_metric(key, value, step=step - 1)
        history = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(1000)]
        client.log_batch(parent.info.run_id, metrics=history)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "deep").mkdir()
            Path(folder, "deep", "ü b.bin").write_bytes(bytes(range(256)) * 100)
            Path(folder, "empty.txt").write_bytes(b"")
            mlflow.log_artifacts(folder, "data")
        model = mlflow.initialize_logged_model(name="cats", tags={"m": "1"}, params={"p": "2"})
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "MLmodel").write_text("flavors: {}\n")
            client.log_model_artifacts(model.model_id, folder)
        mlflow.finalize_logged_model(model.model_id, "READY")
        mlflow.log_metric("acc", 0.75, step=2, model_id=model.model_id)
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_metric("loss", 2.0)
    failed = client.create_run(experiment_id, run_name="failed", start_time=1_700_000_000_000)
    client.set_terminated(failed.info.run_id, "FAILED", end_time=1_700_000_001_000)
    going = client.create_run(experiment_id, run_name="going on")
    client.log_batch(going.info.run_id, params=[Param("early", "1")], tags=[RunTag("t", "1")])
    gone = client.create_run(experiment_id, run_name="gone")
    client.log_metric(gone.info.run_id, "loss", 3.0, timestamp=1_700_000_000_000)
    client.set_terminated(gone.info.run_id)
    client.delete_run(gone.info.run_id)
    return experiment_id


def dump():
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    names = {run.info.run_id: run.info.run_name for run in runs}
    tags = {key: value for key, value in experiment.tags.items() if not key.startswith("mlops.")}
    models = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
    return {
        "experiment": [experiment.name, experiment.creation_time, tags],
        "runs": {run.info.run_name: told(run, names) for run in runs},
        "models": [
            [
                model.name,
                str(model.status),
                model.creation_timestamp,
                {key: value for key, value in model.tags.items() if key == "m"},
                dict(model.params),
                names.get(model.source_run_id),
                [
                    [metric.key, metric.value, metric.step, metric.timestamp, names[metric.run_id]]
                    for metric in model.metrics
                ],
                [file.path for file in client.list_logged_model_artifacts(model.model_id)],
            ]
            for model in models
        ],
    }


def told(run, names):
    run_id = run.info.run_id
    history = {
        key: sorted(
            [point.timestamp, point.step, told_value(point.value)] for point in client.get_metric_history(run_id, key)
        )
        for key in run.data.metrics
    }
    skipped = ("mlops.", "mlflow.parentRunId", "mlflow.source", "mlflow.user", "mlflow.log-model")
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith(skipped)}
    return {
        "info": [run.info.status, run.info.lifecycle_stage, run.info.start_time, run.info.end_time, run.info.user_id],
        "parent": names.get(run.data.tags.get("mlflow.parentRunId")),
        "params": run.data.params,
        "tags": tags,
        "history": history,
        "files": dict(sorted(files(run_id))) if run.info.lifecycle_stage == "active" else {},
        "datasets": [
            [
                *(it.dataset.name, it.dataset.digest, it.dataset.schema, it.dataset.profile, it.dataset.source),
                sorted((tag.key, tag.value) for tag in it.tags),
            ]
            for it in run.inputs.dataset_inputs
        ],
        "outputs": [it.step for it in run.outputs.model_outputs],
    }


def told_value(value):
    # The stock SQL store keeps infinities as the greatest numbers.
    if abs(value) > 1e308:
        return "+inf" if value > 0 else "-inf"
    return "nan" if math.isnan(value) else value


def files(run_id, path=None):
    for entry in client.list_artifacts(run_id, path):
        if entry.is_dir:
            yield from files(run_id, entry.path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield entry.path, len(Path(client.download_artifacts(run_id, entry.path, folder)).read_bytes())


def go_on():
    """What becomes of the run that was going on."""
    experiment = client.get_experiment_by_name(NAME)
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'going on'")
    client.log_metric(run.info.run_id, "late", 1.5, step=7)
    client.log_param(run.info.run_id, "late", "yes")
    client.log_text(run.info.run_id, "late", "late.txt")
    client.set_terminated(run.info.run_id, "FINISHED")
    client.create_run(experiment.experiment_id, run_name="new")


sys.stdout.write("\n" + json.dumps({"fill": fill, "dump": dump, "go_on": go_on}[sys.argv[1]]()) + "\n")
