"""Tests, their allocations and metrics, and the snapshot that routing is answered from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from mlops_platform.ab_testing.domain.assignment import Allocation
from mlops_platform.ab_testing.domain.definition import Arm, Definition
from mlops_platform.ab_testing.errors import ABTestNotFound, ABTestTaken
from mlops_platform.ab_testing.tables import ab_tests, allocations, outcome_metrics, revisions
from mlops_platform.contracts.ab_testing import ABTestStatus, Goal, MetricKind, OutcomeMetric
from mlops_platform.core.auth.visibility import names_allowed, visible_to
from mlops_platform.core.db.notify import notify
from mlops_platform.core.db.session import ReadSession, WriteSession, violated_constraint
from mlops_platform.core.identity import Permission, Principal

CHANNEL = "mlops_ab_tests"
NAME_KEY = "ab_tests_project_id_name_key"


async def find(session: ReadSession, principal: Principal, name: str, *, lock: bool = False) -> Definition:
    """The test of this name, or `ABTestNotFound`. With `lock` nobody else changes it until the transaction ends."""
    tests = visible_to(principal, ab_tests).where(ab_tests.c.name == name, ab_tests.c.deleted_at.is_(None))
    if lock:
        # In a statement of its own: one that had waited for the lock would join the new test with the old allocation.
        await session.first(tests.with_for_update())
    row = await session.first(_with_allocation(tests))
    if row is None:
        raise ABTestNotFound(f"There is no A/B test named {name!r} in this project.")
    return _definition(row)


async def find_deleted(session: ReadSession, principal: Principal, name: str) -> Definition:
    """The test of this name that was deleted last, locked, or `ABTestNotFound`."""
    tests = visible_to(principal, ab_tests)
    deleted = tests.where(ab_tests.c.name == name, ab_tests.c.deleted_at.is_not(None))
    last = await session.first(deleted.order_by(ab_tests.c.deleted_at.desc()).limit(1).with_for_update())
    row = last and await session.first(_with_allocation(tests).where(ab_tests.c.id == last.id))
    if row is None:
        raise ABTestNotFound(f"There is no deleted A/B test named {name!r} in this project.")
    return _definition(row)


async def page(
    session: ReadSession,
    principal: Principal,
    permission: Permission,
    *,
    status: ABTestStatus | None,
    after: str | None,
    limit: int,
) -> list[Definition]:
    """Tests by name, those that the caller may see."""
    statement = _with_allocation(visible_to(principal, ab_tests)).where(ab_tests.c.deleted_at.is_(None))
    allowed = names_allowed(principal, permission, ab_tests.c.name)
    if allowed is not None:
        statement = statement.where(allowed)
    if status is not None:
        statement = statement.where(ab_tests.c.status == status.value)
    if after is not None:
        statement = statement.where(ab_tests.c.name > after)
    return [_definition(row) for row in await session.all(statement.order_by(ab_tests.c.name).limit(limit))]


async def metrics_of(
    session: ReadSession, principal: Principal, test_ids: Collection[str]
) -> dict[str, list[OutcomeMetric]]:
    """The metrics of each of these tests, by name; the primary one first."""
    found: dict[str, list[OutcomeMetric]] = {test_id: [] for test_id in test_ids}
    statement = (
        visible_to(principal, outcome_metrics)
        .where(outcome_metrics.c.test_id.in_(list(test_ids)))
        .order_by(outcome_metrics.c.test_id, outcome_metrics.c.is_primary.desc(), outcome_metrics.c.name)
    )
    for row in await session.all(statement):
        found[row.test_id].append(
            OutcomeMetric(name=row.name, kind=MetricKind(row.kind), goal=Goal(row.goal), is_primary=row.is_primary)
        )
    return found


async def add(session: WriteSession, test: Definition) -> None:
    """Insert a test with its first allocation; `ABTestTaken` when the name is in use."""
    try:
        await session.execute(insert(ab_tests).values(**_values(test)))
    except IntegrityError as error:
        if violated_constraint(error) == NAME_KEY:
            raise taken(test.name) from error
        raise
    await add_allocation(session, test, test.created_at)


async def save(session: WriteSession, test: Definition) -> None:
    """Write a test that `find` has locked."""
    values = _values(test)
    await session.execute(update(ab_tests).where(ab_tests.c.id == values.pop("id")).values(**values))


async def add_allocation(session: WriteSession, test: Definition, now: datetime) -> None:
    """Keep the allocation of the test's current version for good: exposures refer to it."""
    await session.execute(
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


async def weights_by_version(session: ReadSession, principal: Principal, test_id: str) -> dict[int, list[float]]:
    """The weights of every allocation that the test has had."""
    statement = visible_to(principal, allocations).where(allocations.c.test_id == test_id)
    return {row.version: row.weights for row in await session.all(statement)}


async def put_metrics(session: WriteSession, test: Definition, metrics: Sequence[OutcomeMetric]) -> None:
    """Insert metrics, or change those of the same name."""
    statement = upsert(outcome_metrics)
    await session.execute(
        statement.on_conflict_do_update(
            constraint="outcome_metrics_pkey",
            set_={name: statement.excluded[name] for name in ("kind", "goal", "is_primary")},
        ),
        _metric_rows(test, metrics),
    )


async def declare_metrics(session: WriteSession, test: Definition, metrics: Sequence[OutcomeMetric]) -> None:
    """Insert metrics that are not there yet; another writer may have been quicker."""
    await session.execute(upsert(outcome_metrics).on_conflict_do_nothing(), _metric_rows(test, metrics))


async def set_deleted(session: WriteSession, test: Definition, deleted_at: datetime | None) -> None:
    """Delete softly, or restore; `ABTestTaken` when the name is in use again."""
    try:
        await session.execute(update(ab_tests).where(ab_tests.c.id == test.id).values(deleted_at=deleted_at))
    except IntegrityError as error:
        if violated_constraint(error) == NAME_KEY:
            raise taken(test.name) from error
        raise


async def raise_revision(session: WriteSession, project_id: str) -> int:
    """Count a change of a project's tests, and tell every replica when it commits."""
    statement = upsert(revisions).values(project_id=project_id, revision=1)
    revision = await session.scalar(
        statement.on_conflict_do_update(constraint="revisions_pkey", set_={"revision": revisions.c.revision + 1}).returning(
            revisions.c.revision
        )
    )
    await notify(session, CHANNEL)
    return int(revision)


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


def taken(name: str) -> ABTestTaken:
    """The error of a name in use."""
    return ABTestTaken(f"An A/B test named {name!r} exists already.", hint="Choose another name, or delete that test.")


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
