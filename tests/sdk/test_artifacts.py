"""Files up and down through the real services, and models loaded from them."""

import hashlib
import pickle

import pytest

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import Conflict, DigestMismatch, NotFound, UntrustedModel
from mlops_platform.sdk.files import ChunkReader, sha256_of
from mlops_platform.sdk.loaders import NotLoadable
from tests.conftest import Platform as RunningPlatform


@pytest.fixture
async def sdk(sdk_for, platform: RunningPlatform):
    """A client with the key of an admin of a fresh project."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        yield client


@pytest.fixture
def folder(tmp_path):
    """A model of several files, one of them larger than a chunk."""
    root = tmp_path / "model"
    for name, content in {"config.json": b"{}", "weights/a.bin": b"a" * 3_000_000, "weights/ü b.bin": b""}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


class TestModelFiles:
    async def test_a_directory_goes_up_and_comes_down_the_same(self, sdk: AsyncPlatform, folder, tmp_path):
        made = await sdk.registry.create_version("m", "1")
        stored = await sdk.registry.upload("m", made.version, folder)
        assert {file.path: file.sha256 for file in stored} == {
            path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()
        }
        await sdk.registry.finalize("m", "1")
        await sdk.registry.set_alias("m", "champion", "1")
        landed = await sdk.registry.download("m", "@champion", to=tmp_path / "down")
        for path in folder.rglob("*"):
            if path.is_file():
                assert (landed / path.relative_to(folder)).read_bytes() == path.read_bytes()

    async def test_the_second_download_comes_from_the_cache(self, sdk: AsyncPlatform, folder, tmp_path, monkeypatch):
        await sdk.registry.create_version("m", "1")
        await sdk.registry.upload("m", "1", folder / "weights" / "a.bin", path="weights.bin")
        await sdk.registry.finalize("m", "1")
        await sdk.registry.download("m", "1", to=tmp_path / "first")

        def never(self, chunk):
            raise AssertionError("fetched again")

        monkeypatch.setattr("mlops_platform.sdk.files.Download.write", never)
        await sdk.registry.download("m", "1", to=tmp_path / "second")
        assert (tmp_path / "second" / "weights.bin").stat().st_size == 3_000_000

    async def test_a_ready_version_takes_no_more_files(self, sdk: AsyncPlatform, folder):
        await sdk.registry.create_version("m", "1")
        await sdk.registry.finalize("m", "1")
        with pytest.raises(Conflict):
            await sdk.registry.upload("m", "1", folder)

    async def test_a_file_that_changes_during_the_upload_is_said(self, sdk: AsyncPlatform, folder, monkeypatch):
        await sdk.registry.create_version("m", "1")
        monkeypatch.setattr(ChunkReader, "sha256", property(lambda self: hashlib.sha256(b"before").hexdigest()))
        with pytest.raises(DigestMismatch, match="written to during the upload"):
            await sdk.registry.upload("m", "1", folder / "config.json")


class TestLoad:
    async def a_model(self, sdk: AsyncPlatform, folder, content: bytes, name: str = "model.pkl"):
        (folder / name).write_bytes(content)
        await sdk.registry.create_version("m", "1")
        await sdk.registry.upload("m", "1", folder / name)
        await sdk.registry.finalize("m", "1")

    async def test_a_pickle_is_loaded_on_the_callers_word_alone(self, sdk: AsyncPlatform, folder):
        await self.a_model(sdk, folder, pickle.dumps({"weights": [1, 2, 3]}))
        with pytest.raises(UntrustedModel, match="trust=True"):
            await sdk.registry.load("m", "1")
        assert await sdk.registry.load("m", "1", trust=True) == {"weights": [1, 2, 3]}

    async def test_a_pickle_with_an_innocent_name_is_still_a_pickle(self, sdk: AsyncPlatform, folder):
        await self.a_model(sdk, folder, pickle.dumps({"a": 1}), name="model.safetensors")
        with pytest.raises(UntrustedModel):
            await sdk.registry.load("m", "1")

    async def test_a_file_of_no_known_format_says_what_to_do(self, sdk: AsyncPlatform, folder):
        await self.a_model(sdk, folder, b"something", name="model.bin")
        with pytest.raises(NotLoadable, match="download"):
            await sdk.registry.load("m", "1", trust=True)

    async def test_of_several_files_one_must_be_named(self, sdk: AsyncPlatform, folder):
        (folder / "model.pkl").write_bytes(pickle.dumps(7))
        await sdk.registry.create_version("m", "1")
        await sdk.registry.upload("m", "1", folder)
        with pytest.raises(NotFound, match="path="):
            await sdk.registry.load("m", "1", trust=True)
        assert await sdk.registry.load("m", "1", path="model.pkl", trust=True) == 7


class TestLineage:
    async def test_a_stated_edge_is_found_from_both_ends(self, sdk: AsyncPlatform):
        await sdk.registry.create_version("m", "1")
        await sdk.registry.state_lineage("model-version:m/1", "derived_from", "feature-set:user_features")
        up = await sdk.registry.lineage("m/1")
        assert "user_features" in [node.name for node in up.nodes]
        down = await sdk.registry.lineage("feature-set:user_features", downstream=True)
        assert "m/1" in [node.name for node in down.nodes]


class TestRunArtifacts:
    async def test_a_directory_goes_up_and_comes_down_the_same(self, sdk: AsyncPlatform, folder, tmp_path):
        async with sdk.tracking.run("e") as run:
            await run.log_artifact(folder, "model")
            await run.log_text("notes", "notes.txt")
        assert {entry.path for entry in [entry async for entry in sdk.tracking.artifacts(run.id)]} == {"model", "notes.txt"}
        landed = await sdk.tracking.download_artifacts(run.id, "model", to=tmp_path / "down")
        assert (landed / "weights" / "a.bin").read_bytes() == b"a" * 3_000_000
        one = await sdk.tracking.download_artifacts(run.id, "notes.txt", to=tmp_path / "down")
        assert one.read_text() == "notes"

    async def test_what_is_absent_is_not_found(self, sdk: AsyncPlatform, tmp_path):
        async with sdk.tracking.run("e") as run:
            pass
        with pytest.raises(NotFound):
            await sdk.tracking.download_artifacts(run.id, "absent", to=tmp_path)
