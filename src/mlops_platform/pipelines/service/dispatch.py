"""What a worker does with the database: hand in endings and lines, take tasks, keep its leases."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mlops_platform.contracts.pipelines import AttemptState, PipelineRunState, TaskSpec
from mlops_platform.core.auth.directory import Directory, NewCredential
from mlops_platform.core.clock import to_wire
from mlops_platform.core.db.session import WriteSession
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.domain.graph import referenced_tasks
from mlops_platform.pipelines.domain.references import Scope, resolve
from mlops_platform.pipelines.domain.scopes import task_scopes
from mlops_platform.pipelines.errors import UnresolvableReference
from mlops_platform.pipelines.repository import dispatch as sql
from mlops_platform.pipelines.repository import logs as logs_sql
from mlops_platform.pipelines.service.settlement import Ending, Fence, Settlement
from mlops_platform.pipelines.tables import NO_ITEM

MAX_ITEMS = 10_000
MAX_ITEM_BYTES = 16 * 1024 * 1024
MAX_ARGUMENT_BYTES = 1024 * 1024
_LEAST_IDLING = timedelta(seconds=2)
_TOKEN_SECONDS = 24 * 3600.0
_TOKEN_MARGIN_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """An attempt that is this worker's to run, with everything that it needs."""

    task_run_id: str
    project_id: str
    run_id: str
    task: str
    item: int | None
    attempt: int
    spec: TaskSpec
    arguments: Mapping[str, Any]
    token: str | None = field(repr=False, default=None)
    trace_parent: str | None = None

    @property
    def fence(self) -> Fence:
        return self.task_run_id, self.attempt


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one exchange: tasks to run, tasks that ended in the claim itself, and endings that were too late."""

    claimed: Sequence[ClaimedTask] = ()
    ended_already: Sequence[Ending] = ()
    refused: frozenset[Fence] = frozenset()


@dataclass(frozen=True, slots=True)
class _Token:
    secret: str = field(repr=False)
    expires_at: datetime


class Dispatcher:
    """One per worker. Every method is one transaction."""

    def __init__(self, runtime: Runtime, lease_seconds: float, chance: Random) -> None:
        self._runtime = runtime
        self._lease = timedelta(seconds=lease_seconds)
        self._chance = chance
        self._tokens: dict[str, _Token] = {}

    async def exchange(
        self, endings: Sequence[Ending], chunks: Sequence[Mapping[str, Any]], offer: sql.Offer | None
    ) -> Exchange:
        """Store lines, settle endings and claim tasks, in one commit: the commit is what costs."""
        async with self._transaction() as session:
            await logs_sql.insert_chunks(session, chunks)
            accepted = await self._settlement(session).settle(endings)
            refused = frozenset(ending.fence for ending in endings) - accepted
            if offer is None or offer.slots < 1:
                return Exchange(refused=refused)
            claimed, ended = await self._claim(session, offer)
        return Exchange(claimed, ended, refused)

    async def renew(self, worker_id: str, held: Sequence[Fence]) -> Mapping[Fence, PipelineRunState]:
        """Extend the leases of what is held; the state of the run of each attempt that is still held."""
        async with self._transaction() as session:
            still = await sql.renew(session, worker_id, held, self._lease)
        return {fence: PipelineRunState(state) for fence, state in still.items()}

    async def expire(self, limit: int = 200) -> int:
        """End the attempts of workers that fell silent; how many that were. Any process may do this at any time."""
        async with self._transaction() as session:
            rows = await sql.expired(session, limit)
            settled = await self._settlement(session).settle([_lost(row) for row in rows], skip_locked=True)
        return len(settled)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[WriteSession]:
        async with self._runtime.database.write() as session:
            await sql.limit_idling(session, max(self._lease / 3, _LEAST_IDLING))
            yield session

    def _settlement(self, session: WriteSession) -> Settlement:
        return Settlement(session, self._runtime.clock, self._runtime.auth_keys, self._chance)

    async def _claim(self, session: WriteSession, offer: sql.Offer) -> tuple[list[ClaimedTask], list[Ending]]:
        rows = [(row, TaskSpec.model_validate(row.spec)) for row in await sql.claim(session, offer, self._lease)]
        wanted = {(row.run_id, name) for row, spec in rows for name in referenced_tasks(spec)}
        results = _by_run(await sql.results_of(session, sorted(wanted)))
        claimed: list[ClaimedTask] = []
        ended: list[Ending] = []
        for row, spec in rows:
            prepared = prepare(row, spec, results.get(row.run_id, {}))
            if isinstance(prepared, Ending):
                ended.append(prepared)
                continue
            claimed.append(
                ClaimedTask(
                    task_run_id=row.id,
                    project_id=row.project_id,
                    run_id=row.run_id,
                    task=row.task,
                    item=None if row.item == NO_ITEM else row.item,
                    attempt=row.attempt,
                    spec=spec,
                    arguments=prepared,
                    token=await self._token(session, row, spec.timeout_seconds),
                    trace_parent=row.trace_parent,
                )
            )
        return claimed, ended

    async def _token(self, session: WriteSession, row: Any, timeout_seconds: float | None) -> str:
        """A token of the run's author for this run, kept by this worker until it nears its end."""
        now = self._runtime.clock.now()
        needed = timedelta(seconds=timeout_seconds or _TOKEN_MARGIN_SECONDS)
        known = self._tokens.get(row.run_id)
        if known is not None and known.expires_at - now >= needed:
            return known.secret
        new = NewCredential(
            principal_id=row.principal_id,
            project_id=row.project_id,
            name=f"pipeline run {row.run_id}",
            scopes=task_scopes(row.scopes),
            created_by=row.principal_id,
        )
        seconds = max(_TOKEN_SECONDS, 2 * needed.total_seconds())
        directory = Directory(session, self._runtime.auth_keys, now)
        credential_id, secret, expires_at = await directory.add_token(new, seconds)
        await sql.keep_token(session, row.project_id, row.run_id, credential_id)
        fresh = _Token(secret, expires_at)
        # Only a committed token may be used again: an undone one is nobody's.
        session.after_commit(lambda: self._remember(row.run_id, fresh, now))
        return secret

    def _remember(self, run_id: str, token: _Token, now: datetime) -> None:
        self._tokens = {run: kept for run, kept in self._tokens.items() if kept.expires_at > now}
        self._tokens[run_id] = token

    def forget_tokens(self, run_ids: frozenset[str]) -> None:
        """Keep tokens of these runs only: the others have nothing here any more."""
        self._tokens = {run: token for run, token in self._tokens.items() if run in run_ids}


