"""One action on many runs, in one transaction: all of them or none."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mlops_platform.contracts.tracking import DeletedFilter
from mlops_platform.contracts.tracking_runs import MAX_BULK_RUNS, BulkAction, BulkChange, BulkChanged, RunsMatching
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.work.unit import Change, UnitOfWork
from mlops_platform.tracking.errors import ExperimentDeleted, RunDeleted, RunNotFound, TooManyRuns
from mlops_platform.tracking.repository.experiments import ExperimentRepository
from mlops_platform.tracking.repository.runs import RunRepository
from mlops_platform.tracking.repository.search import find
from mlops_platform.tracking.repository.transfer import Transfer
from mlops_platform.tracking.service.experiments import EXPERIMENTS_WRITE
from mlops_platform.tracking.service.searching import read_search
from mlops_platform.tracking.service.transfer import receiving

MAX_BULK_TAGS = 100


class BulkRuns:
    """The bulk use cases of one caller."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._runs = RunRepository(work.session, work.principal)
        self._experiments = ExperimentRepository(work.session, work.principal)
        self._transfer = Transfer(work.session, work.principal)

    async def change(self, bulk: BulkChange) -> BulkChanged:
        """Find the runs, hold them, and change those that are not already so."""
        _check(bulk)
        wanted = list(dict.fromkeys(bulk.run_ids)) if bulk.run_ids else await self._found(bulk)
        rows = await self._held(wanted, is_strict=bulk.run_ids is not None)
        actions: Mapping[BulkAction, Callable[[Sequence[Record], BulkChange], Awaitable[int]]] = {
            BulkAction.DELETE: self._delete,
            BulkAction.RESTORE: self._restore,
            BulkAction.TAG: self._tag,
            BulkAction.MOVE: self._move,
        }
        changed = await actions[bulk.action](rows, bulk)
        ids = [row.id for row in rows]
        return BulkChanged(action=bulk.action, changed=changed, unchanged=len(ids) - changed, run_ids=ids)

    async def _found(self, bulk: BulkChange) -> list[str]:
        matching = bulk.search or RunsMatching(experiment_ids=[])
        # What is restored is deleted: asking for live runs would find nothing, which nobody wants.
        is_restore = bulk.action is BulkAction.RESTORE and matching.deleted is DeletedFilter.EXCLUDE
        deleted = DeletedFilter.ONLY if is_restore else matching.deleted
        session, principal = self._work.session, self._work.principal
        search = await read_search(
            session, principal, matching.filter, experiment_ids=matching.experiment_ids, deleted=deleted
        )
        found = await find(session, principal, search, limit=MAX_BULK_RUNS + 1)
        if len(found) > MAX_BULK_RUNS:
            raise TooManyRuns(
                f"The search finds more than {MAX_BULK_RUNS} runs, the most that one request changes; none was changed.",
                hint="Narrow the filter, and repeat the request for the rest.",
            )
        return [place.run_id for place in found]

    async def _held(self, run_ids: Sequence[str], *, is_strict: bool) -> Sequence[Record]:
        rows = await self._runs.hold_each(run_ids) if run_ids else ()
        known = {row.id for row in rows}
        missing = [run_id for run_id in run_ids if run_id not in known]
        if missing and is_strict:
            raise RunNotFound.of(missing[0])
        for name in {row.experiment_name for row in rows}:
            self._work.principal.require(EXPERIMENTS_WRITE, name)
        return rows

    async def _delete(self, rows: Sequence[Record], bulk: BulkChange) -> int:
        live = [row for row in rows if row.deleted_at is None]
        await self._runs.change_each([row.id for row in live], {"deleted_at": self._work.clock.now()})
        await self._experiments.count_each((row.experiment_id, row.id, row.status, -1) for row in live)
        await self._record("run.deleted", live, lambda row: {"before": {"run_name": row.name}})
        return len(live)

    async def _restore(self, rows: Sequence[Record], bulk: BulkChange) -> int:
        gone = [row for row in rows if row.deleted_at is not None]
        for row in gone:
            if row.experiment_deleted_at is not None:
                raise ExperimentDeleted.of(row.experiment_id)
        await self._runs.change_each([row.id for row in gone], {"deleted_at": None})
        await self._experiments.count_each((row.experiment_id, row.id, row.status, 1) for row in gone)
        await self._record("run.restored", gone, lambda row: {"after": {"run_name": row.name}})
        return len(gone)

    async def _tag(self, rows: Sequence[Record], bulk: BulkChange) -> int:
        _check_live(rows)
        ids = [row.id for row in rows]
        kept = {key: value for key, value in bulk.tags.items() if value is not None}
        removed = [key for key, value in bulk.tags.items() if value is None]
        if kept and ids:
            await self._transfer.tag(ids, kept)
        if removed and ids:
            await self._transfer.untag(ids, removed)
        await self._runs.change_each(ids, {"updated_at": self._work.clock.now()})
        await self._record("run.tags_changed", rows, lambda _: {"after": bulk.tags})
        return len(rows)

    async def _move(self, rows: Sequence[Record], bulk: BulkChange) -> int:
        _check_live(rows)
        target = (await receiving(self._work, str(bulk.experiment_id))).id
        moved = [row for row in rows if row.experiment_id != target]
        if moved:
            await self._transfer.move([row.id for row in moved], target, self._work.clock.now())
        await self._experiments.count_each(
            change
            for row in moved
            for change in ((row.experiment_id, row.id, row.status, -1), (target, row.id, row.status, 1))
        )
        await self._record(
            "run.moved",
            moved,
            lambda row: {"before": {"experiment_id": row.experiment_id}, "after": {"experiment_id": target}},
        )
        return len(moved)

    async def _record(self, action: str, rows: Sequence[Record], states: Callable[[Record], dict[str, Any]]) -> None:
        """An audit entry and an event for each run, as if each had been changed alone."""
        urns = {row.id: self._work.urn("run", row.id) for row in rows}
        await self._work.audit_each(action, [Change(urns[row.id], **states(row)) for row in rows])
        facts = [(urns[row.id], {"run_id": row.id, "experiment_id": row.experiment_id, **states(row)}) for row in rows]
        await self._work.emit_each(action, facts)


def _check(bulk: BulkChange) -> None:
    if (bulk.run_ids is None) == (bulk.search is None):
        raise InvalidInput.of("run_ids", "give either run_ids or a search", bulk.run_ids)
    if (bulk.action is BulkAction.TAG) != bool(bulk.tags):
        raise InvalidInput.of("tags", "belong to the action 'tag', and to no other", dict(list(bulk.tags.items())[:3]))
    if len(bulk.tags) > MAX_BULK_TAGS:
        raise InvalidInput.of("tags", f"holds more than {MAX_BULK_TAGS} tags", len(bulk.tags))
    if (bulk.action is BulkAction.MOVE) != (bulk.experiment_id is not None):
        raise InvalidInput.of("experiment_id", "belongs to the action 'move', and to no other", bulk.experiment_id)


def _check_live(rows: Sequence[Record]) -> None:
    for row in rows:
        if row.deleted_at is not None or row.experiment_deleted_at is not None:
            raise RunDeleted.of(row.id)
