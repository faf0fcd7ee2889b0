"""A body that gives one key twice is told from every other one."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.core.errors import MalformedRequest
from mlops_platform.core.http.repeated import repeated_key
from mlops_platform.core.http.routing import read_json

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from([":", '":', "a:b", "é", '\\"'])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=15,
)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_a_body_without_repetition_is_read_as_it_is(value, ascii_only, indent):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert repeated_key(body, msgspec.json.decode(body)) is None


@given(before=VALUES, key=TEXTS, after=VALUES, wrapped=st.sampled_from(["%s", "[1, %s]", '{"x": [%s], "t": "1:2"}']))
def test_a_repetition_is_found_wherever_it_is(before, key, after, wrapped):
    escaped = "".join(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else char for char in key)
    inner = f'{{"first": {json.dumps(before)}, {json.dumps(key)}: 1, "{escaped}" : {json.dumps(after)}}}'
    body = (wrapped.replace("%s", inner)).encode()
    assert repeated_key(body, msgspec.json.decode(body)) == key


def test_the_refusal_names_the_key():
    with pytest.raises(MalformedRequest, match="'acc' twice"):
        read_json(b'{"acc": 1, "acc": 2}', 10)


def test_integers_of_any_length_do_no_harm():
    body = b'{"a": "1:2", "n": ' + b"9" * 5000 + b"}"
    assert repeated_key(body, {"a": "1:2", "n": 0}) is None


def test_a_colon_that_is_escaped_does_not_hide_a_repetition():
    body = b'{"a": 1, "a": "\\u003a"}'
    assert repeated_key(body, {"a": ":"}) == "a"
    assert repeated_key(b'{"a": "\\u003A"}', {"a": ":"}) is None


def test_texts_in_a_list_do_not_hide_a_repetition():
    assert repeated_key(b'["a", {"a": 1, "a": 1}]', ["a", {"a": 1}]) == "a"
