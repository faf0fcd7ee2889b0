import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.core.crypto.blob_format import (
    HEADER_BYTES,
    SEALED_SEGMENT_BYTES,
    SEGMENT_BYTES,
    BlobAddress,
    BlobId,
    BlobOpener,
    BlobSealer,
    Header,
    content_size,
    sealed_size,
    segment_count,
    segment_start,
    span_of,
)
from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.errors import PlatformError
from mlops_platform.core.identity import ProjectId, new_id
from tests.core.crypto import reference_blob

VECTORS = json.loads(reference_blob.VECTORS.read_text(encoding="utf-8"))
RING = KeyRing([bytes(range(32))])
ADDRESS = BlobAddress(ProjectId(new_id()), BlobId(new_id()))

# Sizes near the borders of segments are the ones that go wrong.
SIZES = st.one_of(
    st.integers(0, 300),
    st.builds(lambda n, d: max(0, n * SEGMENT_BYTES + d), st.integers(0, 4), st.integers(-2, 2)),
    st.integers(0, 4 * SEGMENT_BYTES),
)


def seal(content, address=ADDRESS, ring=RING, cuts=()):
    sealer = BlobSealer(address, ring)
    borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    parts = [segment for a, b in pairwise(borders) for segment in sealer.update(content[a:b])]
    return sealer.header.pack() + b"".join(parts) + sealer.finish()


def open_range(stored, start=None, end=None, address=ADDRESS, ring=RING, *, is_encrypted=True):
    """What a reader does that believes the length of the stored object."""
    size = content_size(len(stored))
    span = span_of(0 if start is None else start, size if end is None else end, size)
    opener = BlobOpener(stored[:HEADER_BYTES], address, ring, size=size, is_encrypted=is_encrypted)
    data = b"".join(opener.open(span.first, memoryview(stored)[segment_start(span.first) : segment_start(span.end)]))
    return data[span.skip : span.skip + span.length]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
class TestVectors:
    def keys(self, vector):
        kek = vector["key_encryption_key"]
        return None if kek is None else KeyRing.from_hex(kek)

    def address(self, vector):
        return BlobAddress(ProjectId(vector["project_id"]), BlobId(vector["blob_id"]))

    def stored(self, vector):
        keys = [bytes.fromhex(vector[name]) for name in ("key_encryption_key", "data_key", "wrap_nonce") if vector[name]]
        content = reference_blob.pattern(vector["content_size"])
        return reference_blob.seal(vector["project_id"], vector["blob_id"], content, *keys)

    def test_the_vector_file_is_what_the_reference_says(self, vector):
        assert vector in list(reference_blob.vectors())

    def test_sealing_gives_the_bytes_of_the_vector(self, vector):
        hex_or_none = (vector["data_key"], vector["wrap_nonce"])
        data_key, wrap_nonce = (None if value is None else bytes.fromhex(value) for value in hex_or_none)
        sealer = BlobSealer(self.address(vector), self.keys(vector), data_key=data_key, wrap_nonce=wrap_nonce)
        body = b"".join([*sealer.update(reference_blob.pattern(vector["content_size"])), sealer.finish()])
        assert sealer.header.pack() + body == self.stored(vector)

    def test_opening_the_vector_gives_its_content(self, vector):
        content = open_range(
            self.stored(vector),
            address=self.address(vector),
            ring=self.keys(vector),
            is_encrypted=vector["key_encryption_key"] is not None,
        )
        assert content == reference_blob.pattern(vector["content_size"])

    def test_the_sizes_are_those_of_the_vector(self, vector):
        assert sealed_size(vector["content_size"]) == vector["stored_size"]
        assert content_size(vector["stored_size"]) == vector["content_size"]


