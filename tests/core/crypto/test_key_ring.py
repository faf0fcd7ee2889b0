import hashlib

import pytest

from mlops_platform.core.crypto.errors import BlobCorrupt, BlobKeyUnavailable
from mlops_platform.core.crypto.key_ring import KeyEnvelope, KeyRing, WrapScheme, key_id
from mlops_platform.core.errors import ConfigurationError

OLD, NEW = bytes([1]) * 32, bytes([2]) * 32
DATA_KEY, CONTEXT = bytes(range(32)), b"c" * 32


def test_what_was_wrapped_is_unwrapped():
    ring = KeyRing([NEW])
    assert ring.unwrap(ring.wrap(DATA_KEY, CONTEXT), CONTEXT) == DATA_KEY


def test_the_first_key_wraps_and_every_key_unwraps():
    envelope = KeyRing([OLD]).wrap(DATA_KEY, CONTEXT)
    both = KeyRing([NEW, OLD])
    assert both.unwrap(envelope, CONTEXT) == DATA_KEY
    assert both.wrap(DATA_KEY, CONTEXT).key_id == key_id(NEW)


def test_a_key_is_named_by_the_start_of_its_digest():
    assert key_id(OLD) == hashlib.sha256(OLD).digest()[:8]


def test_the_same_key_is_never_wrapped_alike():
    ring = KeyRing([NEW])
    assert ring.wrap(DATA_KEY, CONTEXT) != ring.wrap(DATA_KEY, CONTEXT)


def test_another_context_does_not_unwrap():
    ring = KeyRing([NEW])
    with pytest.raises(BlobCorrupt):
        ring.unwrap(ring.wrap(DATA_KEY, CONTEXT), b"d" * 32)


def test_a_key_that_is_not_in_the_ring_is_named():
    with pytest.raises(BlobKeyUnavailable, match=key_id(OLD).hex()):
        KeyRing([NEW]).unwrap(KeyRing([OLD]).wrap(DATA_KEY, CONTEXT), CONTEXT)


def test_each_changed_bit_of_a_wrapped_key_is_refused():
    ring = KeyRing([NEW])
    envelope = ring.wrap(DATA_KEY, CONTEXT)
    for bit in range(len(envelope.wrapped) * 8):
        changed = bytearray(envelope.wrapped)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BlobCorrupt):
            ring.unwrap(KeyEnvelope(envelope.scheme, envelope.key_id, bytes(changed)), CONTEXT)


@pytest.mark.parametrize("length", [0, 12, 59, 61])
def test_a_wrapped_key_of_another_length_is_refused(length):
    with pytest.raises(BlobCorrupt):
        KeyRing([NEW]).unwrap(KeyEnvelope(WrapScheme.LOCAL_AES_256_GCM, key_id(NEW), bytes(length)), CONTEXT)


@pytest.mark.parametrize("keys", [[], ["00" * 31], ["00" * 33], ["zz" * 32], ["00" * 32, "short"]])
def test_what_is_no_key_is_refused_without_showing_it(keys):
    with pytest.raises(ConfigurationError) as caught:
        KeyRing.from_hex(*keys)
    assert not any(key in str(caught.value) for key in keys)
