"""The pipeline of the demo: a worker imports these functions and runs each in a process of its own.

They are ordinary code over the public SDK. `Platform()` finds the services and a token of the pipeline run in the
environment that the worker gives to a task.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
from pyarrow import parquet
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score

from mlops_platform.cli.demo.candidates import stages
from mlops_platform.cli.demo.data import FEATURE_SET, LABEL, patients
from mlops_platform.sdk import Platform
from mlops_platform.sdk.pipelines import RUN_ID, pipeline, task

MODEL_FILE = "model/model.joblib"
RANKED_BY = "validation_log_loss"
_VALIDATION_SHARE = 0.25
_WINNERS = 2


@task
def join_training_set() -> dict[str, Any]:
    """The measurements of each patient as they were when the diagnosis was made."""
    everyone = patients()
    with Platform() as platform:
        made = platform.features.training_set(
            everyone.labels(), everyone.references, name=FEATURE_SET, description="Patients with a known diagnosis"
        )
    print(f"{made.row_count} rows, digest {made.digest}")  # noqa: T201  # what a task prints is its log
    return {"id": made.id, "rows": made.row_count, "digest": made.digest}


@task
def train(candidate: dict[str, Any], training_set_id: str, experiment: str, pipeline_run_id: str) -> dict[str, Any]:
    """One candidate as a tracked run: parameters, metrics of each stage, the model and a report."""
    name, algorithm = candidate["name"], candidate["algorithm"]
    params = {key: value for key, value in candidate.items() if key not in {"name", "algorithm"}}
    tags = {"pipeline_run": pipeline_run_id, "algorithm": algorithm}
    with Platform() as platform:
        x, y = _read(platform, training_set_id)
        # The rows are in the order of time: what is validated on comes after what is learned from.
        cut = round(len(y) * (1 - _VALIDATION_SHARE))
        parameters = {"algorithm": algorithm, **params, "training_rows": cut, "validation_rows": len(y) - cut}
        with platform.tracking.run(experiment, run_name=name, parameters=parameters, tags=tags) as run:
            run.log_inputs([f"urn:mlops:{platform.admin.whoami().project_id}:training-set:{training_set_id}"])
            for stage, fitted in stages(algorithm, params, x[:cut], y[:cut]):
                model, chances = fitted, fitted.predict_proba(x[cut:])[:, 1]
                run.log_metrics(
                    {
                        "training_log_loss": log_loss(y[:cut], model.predict_proba(x[:cut])[:, 1]),
                        RANKED_BY: log_loss(y[cut:], chances),
                        "validation_accuracy": accuracy_score(y[cut:], chances > 0.5),
                        "validation_auc": roc_auc_score(y[cut:], chances),
                    },
                    step=stage,
                )
            with TemporaryDirectory() as folder:
                file = Path(folder) / "model.joblib"
                joblib.dump(model, file, compress=1)
                run.log_artifact(file, MODEL_FILE)
            report = {
                "confusion_matrix": confusion_matrix(y[cut:], chances > 0.5).tolist(),
                "order": ["benign", "malignant"],
            }
            run.log_text(json.dumps(report), "report/validation.json")
            if not run.flush():
                # Recording never fails a training by itself; here what follows reads the metrics.
                raise RuntimeError(f"The metrics of run {run.id} have not reached Experiment Tracking.")
        print(f"{name}: run {run.id}")  # noqa: T201
        return {"run_id": run.id, "name": name, "parameters": parameters}


@task
def evaluate(trained: list[dict[str, Any]], pipeline_run_id: str) -> dict[str, Any]:
    """The runs of this pipeline run in the order of their validation loss, as Tracking has them."""
    with Platform() as platform:
        found = list(
            platform.tracking.search(f"tags.pipeline_run = '{pipeline_run_id}'", order_by=[f"metrics.{RANKED_BY} ASC"])
        )
    expected = {candidate["run_id"] for candidate in trained}
    ranking = [
        {"run_id": run.id, "name": run.run_name, "metrics": dict(run.metrics)} for run in found if run.id in expected
    ]
    if len(ranking) != len(expected):
        raise RuntimeError(f"{len(expected)} candidates were trained, and Tracking knows {len(ranking)} of them.")
    return {"ranking": ranking, "best": ranking[:_WINNERS]}


@task
def register(best: list[dict[str, Any]], training_set_id: str, model: str, pipeline_run_id: str) -> list[dict[str, Any]]:
    """The best candidates as versions of the model, the first one first, each with its file and where it comes from."""
    with Platform() as platform, TemporaryDirectory() as folder:
        return [
            _register(platform, Path(folder) / one["run_id"], one, training_set_id, model, pipeline_run_id) for one in best
        ]


def _register(
    platform: Platform, folder: Path, one: dict[str, Any], training_set_id: str, model: str, pipeline_run_id: str
) -> dict[str, Any]:
    run = platform.tracking.get_run(one["run_id"])
    file = platform.tracking.download_artifacts(run.id, MODEL_FILE, to=folder)
    made = platform.registry.create_version(
        model,
        framework="scikit-learn",
        metrics=run.metrics,
        params=run.parameters,
        tags=["demo", str(run.parameters["algorithm"])],
        description=f"Run {run.run_name} of the demo.",
        run_id=run.id,
        training_set_id=training_set_id,
        pipeline_run_id=pipeline_run_id,
    )
    platform.registry.upload(model, made.version, file, path=Path(MODEL_FILE).name)
    ready = platform.registry.finalize(model, made.version)
    print(f"{model} {ready.version} is {ready.status.value}: {run.run_name}")  # noqa: T201
    return {"version": ready.version, "name": run.run_name, "run_id": run.id}


@pipeline(name="breast-cancer-training")
def breast_cancer_training(experiment: str, model: str, candidates: list[Any]) -> None:
    """Point-in-time training set, candidates trained in parallel, evaluation, the best two registered."""
    run_id = str(RUN_ID)
    training_set: Any = join_training_set()
    trained: Any = train.map(candidates, training_set_id=training_set["id"], experiment=experiment, pipeline_run_id=run_id)
    ranked: Any = evaluate(trained, run_id)
    register(ranked["best"], training_set["id"], model, run_id)


def _read(platform: Platform, training_set_id: str) -> tuple[Any, Any]:
    table = parquet.read_table(platform.features.training_data(training_set_id, progress=False)).sort_by("event_timestamp")
    columns = [table.column(name).to_numpy() for name in patients().features]
    return np.column_stack(columns), table.column(LABEL).to_numpy()
