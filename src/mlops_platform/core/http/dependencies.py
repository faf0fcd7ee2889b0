"""What an endpoint asks for: the caller, a reading session, or a unit of work.

Dependencies are coroutines, also those that wait for nothing: the framework runs a plain function in a thread, which costs
more than most statements.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request

from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.http import idempotency
from mlops_platform.core.identity import Principal
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork


async def current_runtime(request: Request) -> Runtime:
    """The collaborators of this process."""
    return request.app.state.runtime  # type: ignore[no-any-return]


async def current_state(request: Request) -> Any:
    """What this service keeps in memory."""
    return request.app.state.service


async def current_principal(request: Request) -> Principal:
    """The caller; the authentication layer has put it there."""
    return request.scope["state"]["principal"]  # type: ignore[no-any-return]


async def reading_session(request: Request) -> AsyncIterator[ReadSession]:
    """A read-only transaction for the time of the endpoint."""
    async with request.app.state.runtime.database.read() as session:
        yield session


async def unit_of_work(request: Request) -> AsyncIterator[UnitOfWork]:
    """A transaction that commits when the endpoint has returned, before the response leaves."""
    runtime: Runtime = request.app.state.runtime
    state = request.scope["state"]
    async with runtime.database.write() as session:
        work = UnitOfWork(
            session,
            state["principal"],
            runtime.clock,
            state.get("request_id"),
            state.get("trace_parent"),
        )
        session.after_commit(lambda: runtime.signals.send("events"))
        await idempotency.claim(request, work)
        yield work
        # Where an endpoint opens its transactions itself, this one is over before there is an answer to remember.
        request.state.idempotency = None


RuntimeOf = Annotated[Runtime, Depends(current_runtime)]
StateOf = Annotated[Any, Depends(current_state)]
Caller = Annotated[Principal, Depends(current_principal)]
Reading = Annotated[ReadSession, Depends(reading_session, scope="function")]
Work = Annotated[UnitOfWork, Depends(unit_of_work, scope="function")]
