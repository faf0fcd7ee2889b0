"""Every comparator of MLflow's filter language, and its orders, through the stock client."""

import math
from typing import Any

import mlflow  # type: ignore[import-not-found]
from mlflow import MlflowClient

from tests.factories.checks import run_checks
from tests.tracking.mlflow.client.harness import refused

client = MlflowClient()
EXPERIMENT = client.create_experiment("searched")
RUNS: dict[str, dict[str, Any]] = {
    "a": {"acc": 0.5, "lr": "0.1", "team": "vision", "start": 1000},
    "b": {"acc": 0.9, "lr": "0.01", "team": "Vision", "start": 2000},
    "c": {"acc": math.nan, "lr": "adam", "team": "text", "start": 3000},
    "d": {"start": 4000},
}
IDS = {}
for _name, _given in RUNS.items():
    _tags = {"team": _given["team"]} if "team" in _given else {}
    _run = client.create_run(EXPERIMENT, start_time=_given["start"], run_name=_name, tags=_tags)
    IDS[_name] = _run.info.run_id
    if "acc" in _given:
        client.log_metric(_run.info.run_id, "acc", _given["acc"])
        client.log_metric(_run.info.run_id, "train/loss x", 1.0)
        client.log_param(_run.info.run_id, "lr", _given["lr"])
        client.log_param(_run.info.run_id, "odd key", "it's")
client.set_terminated(IDS["a"], "FAILED", end_time=5000)
NEWEST_FIRST = "dcba"


def found(text, **options):
    runs = client.search_runs([EXPERIMENT], filter_string=text, **options)
    return "".join(it.info.run_name for it in runs)


def check_every_comparator_finds_what_mlflow_would_find():
    expected = {
        "": "dcba",
        "metrics.acc > 0.5": "b",
        "metrics.acc >= 0.5": "ba",
        "metrics.acc = 0.5": "a",
        "metric.acc < 0.9": "a",
        "metrics.acc <= 0.9": "ba",
        "metrics.acc > -1e3": "ba",
        "metrics.`train/loss x` = 1": "cba",
        'metrics."train/loss x" = 1.0': "cba",
        "params.lr = '0.1'": "a",
        "params.lr != '0.1'": "cb",
        "params.lr LIKE '0.%'": "ba",
        "parameter.lr ILIKE 'ADAM'": "c",
        "params.lr IS NULL": "d",
        "params.lr IS NOT NULL": "cba",
        'params.`odd key` = "it\'s"': "cba",
        "tags.team = 'vision'": "a",
        "tag.team != 'vision'": "cb",
        "tags.team LIKE 'vis%'": "a",
        "tags.team ilike '%VIS%'": "ba",
        "tags.team IS NULL": "d",
        "tags.team IS NOT NULL AND params.lr = 'adam'": "c",
        "tags.mlflow.runName = 'b'": "b",
        "attributes.status = 'RUNNING'": "dcb",
        "status != 'RUNNING'": "a",
        "attribute.status LIKE 'FAIL%'": "a",
        "run_name = 'c'": "c",
        "attributes.`Run name` ILIKE 'C'": "c",
        "start_time > 2000": "dc",
        "attributes.start_time <= 2000": "ba",
        "created = 3000": "c",
        "end_time >= 5000": "a",
        "user_id != 'nobody'": "dcba",
        f"run_id = '{IDS['b']}'": "b",
        f"run_id IN ('{IDS['b']}', '{IDS['d']}')": "db",
        f"attributes.run_id NOT IN ('{IDS['b']}')": "dca",
        f"artifact_uri LIKE '%{IDS['c']}%'": "c",
        "metrics.acc > 0.1 and params.lr = '0.01' AND tags.team = 'Vision'": "b",
        "metrics.never > 0": "",
        "tags.never != 'x'": "",
    }
    wrong = {text: found(text) for text, names in expected.items() if found(text) != names}
    assert wrong == {}
    return len(expected)