def prepare(row: Any, spec: TaskSpec, results: Mapping[str, Any]) -> Mapping[str, Any] | Ending:
    """The arguments of an attempt; or its end, when it is a fan-out that only unfolds or its references lead nowhere."""
    is_item = row.item != NO_ITEM
    scope = Scope(
        parameters=row.parameters,
        results=results,
        run={"id": row.run_id, "scheduled_for": to_wire(row.scheduled_for) if row.scheduled_for else None},
        item=row.item_value,
        has_item=is_item,
    )
    try:
        if spec.for_each is not None and not is_item:
            items = _items(resolve(spec.for_each, scope, limit_bytes=MAX_ITEM_BYTES))
            return Ending(row.id, row.attempt, AttemptState.EXPANDED, items=items)
        return _bounded(resolve(spec.arguments, scope, limit_bytes=MAX_ARGUMENT_BYTES))
    except UnresolvableReference as problem:
        error = {"type": "UnresolvableReference", "message": str(problem), "traceback": None}
        return Ending(row.id, row.attempt, AttemptState.FAILED, error=error)


def _bounded(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    size = len(json.dumps(arguments, ensure_ascii=False))
    if size > MAX_ARGUMENT_BYTES:
        raise UnresolvableReference(f"the arguments are {size} bytes, more than {MAX_ARGUMENT_BYTES}")
    return arguments


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UnresolvableReference(f"for_each is not a list but {str(value)[:100]!r}")
    if len(value) > MAX_ITEMS:
        raise UnresolvableReference(f"for_each has {len(value)} items, more than {MAX_ITEMS}")
    return value


def _by_run(rows: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Results by run and task. A fan-out's is the list of its items' results."""
    found: dict[str, dict[str, Any]] = {}
    items: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        if row.item == NO_ITEM:
            found.setdefault(row.run_id, {})[row.task] = row.result
        else:
            items.setdefault((row.run_id, row.task), []).append(row.result)
    for (run_id, task), values in items.items():
        found.setdefault(run_id, {})[task] = values
    return found


def _lost(row: Any) -> Ending:
    message = f"Worker {row.worker!r} fell silent; its lease ended."
    error = {"type": "WorkerLost", "message": message, "traceback": None}
    return Ending(row.id, row.attempt, AttemptState.LOST, error=error)
