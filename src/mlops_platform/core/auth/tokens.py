"""Tokens of services and of uploads: signed JWTs with a fixed algorithm, an audience, an expiry and a revocable id."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from mlops_platform.core.identity import Permission

ALGORITHM = "HS256"
ISSUER = "mlops-platform"
AUDIENCE = "mlops-platform"
LEEWAY_SECONDS = 30
UPLOAD_AUDIENCE = "mlops-upload"
PARTS_WRITE = Permission("artifact_parts:write")
"""What an upload token is for, and all that it is for."""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token states. Everything else is looked up by its id."""

    token_id: str
    principal_id: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UploadClaims:
    """What an upload token states: whose it is, and of which upload it may put parts. It ends with its credential."""

    upload_id: str
    project_id: str
    credential_id: str
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
    claims = _claims(key, token, now, AUDIENCE)
    return _id(claims, "jti") if claims else None


def sign_upload_token(key: bytes, claims: UploadClaims) -> str:
    """The compact JWT of another kind, under another key: neither is ever taken for the other."""
    payload = {
        "iss": ISSUER,
        "aud": UPLOAD_AUDIENCE,
        "sub": claims.upload_id,
        "jti": claims.credential_id,
        "project": claims.project_id,
        "exp": int(claims.expires_at.timestamp()),
    }
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, payload, OctKey.import_key(key))


def read_upload_token(key: bytes, token: str, now: datetime) -> UploadClaims | None:
    """What an upload token that is genuine, ours and in its time states; None otherwise."""
    claims = _claims(key, token, now, UPLOAD_AUDIENCE)
    ids = [_id(claims, name) for name in ("sub", "project", "jti")] if claims else []
    upload_id, project_id, credential_id = ids or (None, None, None)
    if claims is None or upload_id is None or project_id is None or credential_id is None:
        return None
    return UploadClaims(upload_id, project_id, credential_id, datetime.fromtimestamp(claims["exp"], UTC))


def _claims(key: bytes, token: str, now: datetime, audience: str) -> dict[str, Any] | None:
    registry = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        jti={"essential": True},
    )
    try:
        decoded = jwt.decode(token, OctKey.import_key(key), algorithms=[ALGORITHM])
        registry.validate(decoded.claims)
    except (JoseError, ValueError):
        return None
    return decoded.claims


def _id(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and len(value) == 32 else None


def expiry(now: datetime, seconds: float) -> datetime:
    """When a token made now ends."""
    return now + timedelta(seconds=seconds)
