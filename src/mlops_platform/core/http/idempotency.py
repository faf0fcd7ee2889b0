"""`Idempotency-Key`: the same POST twice has one effect and one answer.

The key is claimed and its answer is stored in the transaction of the change itself, so that there is no moment at which
the change exists without its answer. Refusals (4xx) change nothing and are not kept: a corrected retry may use the key.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from fastapi import Request
from sqlalchemy import delete, func, insert, select
from starlette.responses import Response

from mlops_platform.core.crypto.seal import seal, unseal
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.errors import Conflict, InvalidInput
from mlops_platform.core.http.tables import idempotency_keys
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.duties import Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork

HEADER = "idempotency-key"
MAX_KEY_LENGTH = 255
_KEPT_HEADERS = ("location", "etag")
_CONTEXT = b"idempotency\0"
_SWEPT_AT_ONCE = 5000


class IdempotencyKeyInUse(Conflict):
    """The first request with this key is still under way."""

    code = "idempotency_key_in_use"


class IdempotencyKeyReused(InvalidInput):
    """The key was used for another request."""

    code = "idempotency_key_reused"


class Replay(Exception):
    """The request was answered before: here is that answer."""

    def __init__(self, status: int, body: bytes, content_type: str | None, headers: dict[str, str]) -> None:
        super().__init__("replay")
        self.status, self.body, self.content_type, self.headers = status, body, content_type, headers

    def response(self) -> Response:
        """The stored answer, marked as a replay."""
        headers = {**self.headers, "idempotency-replayed": "true"}
        return Response(self.body, self.status, headers, self.content_type)


async def claim(request: Request, work: UnitOfWork) -> None:
    """Take the key for this transaction; raises `Replay` when it was answered before."""
    key = request.headers.get(HEADER)
    if key is None or request.method != "POST":
        return
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidInput.of("Idempotency-Key", f"must have 1 to {MAX_KEY_LENGTH} characters", key[:40])
    scope = _scope(work.principal, request, key)
    fingerprint = hashlib.sha256(request.url.query.encode() + b"\0" + await request.body()).digest()
    lock = int.from_bytes(scope[:8], "big", signed=True)
    if not await work.session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyKeyInUse(
            "A request with this Idempotency-Key is still being worked on.", headers={"Retry-After": "1"}
        )
    row = await work.session.first(
        select(idempotency_keys).where(idempotency_keys.c.scope == scope, idempotency_keys.c.expires_at > work.clock.now())
    )
    if row is None:
        request.state.idempotency = (work, scope, fingerprint)
    elif row.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for a request with another body.", hint="Use a new key for a new request."
        )
    else:
        key = request.app.state.runtime.auth_keys.sealing
        raise Replay(row.status, unseal(key, row.body, _CONTEXT + scope), row.content_type, row.headers)


async def remember(request: Request, response: Response) -> None:
    """Keep the answer, in the transaction that is about to commit."""
    claimed = getattr(request.state, "idempotency", None)
    # A stream has no body to keep: it is answered anew.
    if claimed is None or response.status_code >= 400 or not hasattr(response, "body"):
        return
    work, scope, fingerprint = claimed
    hours = request.app.state.runtime.settings.idempotency_hours
    await work.session.execute(delete(idempotency_keys).where(idempotency_keys.c.scope == scope))
    await work.session.execute(
        insert(idempotency_keys).values(
            scope=scope,
            project_id=work.principal.project,
            fingerprint=fingerprint,
            status=response.status_code,
            headers={name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
            # An answer may be a secret that is shown only once, such as a new key: it does not lie about in clear.
            body=seal(request.app.state.runtime.auth_keys.sealing, bytes(response.body), _CONTEXT + scope),
            content_type=response.headers.get("content-type"),
            expires_at=work.clock.now() + timedelta(hours=hours),
        )
    )


async def sweep(session: WriteSession, now: datetime) -> int:
    """Forget answers that are past their time; how many."""
    old = select(idempotency_keys.c.scope).where(idempotency_keys.c.expires_at <= now).limit(_SWEPT_AT_ONCE)
    gone = await session.execute(delete(idempotency_keys).where(idempotency_keys.c.scope.in_(old)))
    return gone.rowcount


async def _sweep_all(runtime: Runtime, _: Any) -> None:
    swept = _SWEPT_AT_ONCE
    while swept == _SWEPT_AT_ONCE:
        async with runtime.database.write() as session:
            swept = await sweep(session, runtime.clock.now())


SWEEP = Periodic("idempotency.sweep", 600.0, _sweep_all)
"""The background duty that forgets old answers; whoever serves HTTP runs it."""


def _scope(principal: Principal, request: Request, key: str) -> bytes:
    parts = (principal.id, principal.project, request.method, request.url.path, key)
    return hashlib.sha256("\0".join(parts).encode()).digest()
