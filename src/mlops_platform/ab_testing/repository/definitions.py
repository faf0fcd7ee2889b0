"""Tests, their allocations and metrics, and the snapshot that routing is answered from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, Update, and_, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from mlops_platform.ab_testing.domain.assignment import Allocation
from mlops_platform.ab_testing.domain.definition import Arm, Definition
from mlops_platform.ab_testing.tables import ab_tests, allocations, outcome_metrics, revisions
from mlops_platform.contracts.ab_testing import ABTestStatus, Goal, MetricKind, OutcomeMetric
from mlops_platform.core.auth.visibility import in_project, names_allowed, visible_to
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import ReadSession, WriteSession, violated_constraint
from mlops_platform.core.identity import Permission, Principal

CHANNEL = "mlops_ab_tests"
NAME_KEY = "ab_tests_project_id_name_key"
AB_TESTS_READ = Permission("ab_tests:read")


class ABTestReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def test(self, name: str) -> Definition | None:
        """The test of this name."""
        row = await self._session.first(_with_allocation(self._live(name)))
        return _definition(row) if row is not None else None

    async def tests(self, *, status: ABTestStatus | None, after: str | None, limit: int) -> list[Definition]:
        """Tests by name."""
        statement = _with_allocation(visible_to(self._principal, ab_tests)).where(ab_tests.c.deleted_at.is_(None))
        allowed = names_allowed(self._principal, AB_TESTS_READ, ab_tests.c.name)
        if allowed is not None:
            statement = statement.where(allowed)
        if status is not None:
            statement = statement.where(ab_tests.c.status == status.value)
        if after is not None:
            statement = statement.where(ab_tests.c.name > after)
        return [_definition(row) for row in await self._session.all(statement.order_by(ab_tests.c.name).limit(limit))]

    async def metrics(self, test_id: str) -> list[OutcomeMetric]:
        """The metrics of one test."""
        return (await self.metrics_by_test([test_id]))[test_id]

    async def metrics_by_test(self, test_ids: Collection[str]) -> dict[str, list[OutcomeMetric]]:
        """The metrics of each of these tests, by name; the primary one first."""
        found: dict[str, list[OutcomeMetric]] = {test_id: [] for test_id in test_ids}
        statement = (
            visible_to(self._principal, outcome_metrics)
            .where(outcome_metrics.c.test_id.in_(list(test_ids)))
            .order_by(outcome_metrics.c.test_id, outcome_metrics.c.is_primary.desc(), outcome_metrics.c.name)
        )
        for row in await self._session.all(statement):
            found[row.test_id].append(
                OutcomeMetric(name=row.name, kind=MetricKind(row.kind), goal=Goal(row.goal), is_primary=row.is_primary)
            )
        return found

    async def weights_by_version(self, test_id: str) -> dict[int, list[float]]:
        """The weights of every allocation that the test has had."""
        statement = visible_to(self._principal, allocations).where(allocations.c.test_id == test_id)
        return {row.version: row.weights for row in await self._session.all(statement)}

    def _live(self, name: str) -> Select[Any]:
        return visible_to(self._principal, ab_tests).where(ab_tests.c.name == name, ab_tests.c.deleted_at.is_(None))


class ABTestRepository(ABTestReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def locked(self, name: str) -> Definition | None:
        """The test of this name; nobody else changes it until the commit."""
        # Locked in a statement of its own: one that has waited would join the new test with its old allocation.
        await self._session.first(self._live(name).with_for_update())
        return await self.test(name)

    async def locked_deleted(self, name: str) -> Definition | None:
        """The test of this name that was deleted last, locked."""
        tests = visible_to(self._principal, ab_tests)
        deleted = tests.where(ab_tests.c.name == name, ab_tests.c.deleted_at.is_not(None))
        last = await self._session.first(deleted.order_by(ab_tests.c.deleted_at.desc()).limit(1).with_for_update())
        row = last and await self._session.first(_with_allocation(tests).where(ab_tests.c.id == last.id))
        return _definition(row) if row is not None else None

    async def add(self, test: Definition) -> bool:
        """Insert a test with its first allocation; False when the name is in use."""
        added = await self._session.scalar(
            upsert(ab_tests)
            .values(**_values(test))
            .on_conflict_do_nothing(index_elements=["project_id", "name"], index_where=ab_tests.c.deleted_at.is_(None))
            .returning(ab_tests.c.id)
        )
        if added is not None:
            await self.add_allocation(test, test.created_at)
        return added is not None

    async def save(self, test: Definition) -> None:
        """Write a test that was locked."""
        await self._session.execute(self._update(test).values(**_values(test)))

    async def delete(self, test: Definition, deleted_at: datetime) -> None:
        """Delete softly: the name is free from now on."""
        await self._session.execute(self._update(test).values(deleted_at=deleted_at))

    async def restore(self, test: Definition) -> bool:
        """Undo a deletion; False when the name is in use again, and then the transaction must not go on."""
        try:
            await self._session.execute(self._update(test).values(deleted_at=None))
        except IntegrityError as error:
            if violated_constraint(error) == NAME_KEY:
                return False
            raise
        return True

    async def add_allocation(self, test: Definition, now: datetime) -> None:
        """Keep the allocation of the test's current version for good: exposures refer to it."""
        await self._session.execute(
            insert(allocations).values(
                project_id=test.project_id,
                test_id=test.id,
                version=test.allocation_version,
                weights=[arm.weight for arm in test.arms],
                traffic_share=test.traffic_share,
                ends=list(test.allocation.ends),
                owners=list(test.allocation.owners),
                created_at=now,
            )
        )

    async def put_metrics(self, test: Definition, metrics: Sequence[OutcomeMetric]) -> None:
        """Insert metrics, or change those of the same name."""
        statement = upsert(outcome_metrics)
        await self._session.execute(
            statement.on_conflict_do_update(
                constraint="outcome_metrics_pkey",
                set_={name: statement.excluded[name] for name in ("kind", "goal", "is_primary")},
            ),
            _metric_rows(test, metrics),
        )

    async def declare_metrics(self, test: Definition, metrics: Sequence[OutcomeMetric]) -> None:
        """Insert metrics that are not there yet; another writer may have been quicker."""
        await self._session.execute(upsert(outcome_metrics).on_conflict_do_nothing(), _metric_rows(test, metrics))

    async def raise_revision(self, project_id: str) -> int:
        """Count a change of a project's tests, and tell every replica when it commits."""
        statement = upsert(revisions).values(project_id=project_id, revision=1)
        revision = await self._session.scalar(
            statement.on_conflict_do_update(
                constraint="revisions_pkey", set_={"revision": revisions.c.revision + 1}
            ).returning(revisions.c.revision)
        )
        await notify(self._session, CHANNEL)
        return int(revision)

    def _update(self, test: Definition) -> Update:
        return update(ab_tests).where(in_project(self._principal, ab_tests), ab_tests.c.id == test.id)


