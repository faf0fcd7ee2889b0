"""Service tokens: signed JWTs with a fixed algorithm, an audience, an expiry and an id that can be revoked."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

ALGORITHM = "HS256"
ISSUER = "mlops-platform"
AUDIENCE = "mlops-platform"
LEEWAY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token states. Everything else is looked up by its id."""

    token_id: str
    principal_id: str
    issued_at: datetime
    expires_at: datetime


def sign_token(key: bytes, claims: TokenClaims) -> str:
    """The compact JWT."""
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": claims.principal_id,
        "jti": claims.token_id,
        "iat": int(claims.issued_at.timestamp()),
        "exp": int(claims.expires_at.timestamp()),
    }
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, payload, OctKey.import_key(key))


def read_token(key: bytes, token: str, now: datetime) -> str | None:
    """The id of a token that is genuine, ours and in its time; None otherwise."""
    registry = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
        jti={"essential": True},
    )
    try:
        decoded = jwt.decode(token, OctKey.import_key(key), algorithms=[ALGORITHM])
        registry.validate(decoded.claims)
    except (JoseError, ValueError):
        return None
    token_id = decoded.claims["jti"]
    return token_id if isinstance(token_id, str) and len(token_id) == 32 else None


def expiry(now: datetime, seconds: float) -> datetime:
    """When a token made now ends."""
    return now + timedelta(seconds=seconds)
