"""The account of blobs: what is held stays, what is not goes, and nothing is shared across projects."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mlops_platform.core.clock import FixedClock
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage import ledger as module
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.errors import BlobExpired
from mlops_platform.core.storage.ledger import BlobLedger
from mlops_platform.core.storage.local_files import LocalFiles

LATER = timedelta(hours=2)
MUCH_LATER = timedelta(hours=25)


class Account:
    def __init__(self, ledger, clock, database, root):
        self.ledger, self.clock, self.database, self.root = ledger, clock, database, root

    async def upload(self, project, content=b"weights"):
        return await self.ledger.write(project, chunks(content), max_bytes=1000)

    async def hold(self, blob, holder):
        async with self.database.write() as session:
            return await self.ledger.hold(session, blob, holder)

    async def release(self, project, *holders):
        async with self.database.write() as session:
            await self.ledger.release(session, project, holders)

    async def held(self, project, holder):
        async with self.database.read() as session:
            return await self.ledger.held(session, project, holder)

    async def sweep_after(self, wait):
        self.clock.moment += wait
        return await self.ledger.sweep()

    def objects(self):
        return {path.name for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def account(runtime, tmp_path):
    # Far in the past, so that a sweep here never takes what other tests of this database are uploading.
    clock = FixedClock(datetime(2001, 1, 1, tzinfo=UTC))
    store = BlobStore(LocalFiles(tmp_path / "blobs"), KeyRing([bytes(32)]))
    return Account(BlobLedger(runtime.database, store, clock), clock, runtime.database, tmp_path / "blobs")


@pytest.fixture
def project():
    return ProjectId(new_id())


async def chunks(content):
    yield content


async def test_the_same_content_is_kept_once_in_a_project(account, project):
    one = await account.hold(await account.upload(project), "a")
    two = await account.hold(await account.upload(project), "b")
    assert one == two
    await account.sweep_after(LATER)
    assert account.objects() == {one.blob_id}


async def test_the_same_content_is_never_shared_across_projects(account, project):
    one = await account.hold(await account.upload(project), "a")
    other = await account.hold(await account.upload(ProjectId(new_id())), "a")
    assert one.blob_id != other.blob_id


async def test_what_one_of_two_lets_go_of_stays(account, project):
    blob = await account.hold(await account.upload(project), "a")
    await account.hold(blob, "b")
    await account.release(project, "a")
    await account.sweep_after(LATER)
    assert await account.held(project, "b") == blob
    assert account.objects() == {blob.blob_id}


async def test_what_nobody_holds_goes_after_the_grace_and_not_before(account, project):
    blob = await account.upload(project)
    await account.sweep_after(timedelta(minutes=30))
    assert account.objects() == {blob.blob_id}
    await account.sweep_after(LATER)
    assert account.objects() == set()


async def test_holding_what_was_swept_is_refused_and_holds_nothing(account, project):
    blob = await account.upload(project)
    await account.sweep_after(LATER)
    with pytest.raises(BlobExpired):
        await account.hold(blob, "a")
    assert await account.held(project, "a") is None


async def test_a_holder_holds_one_blob_at_a_time(account, project):
    await account.hold(await account.upload(project, b"one"), "a")
    two = await account.hold(await account.upload(project, b"two"), "a")
    await account.sweep_after(LATER)
    assert account.objects() == {two.blob_id}


async def test_an_upload_that_broke_off_leaves_a_row_that_is_swept_after_a_day(account, project):
    async def breaking():
        yield b"half"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await account.ledger.write(project, breaking(), max_bytes=1000)
    assert account.objects() == set()
    swept_early = await account.sweep_after(LATER)
    swept_late = await account.sweep_after(MUCH_LATER)
    assert (swept_early, swept_late) == (0, 1)


async def test_a_rolled_back_hold_holds_nothing(account, project):
    blob = await account.upload(project)
    with pytest.raises(ZeroDivisionError):
        await hold_and_fail(account, blob)
    assert await account.held(project, "a") is None


async def hold_and_fail(account, blob):
    async with account.database.write() as session:
        await account.ledger.hold(session, blob, "a")
        raise ZeroDivisionError


async def test_of_a_hold_and_a_sweep_at_once_either_the_bytes_stay_or_the_hold_is_refused(account, project):
    for number in range(15):
        blob = await account.upload(project, b"content %d" % number)
        account.clock.moment += LATER
        both = account.hold(blob, f"h{number}"), account.ledger.sweep()
        held: object = (await asyncio.gather(*both, return_exceptions=True))[0]
        if isinstance(held, BlobExpired):
            assert await account.held(project, f"h{number}") is None
        else:
            assert held == blob
            await account.ledger.sweep()
            assert blob.blob_id in account.objects()


class TestDamage:
    """The first copy is the one that is shared: sending the content again must not lead back to a damaged one."""

    CONTENT = b"weights" * 20

    def path(self, account, blob):
        (found,) = account.root.rglob(blob.blob_id)
        return found

    async def read(self, account, blob):
        return b"".join([piece async for piece in await account.ledger.store.read(blob)])

    @pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "header"])
    async def test_sending_it_again_mends_it_for_all_who_hold_it(self, account, project, damage):
        blob = await account.hold(await account.upload(project, self.CONTENT), "a")
        path = self.path(account, blob)
        stored = bytearray(path.read_bytes())
        stored[1 if damage == "header" else -1] ^= 1
        path.write_bytes(stored[:-5] if damage == "cut" else stored)
        if damage == "missing":
            path.unlink()
        again = await account.hold(await account.upload(project, self.CONTENT), "b")
        assert again == blob
        assert await self.read(account, blob) == self.CONTENT
        await account.sweep_after(LATER)
        assert account.objects() == {blob.blob_id}
        assert await self.read(account, await account.held(project, "a")) == self.CONTENT

    async def test_an_intact_one_is_left_as_it_is(self, account, project):
        blob = await account.hold(await account.upload(project, self.CONTENT), "a")
        before = self.path(account, blob).stat().st_mtime_ns, self.path(account, blob).read_bytes()
        await account.upload(project, self.CONTENT)
        assert (self.path(account, blob).stat().st_mtime_ns, self.path(account, blob).read_bytes()) == before

    async def test_one_that_is_swept_meanwhile_leaves_nothing_behind(self, account, project, monkeypatch):
        blob = await account.upload(project, self.CONTENT)
        self.path(account, blob).unlink()
        account.clock.moment += LATER
        write = account.ledger.store.write

        async def swept_first(project_id, content, *, blob_id, **options):
            if blob_id == blob.blob_id:
                assert await account.ledger.sweep()
            return await write(project_id, content, blob_id=blob_id, **options)

        monkeypatch.setattr(account.ledger.store, "write", swept_first)
        await account.hold(await account.upload(project, self.CONTENT), "a")
        monkeypatch.undo()
        assert len(account.objects()) == 1


async def test_an_upload_that_took_longer_than_the_sweeper_waits_is_refused_and_leaves_nothing(account, project):
    async def slowly():
        yield b"half"
        await account.sweep_after(MUCH_LATER)
        yield b"the other half"

    with pytest.raises(BlobExpired):
        await account.ledger.write(project, slowly(), max_bytes=1000)
    assert account.objects() == set()


async def test_a_sweep_takes_as_many_rounds_as_there_is_to_take(account, project, monkeypatch):
    monkeypatch.setattr(module, "_SWEPT_AT_ONCE", 2)
    for number in range(5):
        await account.upload(project, bytes([number]))
    account.clock.moment += LATER
    assert await account.ledger.sweep_all() >= 5
    assert account.objects() == set()
