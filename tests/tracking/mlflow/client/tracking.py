"""Experiments, runs, metrics, parameters, tags, datasets and logged models through the stock client."""

import math
import time

import mlflow  # type: ignore[import-not-found]
import pandas as pd  # type: ignore[import-untyped]
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType  # type: ignore[import-not-found]

from tests.factories.checks import run_checks
from tests.tracking.mlflow.client.harness import refused

client = MlflowClient()
DELETED = "must be in the 'active' state. Current state is deleted."


def check_experiment_0_is_there_and_is_called_default():
    assert client.get_experiment("0").name == "Default"
    assert client.get_experiment_by_name("Default").experiment_id == "0"
    assert [it.experiment_id for it in mlflow.search_experiments()] == ["0"]


def check_a_run_without_an_experiment_lands_in_default():
    with mlflow.start_run() as run:
        mlflow.log_param("a", 1)
    assert run.info.experiment_id == "0"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def check_the_fluent_api_records_a_training():
    mlflow.set_experiment("fluent")
    with mlflow.start_run(run_name="first", tags={"team": "vision"}, description="what it is") as run:
        mlflow.log_params({"lr": 0.01, "layers": [64, 32], "optimizer": "adam"})
        for step in range(3):
            mlflow.log_metrics({"loss": 1.0 / (step + 1), "acc": step / 10}, step=step)
        mlflow.log_metric("loss", 0.1, step=3, synchronous=False).wait()
        mlflow.set_tag("done", "yes")
    found = mlflow.get_run(run.info.run_id)
    assert found.info.run_name == "first"
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time
    assert found.data.params == {"lr": "0.01", "layers": "[64, 32]", "optimizer": "adam"}
    assert found.data.metrics == {"loss": 0.1, "acc": 0.2}
    assert found.data.tags["team"] == "vision"
    assert found.data.tags["done"] == "yes"
    assert found.data.tags["mlflow.note.content"] == "what it is"
    assert found.data.tags["mlflow.runName"] == "first"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(it.step, it.value) for it in history] == [(0, 1.0), (1, 0.5), (2, 1.0 / 3), (3, 0.1)]
    assert found.info.artifact_uri.startswith("mlflow-artifacts:/")
    return run.info.run_id


def check_nested_runs_know_their_parent_and_are_found_by_it():
    mlflow.set_experiment("nested")
    with mlflow.start_run() as parent:
        for number in range(3):
            with mlflow.start_run(nested=True, run_name=f"child-{number}") as child:
                mlflow.log_param("number", number)
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list", order_by=["params.number"]
    )
    assert [it.info.run_name for it in children] == ["child-0", "child-1", "child-2"]
    assert {it.data.tags["mlflow.parentRunId"] for it in children} == {parent.info.run_id}
    assert client.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
    return [parent.info.run_id, child.info.run_id]


def check_names_of_experiments_are_taken_also_by_deleted_ones():
    made = client.create_experiment("taken", tags={"a": "b"})
    assert client.get_experiment(made).tags == {"a": "b"}
    assert "already exists" in refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "taken")
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_experiment_by_name("taken").lifecycle_stage == "deleted"
    refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "taken")
    refused("INVALID_PARAMETER_VALUE", client.create_run, made)
    client.restore_experiment(made)
    client.rename_experiment(made, "renamed")
    client.set_experiment_tag(made, "c", "d")
    client.delete_experiment_tag(made, "a")
    assert client.get_experiment(made).name == "renamed"
    assert client.get_experiment(made).tags == {"c": "d"}
    refused("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "987654")
    refused("INVALID_PARAMETER_VALUE", client.get_experiment, "not-a-number")
    assert client.get_experiment_by_name("never made") is None


def check_a_deleted_run_is_read_and_restored_but_not_written():
    run = client.create_run("0", run_name="short")
    run_id = run.info.run_id
    client.log_metric(run_id, "a", 1.0)
    client.delete_run(run_id)
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert DELETED in refused("INVALID_PARAMETER_VALUE", client.log_metric, run_id, "a", 2.0)
    assert DELETED in refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "a", 2.0)
    assert DELETED in refused("INVALID_PARAMETER_VALUE", client.set_tag, run_id, "a", "b")
    assert DELETED in refused("INVALID_PARAMETER_VALUE", client.set_terminated, run_id)
    found = client.search_runs(["0"], run_view_type=ViewType.DELETED_ONLY)
    assert [it.info.run_id for it in found] == [run_id]
    assert run_id not in {it.info.run_id for it in client.search_runs(["0"])}
    client.restore_run(run_id)
    client.log_metric(run_id, "a", 2.0, step=1)
    assert client.get_run(run_id).data.metrics == {"a": 2.0}


