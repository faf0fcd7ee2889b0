"""Keras (on PyTorch) and Lightning record themselves, the real ones: what the server has afterwards."""

import json

import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def told(trained):
    return await trained("sdk_networks.py")


async def test_keras_records_params_and_every_epoch(told, server):
    done = told["check_keras"]
    run = await server.run(done["run"])
    parameters = run["parameters"]
    # Given by position, by default, and by the optimizer.
    assert (parameters["batch_size"], parameters["epochs"], parameters["shuffle"]) == (16, 3, True)
    assert (parameters["optimizer_name"], parameters["model_parameters"]) == ("Adam", 19)
    for key in ("loss", "val_loss"):
        assert await server.values(done["run"], key) == dict(enumerate(done[key]))


async def test_keras_tells_its_data_and_its_model(told, server):
    run_id = told["check_keras"]["run"]
    inputs = await server.inputs(run_id)
    assert json.loads(inputs["training"]["profile"]) == {"rows": 64, "columns": 4}
    assert json.loads(inputs["validation"]["profile"]) == {"rows": 16, "columns": 4}
    (model,) = await server.models(run_id)
    assert (model["model_type"], model["tags"]["mlops.format"]) == ("keras", "keras")
    manifest = await server.document(run_id, "model/mlops-model.json")
    assert manifest["signature"]["inputs"] == [{"name": "", "type": "float32", "shape": [-1, 4]}]


async def test_keras_tells_where_it_stopped(told, server):
    done = told["check_keras_that_stops_early"]
    run = await server.run(done["run"])
    assert run["parameters"]["early_stopping_monitor"] == "val_loss"
    assert (run["metrics"]["stopped_epoch"], run["metrics"]["best_epoch"]) == (done["stopped"], 0)
    assert len(await server.values(done["run"], "loss")) == done["stopped"] + 1


async def test_keras_with_a_loader_records_all_but_the_data(told, server):
    run_id = told["check_keras_with_a_loader"]
    assert await server.inputs(run_id) == {}
    assert len(await server.models(run_id)) == 1


async def test_a_model_that_cannot_be_saved_is_trained_and_recorded_without_it(told, server):
    run_id = told["check_keras_with_a_model_that_cannot_be_saved"]
    assert (await server.run(run_id))["status"] == "FINISHED"
    assert list(await server.values(run_id, "loss")) == [0]
    assert await server.models(run_id) == []


@pytest.mark.parametrize("name", ["check_lightning", "check_the_older_name_of_lightning"])
async def test_lightning_records_every_epoch_as_the_training_saw_it(told, server, name):
    done = told[name]
    for key in ("train_loss", "val_loss"):
        assert await server.values(done["run"], key) == dict(enumerate(epoch[key] for epoch in done["seen"]))


async def test_lightning_tells_params_data_and_weights(told, server):
    run_id = told["check_lightning"]["run"]
    expected = {"width": 3, "lr": 0.1, "max_epochs": 4, "optimizer_name": "SGD", "optimizer_momentum": 0.5}
    assert expected.items() <= (await server.run(run_id))["parameters"].items()
    inputs = await server.inputs(run_id)
    assert [json.loads(inputs[context]["profile"])["rows"] for context in ("training", "validation")] == [48, 16]
    assert json.loads(inputs["training"]["columns"])["inputs"] == [{"name": "", "type": "float32", "shape": [-1, 4]}]
    (model,) = await server.models(run_id)
    assert (model["model_type"], model["tags"]["mlops.format"]) == ("pytorch", "pytorch")
    assert (await server.document(run_id, "model/mlops-model.json"))["runs_code_when_loaded"] is False


async def test_what_an_epoch_was_not_validated_with_is_not_recorded_for_it(told, server):
    run_id = told["check_lightning_that_validates_every_second_epoch"]
    assert list(await server.values(run_id, "train_loss")) == [0, 1, 2, 3]
    assert list(await server.values(run_id, "val_loss")) == [1, 3]


async def test_lightning_tells_where_it_stopped(told, server):
    done = told["check_lightning_that_stops_early"]
    run = await server.run(done["run"])
    assert run["parameters"]["early_stopping_monitor"] == "val_loss"
    assert run["metrics"]["stopped_epoch"] == done["stopped"]
    assert run["metrics"]["best_score"] == (await server.values(done["run"], "val_loss"))[0]


async def test_data_that_is_made_when_asked_has_no_digest(told, server):
    run_id = told["check_data_that_is_made_when_asked_is_not_asked"]
    assert await server.inputs(run_id) == {}
    assert list(await server.values(run_id, "train_loss")) == [0]


async def test_a_training_that_fails_is_a_failed_run(told, server):
    found = await server.get("/api/runs", filter="status = 'FAILED'")
    assert [run["run_name"] for run in found["items"]] == ["Broken"]