class TestRoundTrip:
    @given(content=st.binary(max_size=3000), size=SIZES, cuts=st.lists(st.integers(0, 5 * SEGMENT_BYTES), max_size=6))
    @settings(max_examples=60, deadline=None)
    def test_any_content_in_any_pieces_comes_back(self, content, size, cuts):
        content = (content + b"." * size)[: max(size, len(content))]
        assert open_range(seal(content, cuts=cuts)) == content

    @given(size=SIZES, data=st.data(), ring=st.sampled_from([RING, None]))
    @settings(max_examples=60, deadline=None)
    def test_any_range_comes_back(self, size, data, ring):
        content = reference_blob.pattern(size)
        start = data.draw(st.integers(0, size))
        end = data.draw(st.integers(start, size))
        stored = seal(content, ring=ring)
        assert open_range(stored, start, end, is_encrypted=ring is not None) == content[start:end]

    @given(size=st.integers(0, 2**50))
    @settings(deadline=None)
    def test_the_content_size_follows_from_the_stored_size(self, size):
        assert content_size(sealed_size(size)) == size

    @given(stored=st.one_of(st.integers(0, 3 * SEALED_SEGMENT_BYTES), st.integers(0, 2**50)))
    @settings(deadline=None)
    def test_a_length_is_either_of_one_content_size_or_refused(self, stored):
        try:
            size = content_size(stored)
        except BlobCorrupt:
            return
        assert sealed_size(size) == stored

    def test_empty_content_has_one_sealed_segment(self):
        stored = seal(b"")
        assert len(stored) == HEADER_BYTES + 16
        assert open_range(stored) == b""

    def test_two_blobs_of_the_same_content_have_nothing_in_common(self):
        content = b"the same" * 1000
        assert seal(content)[HEADER_BYTES:] != seal(content)[HEADER_BYTES:]

    def test_a_sealed_blob_does_not_hold_its_content(self):
        assert b"needle in the hay" not in seal(b"needle in the hay" * 100)

    def test_a_spent_sealer_seals_nothing_more(self):
        sealer = BlobSealer(ADDRESS, RING)
        sealer.finish()
        with pytest.raises(RuntimeError, match="nonce twice"):
            sealer.update(b"more")
        with pytest.raises(RuntimeError, match="nonce twice"):
            sealer.finish()


CONTENT = reference_blob.pattern(3 * SEGMENT_BYTES + 1000)
STORED = {True: seal(CONTENT), False: seal(CONTENT, ring=None)}


def refuses(stored, start=None, end=None, **how):
    with pytest.raises((BlobCorrupt, BlobKeyUnavailable)) as caught:
        open_range(stored, start, end, **how)
    assert isinstance(caught.value, PlatformError)
    assert caught.value.status == 500


@pytest.mark.parametrize("is_encrypted", [True, False], ids=["sealed", "plain"])
class TestDamage:
    @given(bit=st.one_of(st.integers(0, HEADER_BYTES * 8 - 1), st.integers(0, len(STORED[True]) * 8 - 1)))
    @settings(max_examples=200, deadline=None)
    def test_any_flipped_bit_is_refused(self, is_encrypted, bit):
        stored = bytearray(STORED[is_encrypted])
        stored[bit // 8] ^= 1 << bit % 8
        refuses(bytes(stored), is_encrypted=is_encrypted)

    def test_each_flipped_bit_before_the_first_segment_is_refused(self, is_encrypted):
        header, body = STORED[is_encrypted][:HEADER_BYTES], STORED[is_encrypted][HEADER_BYTES:]
        for bit in range(HEADER_BYTES * 8):
            changed = bytearray(header)
            changed[bit // 8] ^= 1 << bit % 8
            refuses(bytes(changed) + body, 0, 1, is_encrypted=is_encrypted)

    @given(length=st.integers(0, len(STORED[True]) - 1))
    @settings(max_examples=100, deadline=None)
    def test_any_cut_is_refused(self, is_encrypted, length):
        refuses(STORED[is_encrypted][:length], is_encrypted=is_encrypted)

    @pytest.mark.parametrize("segments", [0, 1, 2, 3])
    def test_a_cut_between_segments_is_refused(self, is_encrypted, segments):
        refuses(STORED[is_encrypted][: segment_start(segments)], is_encrypted=is_encrypted)

    @given(more=st.binary(min_size=1, max_size=100))
    @settings(max_examples=50, deadline=None)
    def test_any_extension_is_refused(self, is_encrypted, more):
        refuses(STORED[is_encrypted] + more, is_encrypted=is_encrypted)

    def test_an_extension_by_a_segment_of_the_same_blob_is_refused(self, is_encrypted):
        whole = seal(CONTENT[: 2 * SEGMENT_BYTES], ring=RING if is_encrypted else None)
        refuses(whole + whole[segment_start(0) : segment_start(1)], is_encrypted=is_encrypted)

    @pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2)])
    def test_swapped_segments_are_refused(self, is_encrypted, one, other):
        stored = bytearray(STORED[is_encrypted])
        at, to = (slice(segment_start(i), segment_start(i + 1)) for i in (one, other))
        stored[at], stored[to] = stored[to], stored[at]
        refuses(bytes(stored), is_encrypted=is_encrypted)

    def test_a_range_sees_damage_only_where_it_reads_and_never_gives_it_out(self, is_encrypted):
        stored = bytearray(STORED[is_encrypted])
        stored[segment_start(1) + 5] ^= 1
        assert open_range(bytes(stored), 0, SEGMENT_BYTES, is_encrypted=is_encrypted) == CONTENT[:SEGMENT_BYTES]
        refuses(bytes(stored), SEGMENT_BYTES + 60_000, SEGMENT_BYTES + 60_001, is_encrypted=is_encrypted)

    @pytest.mark.parametrize(
        "moved",
        [replace(ADDRESS, project_id=ProjectId(new_id())), replace(ADDRESS, blob_id=BlobId(new_id()))],
        ids=["project", "blob"],
    )
    def test_a_blob_in_the_place_of_another_is_refused(self, is_encrypted, moved):
        refuses(STORED[is_encrypted], address=moved, is_encrypted=is_encrypted)

    def test_a_segment_of_another_blob_in_the_same_place_is_refused(self, is_encrypted):
        other = seal(CONTENT, replace(ADDRESS, blob_id=BlobId(new_id())), RING if is_encrypted else None)
        at = slice(segment_start(1), segment_start(2))
        stored = bytearray(STORED[is_encrypted])
        stored[at] = other[at]
        refuses(bytes(stored), is_encrypted=is_encrypted)

    def test_a_blob_of_the_other_kind_is_refused(self, is_encrypted):
        refuses(STORED[not is_encrypted], is_encrypted=is_encrypted)