def check_runs_of_a_deleted_experiment_count_as_deleted():
    made = client.create_experiment("goes away")
    run_id = client.create_run(made).info.run_id
    client.delete_experiment(made)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert DELETED in refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "a", "b")
    assert list(client.search_runs([made])) == []
    assert len(client.search_runs([made], run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_experiment(made)
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def check_an_unknown_run_is_not_found():
    message = refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "0" * 32)
    assert f"Run with id={'0' * 32} not found" in message
    refused("RESOURCE_DOES_NOT_EXIST", client.get_run, "run-1")
    refused("RESOURCE_DOES_NOT_EXIST", client.log_param, "0" * 32, "a", "b")


def check_a_parameter_does_not_change():
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "depth", 3)
    client.log_param(run_id, "depth", 3)
    message = refused("INVALID_PARAMETER_VALUE", client.log_param, run_id, "depth", 5)
    assert "Changing param values is not allowed. Param with key='depth' was already logged with value='3'" in message
    client.log_param(run_id, "long", "x" * 9000)
    assert len(client.get_run(run_id).data.params["long"]) == 6000
    client.set_tag(run_id, "long", "x" * 9000)
    assert len(client.get_run(run_id).data.tags["long"]) == 8000


def check_a_batch_may_be_sent_again():
    run_id = client.create_run("0").info.run_id
    now = int(time.time() * 1000)
    batch = {
        "metrics": [Metric(f"m{number % 7}", number / 3, now + number, number) for number in range(500)],
        "params": [Param(f"p{number}", str(number)) for number in range(100)],
        "tags": [RunTag(f"t{number}", str(number)) for number in range(100)],
    }
    for _ in range(3):
        client.log_batch(run_id, **batch)
    data = client.get_run(run_id).data
    assert len(data.params) == 100
    assert data.tags["t99"] == "99"
    assert sum(len(client.get_metric_history(run_id, f"m{number}")) for number in range(7)) == 500
    changed = {**batch, "params": [Param("p0", "other")]}
    refused("INVALID_PARAMETER_VALUE", client.log_batch, run_id, **changed)


def check_nan_and_the_infinities_come_back():
    run_id = client.create_run("0").info.run_id
    for number, value in enumerate((math.nan, math.inf, -math.inf)):
        client.log_metric(run_id, "odd", value, step=number, timestamp=number)
        client.log_metric(run_id, f"odd{number}", value)
    values = [it.value for it in client.get_metric_history(run_id, "odd")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    metrics = client.get_run(run_id).data.metrics
    assert math.isnan(metrics["odd0"])
    assert (metrics["odd1"], metrics["odd2"]) == (math.inf, -math.inf)


def check_steps_and_times_of_any_kind():
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "m", 1.0, timestamp=0, step=-5)
    client.log_metric(run_id, "m", 2.0, timestamp=1, step=2**40)
    assert [(it.timestamp, it.step) for it in client.get_metric_history(run_id, "m")] == [(0, -5), (1, 2**40)]
    assert client.get_run(run_id).data.metrics == {"m": 2.0}


def check_a_run_is_resumed_and_ends():
    with mlflow.start_run() as run:
        pass
    with mlflow.start_run(run_id=run.info.run_id):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
        mlflow.log_metric("later", 1)
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    client.set_terminated(run.info.run_id, "KILLED")
    client.update_run(run.info.run_id, status="FAILED", name="other")
    info = client.get_run(run.info.run_id).info
    assert (info.status, info.run_name) == ("FAILED", "other")
    assert client.get_run(run.info.run_id).data.tags["mlflow.runName"] == "other"


def check_tags_are_removed():
    run_id = client.create_run("0", tags={"a": "b"}).info.run_id
    client.delete_tag(run_id, "a")
    assert "a" not in client.get_run(run_id).data.tags
    assert "No tag with name: a" in refused("RESOURCE_DOES_NOT_EXIST", client.delete_tag, run_id, "a")
    client.set_tag(run_id, "mlflow.note.content", "a note")
    client.delete_tag(run_id, "mlflow.note.content")
    assert "mlflow.note.content" not in client.get_run(run_id).data.tags


