"""The life of a test: each change is one transaction with its audit entry, its events and its lineage."""

import secrets
from dataclasses import replace

from mlops_platform.ab_testing.domain import definition
from mlops_platform.ab_testing.domain.definition import Definition, Origin
from mlops_platform.ab_testing.errors import ABTestNotFound, ABTestTaken, IllegalTransition
from mlops_platform.ab_testing.repository.definitions import ABTestRepository
from mlops_platform.ab_testing.repository.evidence import has_outcomes
from mlops_platform.ab_testing.service.snapshot import Snapshot
from mlops_platform.contracts.ab_testing import (
    ABTest,
    ABTestCreate,
    ABTestStatus,
    ABTestStop,
    ABTestUpdate,
    OutcomeMetric,
    OutcomeMetricCreate,
)
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import new_id
from mlops_platform.core.work.unit import UnitOfWork

EVENTS = {
    ABTestStatus.RUNNING: "ab_test.started",
    ABTestStatus.PAUSED: "ab_test.paused",
    ABTestStatus.STOPPED: "ab_test.stopped",
    ABTestStatus.ARCHIVED: "ab_test.archived",
}
CONCLUDED = "ab_test.concluded"


class ABTests:
    """Makes and changes tests; routing sees the change as soon as it is committed."""

    def __init__(self, work: UnitOfWork, snapshot: Snapshot) -> None:
        self._work = work
        self._snapshot = snapshot
        self._tests = ABTestRepository(work.session, work.principal)

    async def create(self, body: ABTestCreate) -> ABTest:
        """A new test, running unless it is asked to be a draft."""
        work = self._work
        origin = Origin(
            id=new_id(),
            project_id=work.principal.project,
            salt=secrets.token_hex(16),
            created_by=work.principal.name,
            now=work.clock.now(),
        )
        test = definition.define(body, origin)
        if not await self._tests.add(test):
            raise ABTestTaken.named(test.name)
        if body.metrics:
            await self._tests.put_metrics(test, [_metric(metric) for metric in body.metrics])
        answer = await self._finish(test, "ab_test.created", before=None)
        await self._state_links(test)
        if test.status is ABTestStatus.RUNNING:
            await self._emit("ab_test.started", test)
        return answer

    async def update(self, name: str, body: ABTestUpdate) -> ABTest:
        """Change what may change in the test's state."""
        work = self._work
        test = await self._locked(name)
        before = await self._as_contract(test)
        if test.status is ABTestStatus.ARCHIVED:
            raise IllegalTransition(f"The test {name!r} is archived and does not change any more.")
        changed = test
        if body.variants is not None or body.traffic_share is not None:
            changed = definition.reweigh(test, body.variants, body.traffic_share)
        if body.description is not None:
            changed = replace(changed, description=body.description)
        if body.metrics is not None:
            await self._change_metrics(test, before.metrics, body.metrics)
            changed = replace(changed, has_open_metrics=False)
        now = work.clock.now()
        changed = replace(changed, updated_at=now)
        await self._tests.save(changed)
        if changed.allocation_version != test.allocation_version:
            await self._tests.add_allocation(changed, now)
            await self._emit("ab_test.reallocated", changed)
        if changed.arms != test.arms:
            await self._state_links(changed)
        return await self._finish(changed, "ab_test.updated", before=before)

    async def move(self, name: str, to: ABTestStatus) -> ABTest:
        """Start, pause or archive."""
        work = self._work
        test = await self._locked(name)
        before = await self._as_contract(test)
        moved = definition.move(test, to, work.clock.now())
        await self._tests.save(moved)
        return await self._finish(moved, EVENTS[to], before=before)

    async def stop(self, name: str, body: ABTestStop) -> ABTest:
        """End a test for good and record its winner; a winner may also be given to a test that was stopped without."""
        work = self._work
        test = await self._locked(name)
        before = await self._as_contract(test)
        stopped = definition.conclude(test, body.winner, body.note, work.clock.now())
        await self._tests.save(stopped)
        if stopped.winner is not None:
            outcome = work.urn("outcome", test.name)
            await work.link(work.urn("ab-test", test.name), "concluded_with", outcome)
            await work.link(outcome, "favours", work.urn("variant", f"{test.name}/{stopped.winner}"))
        if test.status is ABTestStatus.STOPPED:
            return await self._finish(stopped, CONCLUDED, before=before)
        answer = await self._finish(stopped, EVENTS[ABTestStatus.STOPPED], before=before)
        if stopped.winner is not None:
            await self._emit(CONCLUDED, stopped)
        return answer

    async def delete(self, name: str) -> None:
        """Take a test away; its name is free and its data is kept."""
        work = self._work
        test = await self._locked(name)
        before = await self._as_contract(test)
        await self._tests.delete(test, work.clock.now())
        await self._publish(test, is_gone=True)
        await work.audit("ab_test.deleted", f"ab-test:{name}", before=before.model_dump(mode="json"))
        await self._emit("ab_test.deleted", test)

    async def restore(self, name: str) -> ABTest:
        """Bring back the test of this name that was deleted last, as it was."""
        test = await self._tests.locked_deleted(name)
        if test is None:
            raise ABTestNotFound(f"There is no deleted A/B test named {name!r} in this project.")
        if not await self._tests.restore(test):
            raise ABTestTaken.named(name)
        return await self._finish(test, "ab_test.restored", before=None)

    async def _change_metrics(
        self, test: Definition, known: list[OutcomeMetric], changes: list[OutcomeMetricCreate]
    ) -> None:
        """Add or change metrics by name; what recorded outcomes mean must not change under them."""
        definition.check_metrics(changes)
        work = self._work
        kinds = {metric.name: metric.kind for metric in known}
        for change in changes:
            differs = kinds.get(change.name, change.kind) is not change.kind
            if differs and await has_outcomes(work.session, work.principal, test.id, change.name):
                raise InvalidInput.of(
                    "metrics",
                    f"{change.name!r} has outcomes as a {kinds[change.name]} and cannot become a {change.kind}",
                    change.kind.value,
                    hint="Add a metric of another name.",
                )
        put = [_metric(change) for change in changes]
        if any(metric.is_primary for metric in put):
            named = {metric.name for metric in put}
            put += [
                metric.model_copy(update={"is_primary": False})
                for metric in known
                if metric.is_primary and metric.name not in named
            ]
        await self._tests.put_metrics(test, put)

    async def _finish(self, test: Definition, event: str, *, before: ABTest | None) -> ABTest:
        """What every change ends with: snapshot, audit, event, answer."""
        await self._publish(test)
        after = await self._as_contract(test)
        await self._work.audit(
            event,
            f"ab-test:{test.name}",
            before=before.model_dump(mode="json") if before else None,
            after=after.model_dump(mode="json"),
        )
        await self._emit(event, test)
        return after

    async def _publish(self, test: Definition, *, is_gone: bool = False) -> None:
        revision = await self._tests.raise_revision(test.project_id)
        self._work.session.after_commit(lambda: self._snapshot.install(test, revision, is_gone=is_gone))

    async def _emit(self, event: str, test: Definition) -> None:
        await self._work.emit(
            event,
            self._work.urn("ab-test", test.name),
            {
                "id": test.id,
                "name": test.name,
                "status": test.status.value,
                "allocation_version": test.allocation_version,
                "variants": [
                    {"name": arm.name, "weight": arm.weight, "model_version": arm.model_version} for arm in test.arms
                ],
                "winner": test.winner,
                "winning_model_version": test.fallback().model_version if test.winner else None,
            },
        )

    async def _state_links(self, test: Definition) -> None:
        """Which model versions a test compares. Free text and aliases name no version, so they make no edge."""
        work = self._work
        for arm in test.arms:
            variant = work.urn("variant", f"{test.name}/{arm.name}")
            await work.link(variant, "part_of", work.urn("ab-test", test.name))
            version = definition.registry_version(arm.model_version)
            if version is not None:
                await work.link(variant, "routes_to", work.urn("model-version", version))

    async def _as_contract(self, test: Definition) -> ABTest:
        return definition.to_contract(test, await self._tests.metrics(test.id))

    async def _locked(self, name: str) -> Definition:
        test = await self._tests.locked(name)
        if test is None:
            raise ABTestNotFound.named(name)
        return test


def _metric(body: OutcomeMetricCreate) -> OutcomeMetric:
    return OutcomeMetric(name=body.name, kind=body.kind, goal=body.goal, is_primary=body.is_primary)
