import re
import string
import zlib

import pytest

from mlops_platform.core.auth.keys import is_key, key_digest, key_hint, make_key
from mlops_platform.core.identity import PrincipalKind

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
EACH_KIND = pytest.mark.parametrize("kind", list(PrincipalKind))


def checksum(body: str) -> str:
    """The CRC-32 in six digits of base 62, as documented."""
    value = zlib.crc32(body.encode())
    return "".join(ALPHABET[value // 62**place % 62] for place in reversed(range(6)))


class TestForm:
    @EACH_KIND
    def test_a_key_has_kind_random_part_and_checksum(self, kind):
        assert re.fullmatch(r"mlops_(user|svc)_[0-9A-Za-z]{26}_[0-9A-Za-z]{6}", make_key(kind))

    @EACH_KIND
    def test_a_made_key_is_a_key(self, kind):
        assert all(is_key(make_key(kind)) for _ in range(200))

    def test_one_wrong_character_anywhere_is_no_key(self):
        key = make_key(PrincipalKind.USER)
        for place, was in enumerate(key):
            assert not is_key(key[:place] + ("x" if was != "x" else "y") + key[place + 1 :])

    @pytest.mark.parametrize(
        "text", ["", "_", "mlops_user_", "mlops_user__", "mlops_user_a_b", "ü" * 40, "\x00", "x" * 10_000]
    )
    def test_other_text_is_no_key(self, text):
        assert not is_key(text)

    @pytest.mark.parametrize(
        "key", ["mlops_user_0123456789ABCDEFGHIJKLMNOP_41zVgk", "mlops_svc_abcdefghijklmnopqrstuvwxyz_0Iw7xU"]
    )
    def test_keys_of_former_versions_stay_keys(self, key):
        assert is_key(key)

    def test_a_right_checksum_does_not_make_a_key_of_other_text(self):
        for body in ("mlops_admin_0123456789", "other", "user_0123456789", "mlops_user_ü"):
            assert not is_key(f"{body}_{checksum(body)}")
        assert is_key(f"mlops_user_0123456789_{checksum('mlops_user_0123456789')}")

    def test_every_digit_of_the_alphabet_is_used(self):
        used = {digit for _ in range(300) for digit in make_key(PrincipalKind.USER).split("_")[2]}
        assert used == set(ALPHABET)

    def test_no_two_keys_are_alike(self):
        assert len({make_key(PrincipalKind.SERVICE) for _ in range(1000)}) == 1000


class TestWhatIsKept:
    @EACH_KIND
    def test_the_hint_shows_four_of_the_random_digits_at_most(self, kind):
        key = make_key(kind)
        random_part, checksum = key.split("_")[2:]
        prefix, shown = key_hint(key).split("…")
        assert prefix in {"mlops_user_", "mlops_svc_"}
        assert len(shown) == 4
        assert random_part.endswith(shown)
        assert checksum not in key_hint(key)

    def test_the_digest_depends_on_the_pepper_and_on_the_whole_key(self):
        key = make_key(PrincipalKind.USER)
        assert key_digest(b"a", key) != key_digest(b"b", key)
        assert key_digest(b"a", key) != key_digest(b"a", key + " ")
        assert key.encode() not in key_digest(b"a", key)

    def test_the_digest_is_hmac_sha256(self):
        """RFC 4231, test case 2."""
        expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        assert key_digest(b"Jefe", "what do ya want for nothing?").hex() == expected
