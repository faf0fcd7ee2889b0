import io
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.core.storage.archives import Member, tar_stream, zip_stream

names = st.text(st.characters(codec="utf-8", exclude_characters="/\\:\0"), min_size=1, max_size=120).filter(
    lambda name: name not in {".", ".."}
)
contents = st.dictionaries(names, st.binary(max_size=2000) | st.just(b"x" * 300_000), max_size=4)


def member(path, content, step=1000, closed=None):
    async def stream():
        try:
            for at in range(0, len(content), step):
                yield content[at : at + step]
        finally:
            if closed is not None:
                closed.append(path)

    async def opened():
        return stream()

    return Member(path, len(content), opened)


async def whole(stream):
    return b"".join([chunk async for chunk in stream])


def members(files):
    return [member(path, content, 70_000) for path, content in sorted(files.items())]


@settings(deadline=None)
@given(contents)
async def test_a_zip_gives_back_what_went_in_and_is_the_same_each_time(files):
    data = await whole(zip_stream(members(files)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == files
    assert data == await whole(zip_stream(members(files)))


@settings(deadline=None)
@given(contents)
async def test_a_tar_gives_back_what_went_in_and_is_the_same_each_time(files):
    data = await whole(tar_stream(members(files)))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        read = {info.name: archive.extractfile(info) for info in archive.getmembers()}
        assert {name: file.read() for name, file in read.items() if file is not None} == files
    assert data == await whole(tar_stream(members(files)))


@pytest.mark.parametrize("archive", [zip_stream, tar_stream])
async def test_an_archive_is_never_held_as_a_whole(archive):
    largest = 0
    async for chunk in archive([member("big", bytes(40_000_000), 64 * 1024)]):
        largest = max(largest, len(chunk))
    assert largest < 1_300_000


@pytest.mark.parametrize("archive", [zip_stream, tar_stream])
async def test_a_reader_that_stops_closes_what_is_open(archive):
    closed: list[str] = []
    stream = archive([member("a", b"x" * 5_000_000, 64 * 1024, closed), member("b", b"y", closed=closed)])
    assert await anext(stream)
    assert await anext(stream)
    await stream.aclose()
    assert closed == ["a"]


async def test_a_zip_of_something_past_four_gigabytes_says_so_in_its_header():
    stream = zip_stream([Member("huge", 5 * 2**30, member("huge", b"x" * 2_000_000, 100_000).open)])
    assert (await anext(stream))[4:6] == b"\x2d\x00"  # version 4.5: sizes of 64 bits
    await stream.aclose()
