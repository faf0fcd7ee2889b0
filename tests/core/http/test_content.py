import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from mlops_platform.core.errors import PlatformError
from mlops_platform.core.http import content

DIGEST = hashlib.sha256(b"content").hexdigest()
CODED = base64.b64encode(bytes.fromhex(DIGEST)).decode()


def headers(**given):
    return Headers({name.replace("_", "-"): value for name, value in given.items()})


@pytest.mark.parametrize(
    "given_headers",
    [
        {"x_checksum_sha256": DIGEST}, {"x_checksum_sha256": f" {DIGEST.upper()} "},
        {"content_digest": f"sha-256=:{CODED}:"},
        {"repr_digest": f"md5=:AA==:,sha-256=:{CODED}:;q=1"},
        {"content_digest": f"sha-256=:{CODED}:", "x_checksum_sha256": DIGEST},
    ],
)  # fmt: skip
def test_each_way_to_promise_a_digest(given_headers):
    assert content.check_upload(headers(**given_headers), max_bytes=10) == DIGEST


def test_other_algorithms_promise_nothing():
    assert content.check_upload(headers(content_digest="sha-512=:AAAA:"), max_bytes=10) is None


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_any_digest_header_is_read_or_refused(value):
    for name in ("content-digest", "x-checksum-sha256", "content-length", "content-encoding"):
        for shown in (value, f"sha-256={value}", f"sha-256=:{value}:"):
            try:
                content.check_upload(Headers({name: shown}), max_bytes=10)
            except PlatformError as refused:
                assert refused.status in {400, 413, 415, 422}  # noqa: PT017  # either is right, nothing else is


@pytest.mark.parametrize(
    ("value", "expected"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_if_none_match(value, expected):
    assert content.is_unchanged(headers(if_none_match=value), content.entity_tag("a")) is expected
    assert content.is_unchanged(headers(), content.entity_tag("a")) is False


@settings(deadline=None)
@given(st.text(max_size=40).filter(lambda name: max(name, default="a") < "\ud800" or name.isascii()))
def test_no_file_name_breaks_out_of_its_header(name):
    value = content.disposition(name)
    value.encode("latin-1")
    assert not set("\r\n") & set(value)
    assert value.count('"') == 2
