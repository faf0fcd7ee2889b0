"""An experiment goes into one file and comes back; a file that somebody tampered with brings nothing in."""

import hashlib
import json
import math
import struct
import warnings
import zipfile
from pathlib import Path

import httpx2
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.archive import layout
from mlops_platform.sdk.archive.layout import ArchiveError
from mlops_platform.sdk.archive.source import ArchiveSource
from mlops_platform.sdk.errors import Conflict, NotFound, PlatformUnreachable
from mlops_platform.tracking.tasks import remove_for_ever
from tests.conftest import Caller
from tests.conftest import Platform as RunningPlatform
from tests.factories.archives import a_full_experiment

SERVICE = "experiment-tracking"


@pytest.fixture
async def ada(platform: RunningPlatform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
async def sdk(sdk_for, ada: Caller):
    async with sdk_for(ada.key) as client:
        yield client


@pytest.fixture
async def taken(sdk: AsyncPlatform, ada: Caller, tmp_path: Path):
    """A full experiment, and the file that it was written to."""
    experiment_id, runs = await a_full_experiment(ada)
    file = await sdk.tracking.export_experiment(experiment_id, tmp_path / "cats.zip")
    return experiment_id, runs, file


async def purge(platform, sdk, experiment_id):
    name = (await sdk.tracking.experiment(experiment_id)).name
    await sdk.tracking.purge_experiment(experiment_id, confirm=name)
    await remove_for_ever(platform.runtime, None)


def table(file, name):
    with zipfile.ZipFile(file) as archive:
        return parquet.read_table(pa.BufferReader(archive.read(f"{name}.parquet"))).to_pylist()


def rewritten(file, change):
    """The archive with other members, and a manifest that says of them what is true."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(members)
    manifest["members"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)} for name, content in members.items()
    }
    target = file.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, content)
    return target


def changed_table(members, name, change, **options):
    rows = parquet.read_table(pa.BufferReader(members[f"{name}.parquet"])).to_pylist()
    change(rows)
    sink = pa.BufferOutputStream()
    defaults = {"compression": "none", "use_dictionary": layout.words(name)}
    parquet.write_table(pa.Table.from_pylist(rows, schema=layout.schema_of(name)), sink, **(defaults | options))
    members[f"{name}.parquet"] = sink.getvalue().to_pybytes()


class TestTheFile:
    async def test_any_parquet_reader_reads_what_it_holds(self, taken):
        _, runs, file = taken
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            names = set(archive.namelist())
            manifest = json.loads(archive.read("manifest.json"))
            for name, promised in manifest["members"].items():
                assert hashlib.sha256(archive.read(name)).hexdigest() == promised["sha256"]
        assert (manifest["format"], manifest["version"]) == ("mlops-experiment", 1)
        assert set(manifest["members"]) == names - {"manifest.json"}
        # Two runs have the same file, and one is empty.
        assert len([name for name in names if name.startswith("blobs/")]) == 3
        assert {row["id"] for row in table(file, "runs")} == set(runs.values())
        points = table(file, "points")
        odd = [row["value"] for row in points if row["key"] == "odd"]
        assert {str(value) for value in odd} == {"nan", "inf", "-inf"}
        assert math.copysign(1, next(row["value"] for row in points if row["key"] == "tiny")) == 1
        assert {row["context"] for row in points if row["key"] == "loss"} == {"", '{"split":"val"}'}

    async def test_the_same_experiment_makes_the_same_file(self, taken, sdk, tmp_path):
        experiment_id, _, file = taken
        again = await sdk.tracking.export_experiment(experiment_id, tmp_path / "again.zip")
        assert again.read_bytes() == file.read_bytes()

    async def test_an_export_that_fails_leaves_what_was_there_and_nothing_else(self, taken, sdk, tmp_path):
        _, _, file = taken
        before = file.read_bytes()
        with pytest.raises(NotFound):
            await sdk.tracking.export_experiment("no such", file)
        folder = tmp_path / "empty"
        folder.mkdir()
        async with AsyncPlatform(settings=sdk.settings) as unreachable:
            with pytest.raises(PlatformUnreachable):
                await unreachable.tracking.export_experiment("0198c0ffee007000a000000000c0ffee", folder / "a.zip")
        assert (file.read_bytes(), list(folder.iterdir())) == (before, [])


class LoggingOn(httpx2.ASGITransport):
    """Somebody logs more before the points and before the files are read."""

    def __init__(self, app, more):
        super().__init__(app)
        self._more = more

    async def handle_async_request(self, request):
        for suffix in ("/export/points", "/export/artifacts"):
            if request.url.path.endswith(suffix) and suffix in self._more:
                await self._more.pop(suffix)()
        return await super().handle_async_request(request)


class TestWhatGoesOn:
    async def test_an_export_while_somebody_logs_can_be_brought_in(self, sdk, ada, apps, platform, tmp_path):
        experiment = await sdk.tracking.create_experiment("live")
        run_id = (await ada.http.post(f"/api/experiments/{experiment.id}/runs", json={"run_name": "r"})).json()["id"]
        await ada.http.post(f"/api/runs/{run_id}/metrics", json={"loss": 1, "step": 1})

        async def a_point():
            await ada.http.post(f"/api/runs/{run_id}/metrics", json={"loss": 2, "step": 2})

        async def a_file():
            await ada.http.put(f"/api/runs/{run_id}/artifacts/late.txt", content=b"late")

        more = {"/export/points": a_point, "/export/artifacts": a_file}
        async with AsyncPlatform(settings=sdk.settings, transport=LoggingOn(apps[SERVICE], more)) as live:
            file = await live.tracking.export_experiment("live", tmp_path / "live.zip")
        assert more == {}
        assert [(row["points"], row["artifacts"]) for row in table(file, "runs")] == [(2, 1)]
        await purge(platform, sdk, experiment.id)
        report = await sdk.tracking.import_experiment(file)
        assert (report.is_whole, report.points, report.files) == (True, 2, 1)


class TestThereAndBack:
    async def test_after_a_purge_all_of_it_is_there_again(self, taken, sdk, platform, tmp_path):
        experiment_id, runs, file = taken
        await purge(platform, sdk, experiment_id)
        report = await sdk.tracking.import_experiment(file)
        assert (report.is_whole, report.experiment_id, report.created) == (True, experiment_id, 4)
        assert (report.points, report.files) == (108, 4)
        again = await sdk.tracking.export_experiment(experiment_id, tmp_path / "again.zip")
        for name in layout.TABLES:
            assert sorted(map(str, table(again, name))) == sorted(map(str, table(file, name))), name
        assert await sdk.tracking.read_artifact(runs["parent"], "a/model.bin") == b"weights"
        same = await sdk.tracking.import_experiment(file)
        assert (same.is_whole, same.created, same.unchanged, same.points, same.files) == (True, 0, 4, 0, 0)

    async def test_another_project_gets_it_under_another_name(self, taken, sdk, sdk_for, platform):
        experiment_id, runs, file = taken
        await purge(platform, sdk, experiment_id)
        bob = await platform.caller(SERVICE)
        async with sdk_for(bob.key) as theirs:
            report = await theirs.tracking.import_experiment(file, name="from ada")
            assert (report.is_whole, report.name, report.experiment_id) == (True, "from ada", experiment_id)
            run = await theirs.tracking.get_run(runs["parent"])
            assert (run.user, run.group, run.notes, run.status) == ("grace", "g", "*why*", "FINISHED")
            assert run.parameters == {
                "lr": 0.001, "big": 2**53 - 1, "flag": True, "text": "ä", "list": [1, None, {"a": "b"}], "o.n": "adam"
            }  # fmt: skip
            assert (await theirs.tracking.import_experiment(file, name="from ada")).unchanged == 4

    async def test_what_is_there_with_other_content_stays_and_is_named(self, taken, sdk, platform):
        _, runs, file = taken
        await sdk.tracking.update_run(runs["child"], notes="changed since")
        report = await sdk.tracking.import_experiment(file)
        assert report.conflicts == [f"run {runs['child']}: notes"]
        assert (report.created, report.unchanged) == (0, 3)
        assert (await sdk.tracking.get_run(runs["child"])).notes == "changed since"

    async def test_one_run_that_was_purged_comes_back_beside_the_others(self, taken, sdk):
        _, runs, file = taken
        await sdk.tracking.delete_run(runs["child"])
        await sdk.tracking.purge_run(runs["child"])
        report = await sdk.tracking.import_experiment(file)
        assert (report.created, report.unchanged, report.is_whole) == (1, 3, True)
        assert await sdk.tracking.read_artifact(runs["child"], "same.bin") == b"weights"

    async def test_a_name_that_another_has_is_refused(self, taken, sdk, platform):
        experiment_id, _, file = taken
        await purge(platform, sdk, experiment_id)
        await sdk.tracking.create_experiment("vision/cats")
        with pytest.raises(Conflict, match="vision/cats"):
            await sdk.tracking.import_experiment(file)

    async def test_a_long_history_of_many_runs_is_the_same_to_the_last_bit(self, sdk, ada, platform, tmp_path):
        experiment = await sdk.tracking.create_experiment("long")
        made = []
        for number in range(3):
            path = f"/api/experiments/{experiment.id}/runs"
            run_id = (await ada.http.post(path, json={"run_name": str(number)})).json()["id"]
            made.append(run_id)
            for part in range(3):
                bodies = [
                    {"x": (number + 1) / (step + 1), "step": step, "timestamp": 1_790_000_000_000 + step}
                    for step in range(part * 5000, part * 5000 + 5000)
                ]
                await ada.http.post(f"/api/runs/{run_id}/metrics", json=bodies)
        file = await sdk.tracking.export_experiment("long", tmp_path / "long.zip")
        assert len(table(file, "points")) == 45_000
        assert file.stat().st_size < 45_000 * 16
        await purge(platform, sdk, experiment.id)
        report = await sdk.tracking.import_experiment(file)
        assert (report.points, report.is_whole) == (45_000, True)
        values = [point.value async for point in sdk.tracking.history(made[1], "x")]
        assert values == [2 / (step + 1) for step in range(15_000)]


def cut(file):
    content = file.read_bytes()
    file.with_name("cut.zip").write_bytes(content[: len(content) // 2])
    return file.with_name("cut.zip")


def flipped(file):
    with zipfile.ZipFile(file) as archive:
        info = next(info for info in archive.infolist() if info.filename.startswith("blobs/") and info.file_size)
    content = bytearray(file.read_bytes())
    content[info.header_offset + 30 + len(info.filename)] ^= 1
    file.with_name("flipped.zip").write_bytes(content)
    return file.with_name("flipped.zip")


def with_member(name, content=b"x", compression=zipfile.ZIP_STORED):
    def add(file):
        target = file.with_name("more.zip")
        target.write_bytes(file.read_bytes())
        with zipfile.ZipFile(target, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(name, content, compress_type=compression)
        return target

    return add


def huge(file):
    """The central directory says that a member is larger than the file."""
    content = bytearray(file.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
    file.with_name("huge.zip").write_bytes(content)
    return file.with_name("huge.zip")


def no_archive(file):
    file.with_name("text.zip").write_bytes(b"hello")
    return file.with_name("text.zip")


def manifest_that_says(**fields):
    def change(file):
        with zipfile.ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        manifest = json.loads(members.pop("manifest.json")) | fields
        target = file.with_name("other.zip")
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
                archive.writestr(name, content)
        return target

    return change


def without(name):
    return lambda file: rewritten(file, lambda members: members.pop(name))


def row(table_name, place, **fields):
    def change(rows):
        rows[place] |= fields

    return lambda file: rewritten(file, lambda members: changed_table(members, table_name, change))


def reordered(name):
    return lambda file: rewritten(file, lambda members: changed_table(members, name, lambda rows: rows.reverse()))


def dropped(name):
    return lambda file: rewritten(file, lambda members: changed_table(members, name, lambda rows: rows.pop()))


def packed(name, **options):
    return lambda file: rewritten(file, lambda members: changed_table(members, name, lambda _: None, **options))


def other_columns(file):
    def change(members):
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table({"id": ["a"]}), sink, compression="none", use_dictionary=False)
        members["runs.parquet"] = sink.getvalue().to_pybytes()

    return rewritten(file, change)


def no_parquet(file):
    return rewritten(file, lambda members: members.update({"tags.parquet": b"PAR1" + b"\xff" * 100 + b"PAR1"}))


def deep_json(file):
    return rewritten(file, lambda members: members.update({"experiment.json": b"[" * 200_000}))


TAMPERED = {
    "cut in the middle": cut,
    "one bit of a file flipped": flipped,
    "a member outside": with_member("../../evil"),
    "an absolute member": with_member("/etc/passwd"),
    "a compressed member": with_member("blobs/" + "0" * 64, b"\0" * 10_000_000, zipfile.ZIP_DEFLATED),
    "a member twice": with_member("experiment.json"),
    "a member that nobody promised": with_member("blobs/" + "0" * 64),
    "a declared size beyond the file": huge,
    "no zip": no_archive,
    "another format": manifest_that_says(format="something"),
    "a later version": manifest_that_says(version=2),
    "a manifest of nothing": manifest_that_says(members={}),
    "a missing table": without("tags.parquet"),
    "a missing experiment": without("experiment.json"),
    "runs out of order": reordered("runs"),
    "points out of order": reordered("points"),
    "points missing": dropped("points"),
    "a run missing": dropped("runs"),
    "a path that leaves": row("artifacts", 0, path="../../evil"),
    "a path from the root": row("artifacts", 0, path="/etc/passwd"),
    "a file without content": row("artifacts", 0, sha256="0" * 64),
    "a size that is not that of the content": row("artifacts", 0, size=2**60),
    "a file of nobody": row("artifacts", 0, owner_id="f" * 32),
    "a status that is none": row("runs", 0, status="DONE"),
    "an id that is none": row("runs", 0, id="0' OR 1=1"),
    "a text that should be JSON": row("inputs", 0, tags="{"),
    "a dataset that is not there": row("inputs", 0, name="other"),
    "a word as long as a book": row("points", 0, key="k" * 1_000_000),
    "a compressed table": packed("tags", compression="zstd"),
    "a dictionary where none is": packed("tags", use_dictionary=True),
    "other columns": other_columns,
    "a table that is none": no_parquet,
    "bottomless JSON": deep_json,
}


MADE: dict[str, bytes] = {}


@pytest.fixture
async def archive(sdk, ada, tmp_path):
    """The file of a full experiment, made once: those who tamper with it change nothing on any server."""
    if "file" not in MADE:
        experiment_id, _ = await a_full_experiment(ada)
        MADE["file"] = (await sdk.tracking.export_experiment(experiment_id, tmp_path / "made.zip")).read_bytes()
    file = tmp_path / "cats.zip"
    file.write_bytes(MADE["file"])
    return file


class TestTampering:
    @pytest.mark.parametrize("how", TAMPERED)
    async def test_nothing_of_a_tampered_archive_is_brought_in(self, archive, sdk_for, platform, how):
        bob = await platform.caller(SERVICE)
        async with sdk_for(bob.key) as theirs:
            with pytest.raises(ArchiveError):
                await theirs.tracking.import_experiment(TAMPERED[how](archive))
        listed = (await bob.http.get("/api/experiments?deleted=include&archived=include")).json()
        assert listed["items"] == []

    def test_texts_that_the_footer_says_are_plain_and_are_not_are_refused_before_they_are_made(self, archive):
        def repeat(rows):
            text = rows[0] | {"profile": "x" * 100_000}
            rows[:] = [text | {"digest": str(number)} for number in range(1000)]

        def change(members):
            changed_table(members, "datasets", repeat, use_dictionary=True)
            content = members["datasets.parquet"]
            plain_rle_dictionary, plain_rle = b"\x35\x00\x06\x10", b"\x35\x00\x06\x06"
            assert plain_rle_dictionary in content
            members["datasets.parquet"] = content.replace(plain_rle_dictionary, plain_rle)

        with pytest.raises(ArchiveError, match="is compressed: it holds more than"):
            ArchiveSource(rewritten(archive, change)).check()

    def test_texts_that_share_their_beginnings_are_refused_whatever_the_footer_says(self, archive):
        def repeat(rows):
            text = rows[0] | {"profile": "x" * 100_000}
            rows[:] = [text | {"digest": str(number)} for number in range(1000)]

        def change(members):
            options = {"use_dictionary": False, "column_encoding": {"profile": "DELTA_BYTE_ARRAY"}}
            changed_table(members, "datasets", repeat, **options)
            rle_and_delta, rle = b"\x25\x06\x0e", b"\x25\x06\x06"
            assert rle_and_delta in members["datasets.parquet"]
            members["datasets.parquet"] = members["datasets.parquet"].replace(rle_and_delta, rle)

        with pytest.raises(ArchiveError, match="Not yet implemented"):
            ArchiveSource(rewritten(archive, change)).check()

    async def test_an_untampered_one_passes_the_same_way(self, archive):
        ArchiveSource(rewritten(archive, lambda _: None)).check()

    async def test_no_file_is_no_archive(self, tmp_path):
        with pytest.raises(ArchiveError):
            ArchiveSource(tmp_path / "absent.zip")