def check_what_mlflow_does_not_read_is_refused():
    for text in (
        "metrics.acc > 0.5 OR params.lr = '0.1'",
        "(metrics.acc > 0.5)",
        "NOT metrics.acc > 0.5",
        "metrics.acc LIKE '0.5'",
        "metrics.acc > '0.5'",
        "params.lr > '0.1'",
        "params.lr = 0.1",
        "tags.team = vision",
        "status > 'RUNNING'",
        "start_time LIKE '1'",
        "run_name IN ('a')",
        "run_id IN ()",
        "nonsense.x = 'y'",
        "attributes.nonsense = 'y'",
        "datasets.nonsense = 'y'",
        "metrics.acc",
        "metrics.acc >",
        "metrics.acc > 0.5 AND",
        "metrics.acc > 0.5 metrics.acc > 0.6",
        "status IS NULL",
        "metrics.acc IS NULL",
    ):
        refused("INVALID_PARAMETER_VALUE", client.search_runs, [EXPERIMENT], text)
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [EXPERIMENT], order_by=["metrics.acc UP"])
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [EXPERIMENT], order_by=["metrics.acc", "metrics.acc DESC"])
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [EXPERIMENT], page_token="nonsense")
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [EXPERIMENT], max_results=50_001)


def check_orders_put_nan_after_numbers_and_what_is_missing_last():
    assert found("", order_by=["metrics.acc"]) == "abcd"
    assert found("", order_by=["metrics.acc DESC"]) == "bacd"
    assert found("", order_by=["params.lr ASC"]) == "bacd"
    assert found("", order_by=["params.lr DESC"]) == "cabd"
    assert found("", order_by=["tags.team"]) == "bcad"
    assert found("", order_by=["end_time DESC"]) == "adcb"
    assert found("", order_by=["start_time"]) == "abcd"
    assert found("", order_by=["status", "run_name DESC"]) == "adcb"
    assert found("", order_by=["metrics.`train/loss x`", "params.lr DESC"]) == "cabd"
    assert found("", order_by=["attributes.run_name"]) == "abcd"


def check_pages_give_each_run_once_and_the_last_has_no_token():
    for order in ([], ["metrics.acc DESC"], ["params.lr", "run_name"]):
        names, token, pages = "", None, 0
        while pages == 0 or token:
            page = client.search_runs([EXPERIMENT], order_by=order, max_results=2, page_token=token)
            names, token, pages = names + "".join(it.info.run_name for it in page), page.token, pages + 1
        assert names == found("", order_by=order)
        assert pages == 2


def check_experiments_are_searched():
    for name in ("Exp-1", "exp-2", "other"):
        client.create_experiment(name, tags={"kind": name[:3]})

    def names(text, **options):
        return [it.name for it in client.search_experiments(filter_string=text, **options)]

    assert names("name LIKE 'exp%'") == ["exp-2"]
    assert names("name ILIKE 'exp%'", order_by=["name DESC"]) == ["exp-2", "Exp-1"]
    assert names("tags.kind = 'oth'") == ["other"]
    assert names("attribute.name != 'other' AND tags.kind IS NOT NULL", order_by=["name"]) == ["Exp-1", "exp-2"]
    assert names("tags.kind IS NULL", order_by=["experiment_id"]) == ["Default", "searched"]
    assert names("creation_time > 0 AND experiment_id IN ('0')") == ["Default"]
    assert names("")[0] == "other"
    first = client.search_experiments(max_results=2)
    rest = client.search_experiments(max_results=10, page_token=first.token)
    assert len(first) == 2
    assert len({it.name for it in [*first, *rest]}) == 5
    assert rest.token is None
    refused("INVALID_PARAMETER_VALUE", client.search_experiments, filter_string="name > 'a'")
    refused("INVALID_PARAMETER_VALUE", client.search_experiments, max_results=0)


def check_the_fluent_search_gives_a_frame():
    frame = mlflow.search_runs([EXPERIMENT], order_by=["metrics.acc DESC"])
    assert list(frame["tags.mlflow.runName"]) == ["b", "a", "c", "d"]
    assert frame["params.lr"][0] == "0.01"
    assert list(mlflow.search_runs(["123456"])["run_id"] if len(mlflow.search_runs(["123456"])) else []) == []


run_checks(globals())
