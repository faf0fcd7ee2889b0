"""What a run keeps besides numbers: figures, pictures, tables, models; and what may happen to it meanwhile."""

import hashlib
import io
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
import types
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression

from mlops_platform.sdk import AsyncPlatform, content, models
from mlops_platform.sdk.errors import MissingPackage, NotFound, UntrustedModel
from mlops_platform.sdk.recorder import RecorderWarning
from mlops_platform.sdk.spool import Delivery, Spool
from tests.conftest import Platform as RunningPlatform
from tests.sdk.server import Reply
from tests.sdk.test_recorder import EXPERIMENT, RUN, points_in, tracking_service
from tests.sdk.workers import log_fifty, log_from_a_spawned_process


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


def pixels(png):
    """Height, width, channels and the raw lines of a PNG."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        body = png[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", png[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(png[at + 4 : at + 8] + body)
        parts[png[at + 4 : at + 8]] = body
        at += 12 + size
    width, height, _, kind, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    channels = {0: 1, 2: 3, 6: 4}[kind]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    return lines[:, 1:].reshape(height, width, channels)


class TestContent:
    @pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3), (2, 7, 4)])
    def test_an_array_becomes_a_png_with_its_pixels(self, shape):
        array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        found = pixels(content.image(array, "x.png").data)
        assert (found == array.reshape(found.shape)).all()

    def test_brightness_from_zero_to_one_is_spread_over_all_shades(self):
        found = pixels(content.image(np.array([[0.0, 0.5, 1.0, 7.0]]), "x.png").data)
        assert found.ravel().tolist() == [0, 128, 255, 255]

    def test_channels_that_come_first_are_put_last(self):
        array = np.arange(3 * 10 * 20).reshape(3, 10, 20).astype(np.uint8)
        assert (pixels(content.image(array, "x.png").data) == array.transpose(1, 2, 0)).all()

    @pytest.mark.parametrize("bad", [np.zeros((2, 2, 2)), np.zeros(3), np.zeros((0, 3)), "text", object()])
    def test_what_is_no_picture_is_refused(self, bad):
        with pytest.raises(content.NotLoggable):
            content.image(bad, "x.png")

    def test_a_figure_is_written_in_the_format_of_its_ending(self):
        class Figure:
            def savefig(self, buffer, format):  # noqa: A002
                buffer.write(f"as {format}".encode())

        assert content.figure(Figure(), "a/b.svg") == content.Content(b"as svg", "image/svg+xml")

    def test_an_interactive_figure_is_html_or_json(self):
        figure = types.SimpleNamespace(to_html=lambda: "<p>", to_json=lambda: "{}")
        assert content.figure(figure, "x.html").data == b"<p>"
        assert content.figure(figure, "x.json").content_type == "application/json"

    @pytest.mark.parametrize("path", ["x.html", "x", "x.png"])
    def test_what_is_no_figure_is_refused(self, path):
        with pytest.raises(content.NotLoggable):
            content.figure(object(), path)

    @pytest.mark.parametrize(
        "table",
        [
            [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
            {"a": [1, 2], "b": ["x", None]},
            pa.table({"a": [1, 2], "b": ["x", None]}),
        ],
    )
    def test_a_table_is_the_same_whatever_it_came_as(self, table):
        assert json.loads(content.table(table, "x.json").data) == {"columns": ["a", "b"], "data": [[1, "x"], [2, None]]}
        assert content.table(table, "x.csv").data == b"a,b\n1,x\n2,\n"
        read = parquet.read_table(io.BytesIO(content.table(table, "x.parquet").data))
        assert read.to_pydict() == {"a": [1, 2], "b": ["x", None]}

    def test_columns_of_different_lengths_are_no_table(self):
        with pytest.raises(content.NotLoggable, match="one length"):
            content.table({"a": [1], "b": []}, "x.json")


class TestModels:
    @pytest.fixture
    def fitted(self):
        return LogisticRegression().fit([[0.0], [1.0]], [0, 1])

    def test_a_fitted_model_is_a_folder_that_says_what_it_is(self, fitted, tmp_path):
        manifest = models.save(fitted, tmp_path, example=np.array([[0.5]]), signature={"inputs": []})
        assert (manifest["framework"], manifest["format"], manifest["runs_code_when_loaded"]) == (
            "scikit-learn",
            "joblib",
            True,
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "input_example.json",
            "mlops-model.json",
            "model.joblib",
        ]
        assert json.loads((tmp_path / "input_example.json").read_text()) == [[0.5]]
        assert any(line.startswith("scikit-learn==") for line in manifest["requirements"])

    def test_it_is_loaded_on_the_word_of_the_caller_only(self, fitted, tmp_path):
        models.save(fitted, tmp_path)
        with pytest.raises(UntrustedModel):
            models.load(tmp_path)
        assert models.load(tmp_path, trust=True).predict([[0.9]]).tolist() == [1]

    def test_what_no_framework_made_is_named_a_pickle(self, tmp_path):
        manifest = models.save({"weights": [1, 2]}, tmp_path)
        assert (manifest["format"], manifest["runs_code_when_loaded"]) == ("pickle", True)
        assert models.load(tmp_path, trust=True) == {"weights": [1, 2]}

    def test_a_booster_is_written_in_its_own_format(self, tmp_path):
        booster = type(
            "Booster", (), {"save_model": lambda self, path: Path(path).write_text("tree"), "__module__": "lightgbm"}
        )
        manifest = models.save(booster(), tmp_path)
        assert (manifest["format"], manifest["runs_code_when_loaded"]) == ("lightgbm", False)
        assert (tmp_path / "model.txt").read_text() == "tree"

    def test_a_manifest_that_leads_out_of_its_folder_is_refused(self, fitted, tmp_path):
        models.save(fitted, tmp_path / "m")
        manifest = json.loads((tmp_path / "m" / "mlops-model.json").read_text()) | {"file": "../elsewhere.joblib"}
        (tmp_path / "m" / "mlops-model.json").write_text(json.dumps(manifest))
        with pytest.raises(models.NotAModel, match="outside"):
            models.load(tmp_path / "m", trust=True)


class TestOnTheServer:
    async def test_everything_arrives_as_it_was_given(self, sdk: AsyncPlatform, tmp_path):
        async with sdk.tracking.run("e") as run:
            await run.log_json({"a": [1, float("nan")]}, "j.json")
            await run.log_dict({"b": 2}, "d.json")
            await run.log_table({"a": [1]}, "deep/t.csv")
            await run.log_image(np.zeros((2, 2)), "i.png")
            await run.log_text("hello", "t.txt")
            run.record_file(b"kept", "later.bin")
        assert json.loads(await sdk.tracking.read_artifact(run.id, "j.json")) == {"a": [1, "NaN"]}
        assert await sdk.tracking.read_artifact(run.id, "deep/t.csv") == b"a\n1\n"
        assert await sdk.tracking.read_artifact(run.id, "later.bin") == b"kept"
        kinds = {entry.path: entry.content_type async for entry in sdk.tracking.artifacts(run.id)}
        assert kinds["i.png"] == "image/png"

    async def test_a_model_goes_up_and_comes_back(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            manifest = await run.log_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "models/best")
        assert manifest["format"] == "joblib"
        with pytest.raises(UntrustedModel):
            await sdk.tracking.load_model(run.id, "models/best")
        model = await sdk.tracking.load_model(run.id, "models/best", trust=True)
        assert model.predict([[0.9]]).tolist() == [1]
        with pytest.raises(NotFound):
            await sdk.tracking.load_model(run.id, "absent")

    async def test_a_model_is_known_as_made_by_its_run(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            await run.log_model(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), "models/best")
        (made,) = await sdk.tracking.models(run.id)
        assert (made.name, made.path, made.direction, made.status) == ("models-best", "models/best", "output", "READY")
        assert made.tags["mlops.class"].endswith("LogisticRegression")

    async def test_data_is_told_by_its_digest_and_not_sent(self, sdk: AsyncPlatform, tmp_path):
        file = tmp_path / "customers.csv"
        file.write_bytes(b"age\n31\n")
        async with sdk.tracking.run("e") as run:
            told = await run.log_dataset(np.zeros((5, 2)), name="zeros", targets=np.ones(5), context="training")
            await run.log_dataset(file, context="test", tags={"part": "1"})
            await run.log_dataset(name="far", digest="etag-1", source="s3://bucket/far.parquet")
        found = {each.name: each for each in await sdk.tracking.inputs(run.id)}
        zeros, customers, far = found["zeros"], found["customers"], found["far"]
        assert (zeros.digest, zeros.context, zeros.source_type) == (told["digest"], "training", "code")
        assert json.loads(zeros.columns or "")["outputs"] == [{"name": "", "type": "float64", "shape": [-1]}]
        assert customers.digest == hashlib.sha256(b"age\n31\n").hexdigest()
        assert (customers.source, customers.source_type, customers.tags) == (str(file), "local", {"part": "1"})
        assert (far.digest, far.source_type) == ("etag-1", "s3")
        assert [entry async for entry in sdk.tracking.artifacts(run.id)] == []

    async def test_data_without_a_digest_is_refused_where_it_is_told(self, sdk: AsyncPlatform):
        async with sdk.tracking.run("e") as run:
            with pytest.raises(ValueError, match="digest"):
                await run.log_dataset(name="far", source="s3://bucket/far.parquet")

    async def test_runs_nest_and_each_knows_the_innermost(self, sdk: AsyncPlatform):
        assert sdk.tracking.active_run() is None
        async with sdk.tracking.run("e") as outer:
            async with outer.child("inner", parameters={"fold": 1}) as inner:
                assert sdk.tracking.active_run() is inner
            assert sdk.tracking.active_run() is outer
        assert sdk.tracking.active_run() is None
        found = await sdk.tracking.get_run(inner.id)
        assert (found.parent_run_id, found.run_name, found.parameters, found.status) == (
            outer.id,
            "inner",
            {"fold": 1},
            "FINISHED",
        )

    async def test_a_decorated_function_is_a_run_with_its_arguments(self, sdk: AsyncPlatform):
        @sdk.tracking.track("e", tags={"kind": "decorated"})
        async def train(lr, *, data=None, epochs=3, run=None):
            run.log_metric("loss", lr * epochs)
            return run.id

        run_id = await train(0.5, data=object())
        found = await sdk.tracking.get_run(run_id)
        assert (found.run_name, found.parameters) == ("train", {"lr": 0.5, "epochs": 3})
        assert (found.metrics, found.tags) == ({"loss": 1.5}, {"kind": "decorated"})

    async def test_a_run_that_begins_without_waiting_is_there_after_the_flush(self, sdk: AsyncPlatform):
        run = sdk.tracking.begin_run("new-experiment", parameters={"a": 1})
        run.log_metric("loss", 0.5)
        run.end()
        assert await run.flush()
        found = await sdk.tracking.get_run(run.id)
        assert (found.parameters, found.metrics, found.status) == ({"a": 1}, {"loss": 0.5}, "FINISHED")


class TestListings:
    async def test_found_runs_are_a_table(self, sdk: AsyncPlatform):
        for number in range(3):
            async with sdk.tracking.run("e", parameters={"n": number}, tags={"t": "x"}) as run:
                run.log_metric("loss", number / 2)
        table = await sdk.tracking.search(experiments=["e"], order_by=["params.n ASC"]).to_arrow()
        assert table.column("params.n").to_pylist() == [0, 1, 2]
        assert table.column("metrics.loss").to_pylist() == [0.0, 0.5, 1.0]
        assert [run.parameters["n"] for run in await sdk.tracking.search(order_by=["params.n DESC"]).head(2)] == [2, 1]

    def test_columns_of_mixed_types_become_text(self, connected):
        pages = [RUN | {"parameters": {"a": value}} for value in (1, "x", None)]
        with connected(lambda seen: Reply(200, {"items": pages, "next_page_token": None})) as (_, platform):
            assert platform.tracking.search().to_arrow().column("params.a").to_pylist() == ["1", "x", None]

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_frames_are_made_by_the_library_that_is_asked_for(self, connected, monkeypatch, library):
        monkeypatch.setitem(sys.modules, library, types.SimpleNamespace(DataFrame=lambda columns: (library, columns["id"])))
        with connected(lambda seen: Reply(200, {"items": [RUN], "next_page_token": None})) as (_, platform):
            assert getattr(platform.tracking.search(), f"to_{library}")() == (library, [RUN["id"]])

    @pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
    def test_a_library_that_is_missing_is_named_with_the_line_that_installs_it(self, connected, monkeypatch, library):
        monkeypatch.setitem(sys.modules, library, None)
        with (
            connected(lambda seen: Reply(200, {"items": [], "next_page_token": None})) as (_, platform),
            pytest.raises(MissingPackage, match=f"pip install {library}"),
        ):
            getattr(platform.tracking.search(), {"pyarrow": "to_arrow"}.get(library, f"to_{library}"))()

    def test_a_notebook_shows_what_came_from_others_escaped(self, connected):
        evil = RUN | {"run_name": "<script>alert(1)</script>", "tags": {"<b>": "<img src=x>"}, "parameters": {"p": "a&b"}}
        with connected(lambda seen: Reply(200, {"items": [evil], "next_page_token": None})) as (_, platform):
            listing = platform.tracking.search()
            shown = listing._repr_html_() + next(listing)._repr_html_()
            assert "<script>" not in shown and "<img" not in shown and "<b>" not in shown  # noqa: PT018
            assert "&lt;script&gt;" in shown and "a&amp;b" in shown  # noqa: PT018

    def test_experiments_are_shown_too(self, connected):
        with connected(lambda seen: Reply(200, {"items": [EXPERIMENT], "next_page_token": None})) as (_, platform):
            assert "<td>e</td>" in platform.tracking.experiments()._repr_html_()
            assert platform.tracking.experiment("e")._repr_html_().startswith("<table>")


class TestOtherThreadsAndProcesses:
    def arrived(self, service):
        found: dict[str, list[int]] = {}
        for seen in service.seen:
            if seen.path.endswith("/metrics"):
                for key, step, _ in points_in(seen):
                    found.setdefault(key, []).append(step)
        return found

    def test_forked_loaders_in_the_middle_of_a_run_lose_and_double_nothing(self, connected):
        with connected(tracking_service()) as (service, platform):
            with platform.tracking.run("e", system_metrics=True) as run:
                log_fifty(run, "before")
                context = multiprocessing.get_context("fork")
                workers = [context.Process(target=log_fifty, args=(run, f"worker{n}")) for n in range(3)]
                for worker in workers:
                    worker.start()
                log_fifty(run, "during")
                for worker in workers:
                    worker.join(30)
                    assert worker.exitcode == 0
            found = self.arrived(service)
            assert {key: sorted(steps) for key, steps in found.items()} == {
                key: list(range(50)) for key in ("before", "during", "worker0", "worker1", "worker2")
            }
            assert sum(seen.method == "PATCH" for seen in service.seen) == 1

    def test_a_spawned_process_goes_on_with_the_run(self, connected, tmp_path):
        def answer(seen):
            return Reply(200, RUN) if seen.path == f"/api/runs/{RUN['id']}" else tracking_service()(seen)

        with connected(answer) as (service, platform):
            with platform.tracking.run("e") as run:
                context = multiprocessing.get_context("spawn")
                worker = context.Process(target=log_from_a_spawned_process, args=(service.url, tmp_path, run.id))
                worker.start()
                worker.join(60)
                assert worker.exitcode == 0
            assert sorted(self.arrived(service)["spawned"]) == list(range(50))

    def test_threads_record_into_one_run(self, connected):
        with connected(tracking_service()) as (service, platform):
            with platform.tracking.run("e") as run:
                threads = [threading.Thread(target=log_fifty, args=(run, f"t{n}")) for n in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            assert {key: sorted(steps) for key, steps in self.arrived(service).items()} == {
                f"t{n}": list(range(50)) for n in range(8)
            }

    def test_threads_have_innermost_runs_of_their_own(self, connected):
        with connected(tracking_service()) as (_, platform), platform.tracking.run("e"):
            seen = []
            thread = threading.Thread(target=lambda: seen.append(platform.tracking.active_run()))
            thread.start()
            thread.join()
            assert seen == [None]

    def test_a_child_of_fork_can_end_without_touching_the_parents_samples(self, connected):
        with connected(tracking_service()) as (_, platform):
            run = platform.tracking.start_run("e", system_metrics=True)
            pid = os.fork()
            if pid == 0:
                run._watch.stop()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert run._watch._thread.is_alive()
            run.finish()
            assert not run._watch._thread.is_alive()


class TestKeptFiles:
    def test_files_wait_on_the_disk_and_leave_it_when_they_have_arrived(self, connected, tmp_path):
        is_away = [True]
        uploads = {}

        def answer(seen):
            if seen.method == "PUT" and not is_away[0]:
                uploads[seen.path.rpartition("/")[2]] = seen.body
                digest = hashlib.sha256(seen.body).hexdigest()
                body = {"path": "p", "size": 1, "sha256": digest, "content_type": "x", "created_at": RUN["created_at"]}
                return Reply(200, body)
            return tracking_service(away=lambda: is_away[0])(seen)

        source = tmp_path / "source.bin"
        source.write_bytes(b"as it was")
        with connected(answer) as (_, platform):
            run = platform.tracking.start_run("e")
            run.record_file(source, "a.bin")
            source.write_bytes(b"changed since")
            with pytest.warns(RecorderWarning):
                assert not run.flush()
            is_away[0] = False
            assert run.flush()
            run.finish()
            assert uploads == {"a.bin": b"as it was"}
            assert list(platform.settings.spool.rglob("files/*")) == []

    def test_what_a_killed_process_had_kept_and_not_named_is_removed(self, tmp_path):
        spool = Spool(tmp_path, "http://x", None)
        mine = spool.keep_file(b"mine")
        gone = subprocess.run(
            [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
        )
        named, unnamed = (f"{mine.partition('-')[0]}-{gone.stdout.strip()}-{letter * 32}" for letter in "ab")
        for name in (named, unnamed):
            (spool.directory / "files" / name).write_bytes(b"x")
        spool.append(Delivery("PUT", "/p", None, "k", content_type="x", file=named))
        spool.sweep()
        assert sorted(path.name for path in (spool.directory / "files").iterdir()) == sorted([mine, named])
