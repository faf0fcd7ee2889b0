import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from mlops_platform.core.auth.tokens import AUDIENCE, ISSUER, LEEWAY_SECONDS, TokenClaims, expiry, read_token, sign_token
from mlops_platform.core.identity import new_id

KEY = b"k" * 32
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ID = new_id()
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "p", "jti": ID, "exp": int(NOW.timestamp()) + 60}


def forged(claims=CLAIMS, *, header=None, key=KEY):
    return jwt.encode(header or {"alg": "HS256"}, claims, OctKey.import_key(key))


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def split_of(token):
    """Head and body, and an empty text for the signature."""
    head, body, _ = token.split(".")
    return head, body, ""


class TestGenuine:
    def test_a_signed_token_gives_its_id_until_its_end(self):
        token = sign_token(KEY, TokenClaims(ID, "p", NOW, NOW + timedelta(hours=1)))
        assert read_token(KEY, token, NOW) == ID
        assert read_token(KEY, token, NOW + timedelta(hours=1, seconds=LEEWAY_SECONDS - 1)) == ID
        assert read_token(KEY, token, NOW + timedelta(hours=1, seconds=LEEWAY_SECONDS + 1)) is None

    def test_it_is_in_its_time_up_to_the_leeway_of_half_a_minute(self):
        token = sign_token(KEY, TokenClaims(ID, "p", NOW, NOW + timedelta(hours=1)))
        assert LEEWAY_SECONDS == 30
        assert read_token(KEY, token, NOW + timedelta(hours=1, seconds=29)) == ID
        assert read_token(KEY, token, NOW + timedelta(hours=1, seconds=31)) is None

    def test_it_states_whose_it_is_and_from_when_to_when(self):
        token = sign_token(KEY, TokenClaims(ID, "p", NOW, NOW + timedelta(hours=1)))
        head, body, _ = (json.loads(base64.urlsafe_b64decode(it + "==")) if it else None for it in split_of(token))
        start = int(NOW.timestamp())
        assert head == {"alg": "HS256", "typ": "JWT"}
        platform = "mlops-platform"
        assert body == {"iss": platform, "aud": platform, "sub": "p", "jti": ID, "iat": start, "exp": start + 3600}

    def test_it_ends_as_many_seconds_after_now_as_were_asked_for(self):
        assert expiry(NOW, 90.0) == NOW + timedelta(seconds=90)

    def test_the_forger_of_these_tests_would_succeed_with_everything_right(self):
        assert read_token(KEY, forged(), NOW) == ID


class TestForged:
    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
    @pytest.mark.parametrize("signature", ["", "AAAA"])
    def test_no_algorithm_is_no_signature(self, alg, signature):
        assert read_token(KEY, f"{part({'alg': alg, 'typ': 'JWT'})}.{part(CLAIMS)}.{signature}", NOW) is None

    def test_another_algorithm_is_refused_even_with_our_key(self):
        for alg in ("HS384", "HS512"):
            token = jwt.encode({"alg": alg}, CLAIMS, OctKey.import_key(KEY * 2), algorithms=[alg])
            assert read_token(KEY * 2, token, NOW) is None

    def test_a_public_key_algorithm_is_refused(self):
        key = RSAKey.generate_key(2048)
        assert read_token(KEY, jwt.encode({"alg": "RS256"}, CLAIMS, key), NOW) is None

    def test_a_key_within_the_header_is_not_believed(self):
        own = OctKey.import_key(b"z" * 32)
        token = jwt.encode({"alg": "HS256", "jwk": own.as_dict(), "kid": "../../dev/null"}, CLAIMS, own)
        assert read_token(KEY, token, NOW) is None

    def test_another_key_is_refused(self):
        assert read_token(KEY, forged(key=b"z" * 32), NOW) is None

    def test_a_changed_claim_is_refused(self):
        head, _, signature = forged().split(".")
        assert read_token(KEY, f"{head}.{part({**CLAIMS, 'jti': new_id()})}.{signature}", NOW) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"aud": "other"},
            {"aud": None},
            {"iss": "evil"},
            {"iss": None},
            {"exp": None},
            {"exp": "tomorrow"},
            {"exp": -1},
            {"exp": float("1e400")},
            {"jti": None},
            {"jti": 7},
            {"jti": "short"},
            {"jti": ["x" * 32]},
            {"jti": ["x"] * 32},
            {"jti": "x" * 31},
            {"jti": "x" * 33},
        ],
    )
    def test_a_claim_that_is_wrong_or_missing_is_refused(self, change):
        claims = {name: value for name, value in {**CLAIMS, **change}.items() if value is not None}
        assert read_token(KEY, forged(claims), NOW) is None

    @pytest.mark.parametrize(
        "text", ["", ".", "..", "a.b.c", "....", "ü.ü.ü", "eyJ.eyJ.", "\x00", "x" * 100_000, "a.b.c.d.e"]
    )
    def test_what_is_no_token_is_refused_without_a_crash(self, text):
        assert read_token(KEY, text, NOW) is None

    @pytest.mark.parametrize("payload", [[], "text", 7, None, {}])
    def test_a_payload_that_is_no_set_of_claims_is_refused(self, payload):
        head, body = part({"alg": "HS256"}), part(payload)
        assert read_token(KEY, f"{head}.{body}.AAAA", NOW) is None