async def load_revisions(session: ReadSession, project_id: str | None = None) -> dict[str, int]:
    """How often the tests of each project, or of one, have changed. For routing, which serves all projects."""
    statement = select(revisions)
    if project_id is not None:
        statement = statement.where(revisions.c.project_id == project_id)
    return {row.project_id: row.revision for row in await session.all(statement)}


async def load_routable(session: ReadSession, project_id: str) -> tuple[int, list[Definition]]:
    """A project's revision and all its tests that routing knows, from one statement and so of one moment."""
    known = and_(
        ab_tests.c.project_id == revisions.c.project_id,
        ab_tests.c.deleted_at.is_(None),
        ab_tests.c.status != ABTestStatus.ARCHIVED.value,
    )
    statement = (
        select(revisions.c.revision, ab_tests, allocations.c.ends, allocations.c.owners)
        .select_from(revisions.outerjoin(ab_tests, known).outerjoin(allocations, _CURRENT))
        .where(revisions.c.project_id == project_id)
    )
    rows = await session.all(statement)
    return (rows[0].revision if rows else 0), [_definition(row) for row in rows if row.id is not None]


_CURRENT = and_(allocations.c.test_id == ab_tests.c.id, allocations.c.version == ab_tests.c.allocation_version)


def _with_allocation(tests: Select[Any]) -> Select[Any]:
    return tests.add_columns(allocations.c.ends, allocations.c.owners).join(
        allocations, and_(_CURRENT, allocations.c.project_id == ab_tests.c.project_id)
    )


def _metric_rows(test: Definition, metrics: Sequence[OutcomeMetric]) -> list[Mapping[str, Any]]:
    return [{"project_id": test.project_id, "test_id": test.id, **metric.model_dump(mode="json")} for metric in metrics]


_COLUMNS = tuple(name for column in ab_tests.c if (name := column.name) not in {"variants", "status", "deleted_at"})


def _values(test: Definition) -> dict[str, Any]:
    return {
        **{name: getattr(test, name) for name in _COLUMNS},
        "status": test.status.value,
        "variants": [asdict(arm) for arm in test.arms],
    }


def _definition(row: Row[Any]) -> Definition:
    return Definition(
        **{name: getattr(row, name) for name in _COLUMNS},
        status=ABTestStatus(row.status),
        arms=tuple(Arm(**arm) for arm in row.variants),
        allocation=Allocation(tuple(row.ends), tuple(row.owners)),
    )