class TestKeys:
    def test_an_older_key_of_the_ring_opens(self):
        old, new = bytes([1]) * 32, bytes([2]) * 32
        stored = seal(b"content", ring=KeyRing([old]))
        assert open_range(stored, ring=KeyRing([new, old])) == b"content"

    def test_the_newest_key_of_the_ring_wraps(self):
        old, new = bytes([1]) * 32, bytes([2]) * 32
        stored = seal(b"content", ring=KeyRing([new, old]))
        assert open_range(stored, ring=KeyRing([new])) == b"content"

    def test_without_its_key_a_blob_does_not_open_and_the_message_names_the_key(self):
        stored = seal(b"content", ring=KeyRing([bytes([1]) * 32]))
        with pytest.raises(BlobKeyUnavailable, match=stored[20:28].hex()):
            open_range(stored, ring=KeyRing([bytes([2]) * 32]))
        with pytest.raises(BlobKeyUnavailable):
            open_range(stored, ring=None)

    def test_a_key_can_be_wrapped_anew_without_touching_a_segment(self):
        old, new = KeyRing([bytes([1]) * 32]), KeyRing([bytes([2]) * 32])
        data_key = bytes(range(32))
        before, after = (BlobSealer(ADDRESS, ring, data_key=data_key) for ring in (old, new))
        body = b"".join([*before.update(CONTENT), before.finish()])
        assert open_range(after.header.pack() + body, ring=new) == CONTENT

    def test_the_envelope_of_another_blob_is_refused(self):
        other = seal(CONTENT, replace(ADDRESS, blob_id=BlobId(new_id())))
        refuses(other[:HEADER_BYTES] + STORED[True][HEADER_BYTES:])

    def test_a_newer_format_version_is_named(self):
        stored = bytearray(STORED[True])
        stored[8] = 2
        with pytest.raises(BlobCorrupt, match="version 2"):
            open_range(bytes(stored))


class TestAddress:
    @pytest.mark.parametrize(
        "bad",
        ["", "..", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "../" + "a" * 29, "a" * 32 + "\n", "\u0661" * 32, "a/" * 16],
    )
    def test_only_minted_ids_make_an_address(self, bad):
        with pytest.raises(ValueError, match="hex digits"):
            BlobAddress(ProjectId(bad), BlobId(new_id()))
        with pytest.raises(ValueError, match="hex digits"):
            BlobAddress(ProjectId(new_id()), BlobId(bad))


class TestSpans:
    @given(size=SIZES, data=st.data())
    @settings(deadline=None)
    def test_a_span_holds_its_range_and_no_segment_more(self, size, data):
        start = data.draw(st.integers(0, size))
        end = data.draw(st.integers(start, size))
        span = span_of(start, end, size)
        assert span.first * SEGMENT_BYTES + span.skip == start
        assert span.end <= segment_count(size)
        assert span.end - span.first <= 2 + (end - start) // SEGMENT_BYTES

    @pytest.mark.parametrize(("start", "end"), [(-1, 0), (2, 1), (0, 11), (11, 11)])
    def test_a_range_outside_is_refused(self, start, end):
        with pytest.raises(ValueError, match="does not lie"):
            span_of(start, end, 10)

    def test_a_header_survives_packing(self):
        header = BlobSealer(ADDRESS, RING).header
        assert Header.parse(header.pack()) == header
