"""Artifacts up and down through the stock client."""

import hashlib
import os
import random
import time
from pathlib import Path

import mlflow  # type: ignore[import-not-found]
import pytest
from mlflow import MlflowClient

from tests.factories.checks import run_checks

client = MlflowClient()
RUN = client.create_run("0").info.run_id
MIB = 1024 * 1024
SIZE = int(os.environ["SIZE_MIB"]) * MIB


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def check_a_large_file_comes_back_as_it_went():
    source = Path("large.bin")
    source.write_bytes(random.Random(1).randbytes(SIZE))
    down = Path("down")
    down.mkdir()
    begun = time.perf_counter()
    client.log_artifact(RUN, str(source), "data")
    sent = time.perf_counter()
    got = client.download_artifacts(RUN, "data/large.bin", str(down))
    received = time.perf_counter()
    assert digest(got) == digest(source)
    listed = client.list_artifacts(RUN, "data")
    assert [(it.path, it.is_dir, it.file_size) for it in listed] == [("data/large.bin", False, SIZE)]
    return [SIZE / MIB / (sent - begun), SIZE / MIB / (received - sent)]


def check_a_large_file_may_go_in_parts():
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(MIB)
    os.environ["MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE"] = str(5 * MIB)
    source = Path("parts.bin")
    source.write_bytes(random.Random(2).randbytes(12 * MIB + 1))
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(source), "in/parts")
        client.log_artifact(run.info.run_id, str(source))
    got = client.download_artifacts(run.info.run_id, "in/parts/parts.bin", "down")
    assert digest(got) == digest(source)
    assert [it.path for it in client.list_artifacts(run.info.run_id)] == ["in", "parts.bin"]
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(500 * MIB)


def check_a_tree_keeps_its_names():
    root = Path("tree")
    for name in ("a.txt", "sub/b.txt", "sub/deep/ü c.txt", "sub/empty"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("" if name == "sub/empty" else name, encoding="utf-8")
    client.log_artifacts(RUN, str(root), "tree")
    assert [it.path for it in client.list_artifacts(RUN, "tree")] == ["tree/a.txt", "tree/sub"]
    assert [it.path for it in client.list_artifacts(RUN)] == ["data", "tree"]
    assert client.list_artifacts(RUN, "tree/a.txt") == []
    assert client.list_artifacts(RUN, "nowhere") == []
    down = Path(client.download_artifacts(RUN, "tree", "."))
    names = {str(path.relative_to(down)) for path in down.rglob("*") if path.is_file()}
    assert names == {"a.txt", "sub/b.txt", "sub/deep/ü c.txt", "sub/empty"}
    assert (down / "sub/b.txt").read_text() == "sub/b.txt"


def check_texts_dicts_and_tables_are_logged():
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "config.json")
        mlflow.log_table({"x": [1, 2]}, "table.json")
        uri = mlflow.get_artifact_uri("notes/hello.txt")
    assert mlflow.artifacts.load_text(uri) == "hello"
    assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/config.json") == {"a": 1}
    assert len(mlflow.load_table("table.json", run_ids=[run.info.run_id])) == 2
    assert {it.path for it in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)} == {
        "config.json",
        "notes",
        "table.json",
    }
    return run.info.run_id


def check_what_is_not_there_or_lies_outside_is_refused():
    with pytest.raises(Exception, match=r"404|none\.bin"):
        client.download_artifacts(RUN, "data/none.bin", ".")
    with pytest.raises(Exception, match='"error_code":"INVALID_PARAMETER_VALUE","message":"Invalid path"'):
        client.list_artifacts(RUN, "../x")


def check_artifacts_are_deleted():
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(
        client.get_run(RUN).info.artifact_uri
    )
    repository.delete_artifacts("tree/sub")
    repository.delete_artifacts("tree/sub")
    assert [it.path for it in client.list_artifacts(RUN, "tree")] == ["tree/a.txt"]


run_checks(globals())
