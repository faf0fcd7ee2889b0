"""The account of blobs: what is held stays, what is not goes, and nothing is shared across projects."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mlops_platform.core.clock import FixedClock
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.identity import ProjectId, new_id
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
