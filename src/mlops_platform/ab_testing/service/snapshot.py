"""The tests that routing knows, in memory and ready to answer: no I/O, one hash, bytes that are rendered already."""

import asyncio
import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field

import msgspec

from mlops_platform.ab_testing.domain import lifecycle
from mlops_platform.ab_testing.domain.assignment import SEPARATOR, SLOTS, traffic_slots
from mlops_platform.ab_testing.domain.definition import Arm, Definition
from mlops_platform.ab_testing.repository import definitions
from mlops_platform.contracts.ab_testing import ABTestStatus, RouteReason
from mlops_platform.core.db.database import Database

_encode = msgspec.json.encode


class Plan:
    """One test, prepared so that a unit's answer costs one hash, one bisection and one concatenation."""

    __slots__ = (
        "_digest",
        "_ends",
        "_heads",
        "_outside",
        "_owners",
        "_tail",
        "_tail_outside",
        "_traffic",
        "definition",
        "revision",
    )  # fmt: skip

    def __init__(self, test: Definition, revision: int) -> None:
        self.definition = test
        self.revision = revision
        self._digest = hashlib.sha256(test.salt.encode() + SEPARATOR)
        self._ends = test.allocation.ends
        self._owners = test.allocation.owners
        splits = test.status is ABTestStatus.RUNNING
        self._traffic = traffic_slots(test.traffic_share) if splits else 0
        self._heads = [_head(test, arm) for arm in test.arms]
        self._outside = _head(test, test.fallback())
        reason = (
            RouteReason.OUTSIDE_TRAFFIC
            if splits
            else lifecycle.fallback_reason(test.status, has_winner=test.winner is not None)
        )
        self._tail = _tail(test, in_experiment=True, reason=RouteReason.SPLIT)
        self._tail_outside = _tail(test, in_experiment=False, reason=reason)

    def route(self, unit_id: str) -> tuple[int | None, bytes]:
        """The position of the unit's variant, None when it takes no part, and the JSON answer."""
        unit = unit_id.encode()
        if self._traffic:
            state = self._digest.copy()
            state.update(unit)
            digest = state.digest()
            if int.from_bytes(digest[:8], "big") * SLOTS >> 64 < self._traffic:
                slot = int.from_bytes(digest[8:16], "big") * SLOTS >> 64
                variant = self._owners[bisect_right(self._ends, slot)]
                return variant, self._heads[variant] + _encode(unit_id) + self._tail
        return None, self._outside + _encode(unit_id) + self._tail_outside


def _head(test: Definition, arm: Arm) -> bytes:
    rendered = _encode({"experiment": test.name, "variant": arm.name, "model_version": arm.model_version})
    return rendered[:-1] + b',"user_id":'


def _tail(test: Definition, *, in_experiment: bool, reason: RouteReason) -> bytes:
    rendered = _encode(
        {"in_experiment": in_experiment, "allocation_version": test.allocation_version, "reason": reason.value}
    )
    return b"," + rendered[1:]


@dataclass(slots=True)
class _Project:
    """The plans of a project by test name. `complete` is the revision up to which nothing is missing."""

    complete: int = 0
    newest: int = 0
    plans: dict[str, Plan] = field(default_factory=dict)


class Snapshot:
    """All plans of all projects.

    A change made by this process is installed when it commits, so the next request sees it. Changes of other replicas
    come with `refresh`, which compares one number per project and loads the projects whose number differs. A snapshot
    that cannot be refreshed goes on answering: an outage of the database must not stop routing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._projects: dict[str, _Project] = {}
        self._looking = asyncio.Lock()

    def find(self, project_id: str, name: str) -> Plan | None:
        """The plan of a test, from memory."""
        project = self._projects.get(project_id)
        return project.plans.get(name) if project is not None else None

    async def look_up(self, project_id: str, name: str) -> Plan | None:
        """The same, after looking whether another replica has made the test meanwhile."""
        async with self._looking:
            plan = self.find(project_id, name)
            if plan is None:
                async with self._database.read() as session:
                    revisions = await definitions.load_revisions(session, project_id)
                await self._load_changed(revisions)
                plan = self.find(project_id, name)
        return plan

    async def refresh(self) -> None:
        """Catch up with what other replicas have changed."""
        async with self._database.read() as session:
            revisions = await definitions.load_revisions(session)
        await self._load_changed(revisions)

    def install(self, test: Definition, revision: int, *, is_gone: bool = False) -> None:
        """Take over one test that was just committed here as the project's change number `revision`."""
        project = self._projects.setdefault(test.project_id, _Project())
        known = project.plans.get(test.name)
        if known is None or known.revision < revision:
            project.plans.pop(test.name, None)
            if not is_gone and test.status is not ABTestStatus.ARCHIVED:
                project.plans[test.name] = Plan(test, revision)
        project.newest = max(project.newest, revision)
        if revision == project.complete + 1:
            project.complete = revision

    async def _load_changed(self, revisions: dict[str, int]) -> None:
        for project_id, revision in revisions.items():
            known = self._projects.get(project_id)
            if known is None or known.complete < revision:
                await self._load(project_id)

    async def _load(self, project_id: str) -> None:
        async with self._database.read() as session:
            revision, tests = await definitions.load_routable(session, project_id)
        known = self._projects.setdefault(project_id, _Project())
        # What was installed while the rows were on their way is newer than they are; the next refresh brings the rest.
        if revision >= known.newest:
            plans = {test.name: Plan(test, revision) for test in tests}
            self._projects[project_id] = _Project(revision, revision, plans)