def check_datasets_are_inputs_of_a_run():
    mlflow.set_experiment("data")
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [0, 1, 0]})
    dataset = mlflow.data.from_pandas(frame, source="frame.csv", name="points", targets="y")
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training", tags={"part": "1"})
        mlflow.log_input(dataset, context="training")
    inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert [(it.dataset.name, it.dataset.digest) for it in inputs] == [("points", dataset.digest)]
    assert {tag.key: tag.value for tag in inputs[0].tags} == {"part": "1", "mlflow.data.context": "training"}
    assert mlflow.data.get_source(inputs[0]) is not None
    for condition in ("name = 'points'", "context LIKE 'train%'", f"digest IN ('{dataset.digest}')", "name != 'other'"):
        found = mlflow.search_runs(filter_string=f"datasets.{condition}", output_format="list")
        assert [it.info.run_id for it in found] == [run.info.run_id], condition
    assert mlflow.search_runs(filter_string="dataset.name = 'other'", output_format="list") == []
    return [run.info.experiment_id, run.info.run_id, dataset.digest]


def check_logged_models_have_a_life_of_their_own():
    experiment = mlflow.set_experiment("models")
    with mlflow.start_run() as run:
        model = mlflow.initialize_logged_model(
            "classifier", params={"depth": "3"}, tags={"a": "b"}, model_type="agent", source_run_id=run.info.run_id
        )
        assert str(model.status) == "PENDING"
        mlflow.log_metric("auc", 0.9, step=1, model_id=model.model_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
    found = mlflow.get_logged_model(model.model_id)
    assert str(found.status) == "READY"
    assert (found.params, found.tags["a"], found.model_type) == ({"depth": "3"}, "b", "agent")
    assert [(it.key, it.value, it.run_id) for it in found.metrics] == [("auc", 0.9, run.info.run_id)]
    assert client.get_run(run.info.run_id).data.metrics == {"auc": 0.9}
    mlflow.set_logged_model_tags(model.model_id, {"c": "d"})
    mlflow.delete_logged_model_tag(model.model_id, "a")
    refused("RESOURCE_DOES_NOT_EXIST", mlflow.delete_logged_model_tag, model.model_id, "a")
    mlflow.log_model_params({f"p{number}": str(number) for number in range(150)}, model_id=model.model_id)
    assert len(mlflow.get_logged_model(model.model_id).params) == 151
    other = mlflow.create_external_model("other", params={"depth": "5"})
    for text, names in {
        "params.depth = '3'": ["classifier"],
        "metrics.auc > 0.5": ["classifier"],
        "metrics.auc > 0.95": [],
        "name LIKE 'o%'": ["other"],
        "tags.c = 'd' AND status = 'READY'": ["classifier"],
        f"source_run_id = '{run.info.run_id}'": ["classifier"],
        f"model_id IN ('{other.model_id}')": ["other"],
    }.items():
        models = mlflow.search_logged_models([experiment.experiment_id], filter_string=text, output_format="list")
        assert [it.name for it in models] == names, text
    ordered = mlflow.search_logged_models(
        order_by=[{"field_name": "metrics.auc", "ascending": False}], output_format="list"
    )
    assert [it.name for it in ordered] == ["classifier", "other"]
    assert [it.name for it in mlflow.search_logged_models(output_format="list")] == ["other", "classifier"]
    client.delete_logged_model(other.model_id)
    refused("RESOURCE_DOES_NOT_EXIST", mlflow.get_logged_model, other.model_id)
    return [run.info.run_id, model.model_id]


def check_metrics_of_models_name_their_data():
    mlflow.set_experiment("models on data")
    dataset = mlflow.data.from_pandas(pd.DataFrame({"x": [1.0]}), name="validation", source="v.csv")
    with mlflow.start_run():
        model = mlflow.initialize_logged_model("m")
        mlflow.log_metric("auc", 0.7, dataset=dataset, model_id=model.model_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
    metric = mlflow.get_logged_model(model.model_id).metrics[0]
    assert (metric.dataset_name, metric.dataset_digest) == ("validation", dataset.digest)
    for name, number in (("validation", 1), ("other", 0)):
        models = mlflow.search_logged_models(datasets=[{"dataset_name": name}], output_format="list")
        assert len(models) == number


run_checks(globals())
