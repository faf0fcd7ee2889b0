"""`mlops experiment export`, `mlops experiment import` and `mlops import mlflow`, with their exit codes."""

import pytest


@pytest.fixture
async def study(mlops):
    """An experiment with one run; its id and the run's."""
    experiment = (await mlops("experiment", "create", "study", "-q")).out.strip()
    run = (await mlops("run", "create", "study", "-q")).out.strip()
    return experiment, run


async def test_an_experiment_goes_to_a_file_and_comes_back_under_another_name(mlops, study, tmp_path):
    file = tmp_path / "study.zip"
    done = await mlops("experiment", "export", "study", str(file), "-o", "json")
    assert (done.code, done.json) == (0, {"file": str(file), "bytes": file.stat().st_size})
    same = await mlops("experiment", "import", str(file), "-o", "json")
    assert (same.code, same.json["unchanged"], same.json["created"], same.json["whole"]) == (0, 1, 0, True)


async def test_a_conflict_is_named_and_ends_with_one(mlops, study, tmp_path):
    file = tmp_path / "study.zip"
    await mlops("experiment", "export", "study", str(file))
    assert (await mlops("run", "finish", study[1])).code == 0
    done = await mlops("experiment", "import", str(file))
    assert done.code == 1
    assert f"left as it is: run {study[1]}: status, end_time" in done.err.replace("end_time, status", "status, end_time")


async def test_a_damaged_file_is_one_line_and_a_code(mlops, tmp_path):
    file = tmp_path / "bad.zip"
    file.write_bytes(b"PK")
    done = await mlops("experiment", "import", str(file))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "no experiment archive" in done.err


async def test_a_folder_of_mlflow_comes_in_and_what_is_left_out_is_named(mlops, tmp_path):
    root = tmp_path / "mlruns"
    run = root / "0" / ("0" * 32)
    run.mkdir(parents=True)
    (root / "0" / "meta.yaml").write_text("name: from mlflow\nexperiment_id: '0'\ncreation_time: 1700000000000\n")
    (run / "meta.yaml").write_text("run_id: '00000000000000000000000000000000'\nstatus: 3\nstart_time: 1700000000000\n")
    dry = await mlops("import", "mlflow", str(root), "--dry-run", "-o", "json")
    assert (dry.code, dry.json[0]["created"], dry.json[0]["experiment_id"]) == (0, 1, "")
    done = await mlops("import", "mlflow", str(root), "-o", "json")
    assert (done.code, done.json[0]["created"], done.json[0]["whole"]) == (0, 1, True)
    (run / "params").symlink_to(tmp_path)
    (root / "link").symlink_to(tmp_path)
    again = await mlops("import", "mlflow", str(root), "--experiment", "from mlflow")
    assert again.code == 1
    assert "Left out: mlruns: 'link', which is a link" in again.err


async def test_what_is_not_there_is_three(mlops, tmp_path):
    assert (await mlops("import", "mlflow", str(tmp_path / "absent"))).code == 3
    assert (await mlops("experiment", "export", "absent", str(tmp_path / "a.zip"))).code == 3
