"""A folder that others filled is never trusted: what is odd in it is named, and the rest comes in."""

import os
import sqlite3

import pytest

from mlops_platform.sdk.archive.layout import ArchiveError
from mlops_platform.sdk.errors import MlopsError, NotFound
from mlops_platform.sdk.mlflow.database import DatabaseStore, NotADatabase
from mlops_platform.sdk.mlflow.folder import FolderStore
from mlops_platform.sdk.mlflow.places import NotReadable, opened
from mlops_platform.sdk.mlflow.source import MlflowSource, made_id
from mlops_platform.sdk.settings import mlflow_authorization
from tests.conftest import Caller
from tests.conftest import Platform as RunningPlatform

SERVICE = "experiment-tracking"
RUN = "0" * 31 + "a"
STARTED = 1_700_000_000_000


@pytest.fixture
async def ada(platform: RunningPlatform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def sdk(sdk_for, ada: Caller):
    async with sdk_for(ada.key) as client:
        yield client


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def mlruns(tmp_path):
    """A folder with one experiment and one run in it."""
    root = tmp_path / "mlruns"
    write(root / "7" / "meta.yaml", f"name: study\nexperiment_id: '7'\ncreation_time: {STARTED}\nlifecycle_stage: active\n")
    a_run(root, RUN)
    return root


def a_run(root, run_id, experiment="7", **fields):
    meta = {"run_id": run_id, "run_name": "r", "status": 3, "start_time": STARTED, "end_time": STARTED + 5}
    meta |= {"lifecycle_stage": "active", "user_id": "ada", "experiment_id": f"'{experiment}'"} | fields
    write(root / experiment / run_id / "meta.yaml", "".join(f"{key}: {value}\n" for key, value in meta.items()))
    return root / experiment / run_id


async def only(sdk, source, **options):
    (report,) = await sdk.tracking.import_mlflow(source, **options)
    runs = {run.tags["mlops.imported.run_id"]: run async for run in sdk.tracking.search(experiments=[report.experiment_id])}
    return report, runs


class TestFolders:
    async def test_nested_metrics_and_odd_values_come_in(self, sdk, mlruns):
        write(
            mlruns / "7" / RUN / "metrics" / "train" / "loss",
            f"{STARTED} 0.5 1\n{STARTED + 1} nan 2\n{STARTED + 2} -inf 3\n",
        )
        write(mlruns / "7" / RUN / "metrics" / "old", f"{STARTED} 0.25\n")
        write(mlruns / "7" / RUN / "params" / "lr", "1e-3")
        write(mlruns / "7" / RUN / "tags" / "nested" / "key", "a: b\n'c'")
        report, runs = await only(sdk, mlruns)
        assert (report.is_whole, report.points) == (True, 4)
        run = runs[RUN]
        assert (run.parameters, run.tags["nested/key"], run.user) == ({"lr": 0.001}, "a: b\n'c'", "ada")
        points = [(point.step, str(point.value)) async for point in sdk.tracking.history(run.id, "train/loss")]
        assert points == [(1, "0.5"), (2, "nan"), (3, "-inf")]

    async def test_a_link_is_not_followed_and_is_named(self, sdk, mlruns, tmp_path):
        secret = write(tmp_path / "secret" / "key", "the secret")
        run = mlruns / "7" / RUN
        write(run / "artifacts" / "a.txt", "fine")
        for place in ("artifacts/link.txt", "params/link", "tags/link", "metrics/link"):
            (run / place).parent.mkdir(exist_ok=True)
            (run / place).symlink_to(secret)
        (run / "artifacts" / "folder").symlink_to(secret.parent)
        (mlruns / "7" / ("0" * 31 + "b")).symlink_to(run)
        (mlruns / "8").symlink_to(mlruns / "7")
        report, runs = await only(sdk, mlruns)
        assert (report.files, list(runs)) == (1, [RUN])
        said = "\n".join(report.left_out)
        for name in ("'link.txt'", "'folder'", "'link'", "'8'", "0b'"):
            assert f"{name}, which is a link" in said
        assert runs[RUN].parameters == {}
        assert "the secret" not in str(runs)

    @pytest.mark.parametrize("name", ["artifacts", "params", "tags", "metrics"])
    async def test_a_folder_of_a_run_that_is_a_link_is_not_followed(self, sdk, mlruns, tmp_path, name):
        write(tmp_path / "secret" / "key", f"{STARTED} 0.5 1\n")
        (mlruns / "7" / RUN / name).symlink_to(tmp_path / "secret")
        report, runs = await only(sdk, mlruns)
        assert f"run {RUN}: {name!r}, which is a link" in report.left_out
        assert (report.files, report.points, runs[RUN].parameters) == (0, 0, {})
        assert "key" not in runs[RUN].tags

    @pytest.mark.parametrize("link", ["datasets", "datasets/d1"])
    def test_a_dataset_behind_a_link_is_not_read(self, mlruns, tmp_path, link):
        write(tmp_path / "secret" / "d1" / "meta.yaml", "name: secret\ndigest: d\n")
        write(mlruns / "7" / RUN / "inputs" / "i1" / "meta.yaml", "source_type: DATASET\nsource_id: d1\n")
        place = mlruns / "7" / link
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(tmp_path / "secret" / ("" if link == "datasets" else "d1"))
        store = FolderStore(mlruns)
        list(store.experiments())
        (run,) = store.runs("7")
        assert run["inputs"]["dataset_inputs"] == []
        assert f"run {RUN}: {place.name!r}, which is a link" in store.left_out

    def test_a_bin_that_is_a_link_is_not_read(self, mlruns, tmp_path):
        write(tmp_path / "secret" / "8" / "meta.yaml", "name: secret\nexperiment_id: '8'\n")
        (mlruns / ".trash").symlink_to(tmp_path / "secret")
        store = FolderStore(mlruns)
        assert [found["name"] for found in store.experiments()] == ["study"]
        assert ".trash: '.trash', which is a link" in store.left_out

    def test_a_folder_that_became_a_link_after_it_was_listed_is_not_followed(self, mlruns, tmp_path):
        write(mlruns / "7" / RUN / "artifacts" / "a.txt", "fine")
        store = FolderStore(mlruns)
        list(store.experiments())
        (run,) = store.runs("7")
        (file,) = store.files(run)
        (mlruns / "7" / RUN / "artifacts").rename(tmp_path / "moved")
        (mlruns / "7" / RUN / "artifacts").symlink_to(tmp_path / "moved")
        with pytest.raises(NotReadable, match="behind a link"):
            file.open()

    async def test_broken_files_are_named_and_the_rest_comes_in(self, sdk, mlruns):
        run = mlruns / "7" / RUN
        write(run / "metrics" / "loss", f"{STARTED} 0.5 1\nhalf a li\n{STARTED} x 2\n-5 1 1\n")
        write(run / "params" / "binary", b"\xff\xfe")
        write(run / "params" / "fine", "1")
        write(run / "params" / "long", "x" * 20_000)
        write(mlruns / "7" / ("0" * 31 + "c") / "meta.yaml", "status: [")
        write(mlruns / "7" / ("0" * 31 + "d") / "meta.yaml", b"\xff")
        write(mlruns / "7" / ("0" * 31 + "e") / "meta.yaml", "a: &a [1]\nb: *a\n")
        (mlruns / "7" / ("0" * 31 + "f")).mkdir()
        write(mlruns / "9" / "meta.yaml", "just a text")
        report, runs = await only(sdk, mlruns)
        assert (list(runs), runs[RUN].parameters, report.points) == ([RUN], {"fine": 1}, 1)
        said = "\n".join(report.left_out)
        for text in ("2 broken lines", "params/binary", "'long', which", "0c: meta", "0d: meta", "references are not read"):
            assert text in said, text
        assert not report.is_whole

    async def test_a_device_is_no_file(self, sdk, mlruns):
        folder = mlruns / "7" / RUN / "artifacts"
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        report, _ = await only(sdk, mlruns)
        assert report.left_out == [f"run {RUN}: 'pipe', which is no file"]
        with pytest.raises(NotReadable):
            opened(folder / "pipe")

    async def test_names_that_cannot_be_kept_are_named(self, sdk, mlruns):
        folder = mlruns / "7" / RUN / "artifacts"
        for name in ("fine", "back\\slash", "new\nline", b"\xff".decode("utf-8", "surrogateescape")):
            write(folder / name, "x")
        report, runs = await only(sdk, mlruns)
        assert report.files == 1
        assert len(report.left_out) == 3
        assert await sdk.tracking.read_artifact(runs[RUN].id, "fine") == b"x"

    async def test_files_that_lie_elsewhere_are_not_fetched(self, sdk, mlruns):
        a_run(mlruns, RUN, artifact_uri="s3://bucket/7/elsewhere/artifacts")
        report, _ = await only(sdk, mlruns)
        assert report.left_out == [f"run {RUN}: its files, which lie at 's3://bucket/7/elsewhere/artifacts'"]

    async def test_deleted_runs_and_experiments_are_deleted_here_too(self, sdk, ada, mlruns):
        a_run(mlruns, RUN, lifecycle_stage="deleted", deleted_time=STARTED + 9)
        gone = mlruns / ".trash" / "8"
        meta = f"name: old\nexperiment_id: '8'\ncreation_time: {STARTED}\nlast_update_time: {STARTED + 7}\n"
        write(gone / "meta.yaml", meta)
        a_run(mlruns / ".trash", "0" * 31 + "b", "8")
        reports = await sdk.tracking.import_mlflow(mlruns)
        assert [report.is_whole for report in reports] == [True, True]
        study, old = [await sdk.tracking.experiment(report.experiment_id) for report in reports]
        assert (study.run_count, old.run_count) == (0, 1)
        assert str(old.deleted_at) == "2023-11-14 22:13:20.007000+00:00"
        found = await ada.http.post("/api/runs/search", json={"experiment_ids": [study.id], "deleted": "only"})
        assert [run["deleted_at"] for run in found.json()["items"]] == ["2023-11-14T22:13:20.009000Z"]
        assert [report.unchanged for report in await sdk.tracking.import_mlflow(mlruns)] == [1, 0]

    async def test_again_brings_what_is_new_and_names_what_changed(self, sdk, mlruns):
        await only(sdk, mlruns)
        a_run(mlruns, "0" * 31 + "b")
        report, _ = await only(sdk, mlruns)
        assert (report.created, report.unchanged, report.is_whole) == (1, 1, True)
        write(mlruns / "7" / RUN / "tags" / "late", "x")
        report, runs = await only(sdk, mlruns)
        assert (report.created, report.unchanged) == (0, 1)
        assert report.conflicts == [f"run {runs[RUN].id}: tags"]
        assert "late" not in runs[RUN].tags

    async def test_an_experiment_is_chosen_by_name_or_id_and_renamed(self, sdk, mlruns):
        write(mlruns / "8" / "meta.yaml", f"name: other\nexperiment_id: '8'\ncreation_time: {STARTED}\n")
        report, _ = await only(sdk, mlruns, experiments=["7"], name="mine")
        assert report.name == "mine"
        assert (await only(sdk, mlruns, experiments=["study"], name="mine"))[0].unchanged == 1
        with pytest.raises(NotFound, match="absent"):
            await sdk.tracking.import_mlflow(mlruns, experiments=["absent"])
        with pytest.raises(MlopsError, match="there are 2"):
            await sdk.tracking.import_mlflow(mlruns, name="both")

    async def test_a_dry_run_sends_nothing(self, sdk, ada, mlruns):
        (report,) = await sdk.tracking.import_mlflow(mlruns, dry_run=True)
        assert (report.name, report.created) == ("study", 1)
        assert (await ada.http.get("/api/experiments")).json()["items"] == []

    async def test_nothing_is_there(self, sdk, tmp_path):
        with pytest.raises(NotFound):
            await sdk.tracking.import_mlflow(tmp_path / "absent")
        assert list(FolderStore(tmp_path).experiments()) == []


class TestDatabases:
    def test_what_is_no_database_of_mlflow_is_refused(self, tmp_path):
        with pytest.raises(NotADatabase):
            DatabaseStore(write(tmp_path / "text.db", "hello"), None)
        other = tmp_path / "other.db"
        connection = sqlite3.connect(other)
        connection.execute("CREATE TABLE t (a)")
        connection.close()
        with pytest.raises(NotADatabase, match="no such table"):
            DatabaseStore(other, None)

    def test_without_a_folder_only_the_usual_ones_beside_it_are_read(self, tmp_path):
        path = tmp_path / "mlflow.db"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE runs (run_uuid, deleted_time, lifecycle_stage)")
        connection.close()
        for place in (".ssh/id", "mlruns/0/r/artifacts/a.txt", "mlartifacts/0/r/artifacts/b.txt"):
            write(tmp_path / place, "x")
        store = DatabaseStore(path, None)

        def found(uri):
            return [file.path for file in store.files({"info": {"run_id": "r", "artifact_uri": uri}})]

        assert found((tmp_path / "mlruns/0/r/artifacts").as_uri()) == ["a.txt"]
        assert found("./mlruns/0/r/artifacts") == ["a.txt"]
        assert found(str(tmp_path / "mlartifacts/0/r/artifacts")) == ["b.txt"]
        assert found("mlflow-artifacts:/0/r/artifacts") == ["b.txt"]
        assert store.left_out == []
        for uri in ("", str(tmp_path), str(tmp_path / ".ssh"), (tmp_path / ".ssh").as_uri(), "mlflow-artifacts:/../mlruns"):
            assert found(uri) == []
            assert "--artifacts" in store.left_out.pop()
        (tmp_path / "mlruns").rename(tmp_path / "moved")
        (tmp_path / "mlruns").symlink_to(tmp_path / ".ssh")
        assert found("mlruns") == []

    def test_files_are_read_below_the_given_folder_alone(self, tmp_path):
        path = tmp_path / "mlflow.db"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE runs (run_uuid, deleted_time, lifecycle_stage)")
        connection.close()
        write(tmp_path / "mlartifacts" / "0" / "r" / "artifacts" / "a.txt", "fine")
        write(tmp_path / "secret.txt", "secret")
        (tmp_path / "mlartifacts" / "link").symlink_to(tmp_path)
        store = DatabaseStore(path, tmp_path / "mlartifacts")

        def found(uri):
            return [file.path for file in store.files({"info": {"run_id": "r", "artifact_uri": uri}})]

        assert found("mlflow-artifacts:/0/r/artifacts") == ["a.txt"]
        assert found((tmp_path / "mlartifacts" / "0").as_uri()) == ["r/artifacts/a.txt"]
        for uri in (
            "mlflow-artifacts:/../",
            "mlflow-artifacts:/link",
            tmp_path.as_uri(),
            "/etc",
            "s3://b/k",
            "mlflow-artifacts:/%2e%2e",
        ):
            assert found(uri) == []
        assert len(store.left_out) == 6


class TestMadeIds:
    def test_they_are_the_same_each_time_and_others_elsewhere(self):
        assert made_id(STARTED, "run", "e", "r") == made_id(STARTED, "run", "e", "r")
        assert made_id(STARTED, "run", "e", "r") != made_id(STARTED, "run", "f", "r")
        assert made_id(STARTED, "run", "e", "r")[:12] == f"{STARTED:012x}"

    def test_no_id_says_that_it_was_made_tomorrow(self):
        assert int(made_id(STARTED * 10, "run")[:12], 16) < STARTED * 2


def test_credentials_are_those_of_mlflows_own_client():
    assert mlflow_authorization({}) is None
    assert mlflow_authorization({"MLFLOW_TRACKING_TOKEN": "t"}) == "Bearer t"
    both = {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}
    assert mlflow_authorization(both) == "Basic dTpw"


def test_what_it_raises_is_an_error_of_the_client():
    assert issubclass(ArchiveError, MlopsError)
    assert MlflowSource.follows
