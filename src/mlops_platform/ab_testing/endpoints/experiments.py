"""A/B tests: make, list, change, start, pause, stop. The wire calls them experiments."""

from typing import Annotated

from fastapi import Path, Query, Response

from mlops_platform.ab_testing.domain import definition
from mlops_platform.ab_testing.domain.assignment import SLOTS, traffic_slots
from mlops_platform.ab_testing.errors import ABTestNotFound, ABTestTaken, IllegalTransition
from mlops_platform.ab_testing.repository.definitions import AB_TESTS_READ, ABTestReader
from mlops_platform.ab_testing.service.routing import Routing
from mlops_platform.ab_testing.service.ab_tests import ABTests
from mlops_platform.contracts.ab_testing import (
    ABTest,
    ABTestCreate,
    ABTestStatus,
    ABTestStop,
    ABTestUpdate,
    Allocation,
    SlotRange,
)
from mlops_platform.contracts.common import NAME_PATTERN, Page
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.dependencies import Caller, Reading, StateOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Permission

AB_TESTS_WRITE = Permission("ab_tests:write")

router = platform_router(tags=["experiments"])
NamePath = Annotated[str, Path(pattern=NAME_PATTERN, description="The name of the A/B test.")]
READ = requires(AB_TESTS_READ, resource="name")
WRITE = requires(AB_TESTS_WRITE, resource="name")
MISSING = problems(ABTestNotFound, InvalidInput)
MOVES = problems(ABTestNotFound, InvalidInput, IllegalTransition)


def _tests(work: Work, state: StateOf) -> ABTests:
    routing: Routing = state
    return ABTests(work, routing.snapshot)


@router.post(
    "/api/experiments",
    status_code=201,
    dependencies=[requires(AB_TESTS_WRITE)],
    responses=problems(ABTestTaken, InvalidInput),
)
async def create_test(body: ABTestCreate, work: Work, state: StateOf, response: Response) -> ABTest:
    """Make an A/B test. It runs right away, and `/api/route` knows it, unless `status` is `draft`."""
    work.principal.require(AB_TESTS_WRITE, body.name)
    response.headers["Location"] = f"/api/experiments/{body.name}"
    return await _tests(work, state).create(body)


@router.get("/api/experiments", dependencies=[requires(AB_TESTS_READ)], responses=problems(InvalidInput))
async def list_tests(
    caller: Caller,
    session: Reading,
    page: PageOf,
    status: Annotated[ABTestStatus | None, Query(description="Only tests in this state.")] = None,
) -> Page[ABTest]:
    """A/B tests by name."""
    after = page.after[0] if page.after else None
    reader = ABTestReader(session, caller)
    found = await reader.tests(status=status, after=after, limit=page.size + 1)
    metrics = await reader.metrics_by_test([test.id for test in found])
    return page.answer(found, lambda test: definition.to_contract(test, metrics[test.id]), lambda test: (test.name,))


@router.get("/api/experiments/{name}", dependencies=[READ], responses=MISSING)
async def get_test(name: NamePath, caller: Caller, session: Reading) -> ABTest:
    """One A/B test."""
    reader = ABTestReader(session, caller)
    test = await reader.test(name)
    if test is None:
        raise ABTestNotFound.named(name)
    return definition.to_contract(test, await reader.metrics(test.id))


@router.get("/api/experiments/{name}/allocation", dependencies=[READ], responses=MISSING)
async def get_allocation(name: NamePath, caller: Caller, session: Reading) -> Allocation:
    """Salt and slots, for clients that assign units by themselves. Send what they do to `/exposures`."""
    test = await ABTestReader(session, caller).test(name)
    if test is None:
        raise ABTestNotFound.named(name)
    return Allocation(
        experiment=test.name,
        allocation_version=test.allocation_version,
        salt=test.salt,
        slots=SLOTS,
        traffic_slots=traffic_slots(test.traffic_share),
        ranges=[
            SlotRange(start=start, end=end, variant=test.arms[owner].name) for start, end, owner in test.allocation.ranges()
        ],
    )


@router.patch("/api/experiments/{name}", dependencies=[WRITE], responses=MOVES)
async def update_test(name: NamePath, body: ABTestUpdate, work: Work, state: StateOf) -> ABTest:
    """Change description, weights, traffic share or metrics. New weights move as few units as possible."""
    return await _tests(work, state).update(name, body)


@router.delete("/api/experiments/{name}", status_code=204, dependencies=[WRITE], responses=MISSING)
async def delete_test(name: NamePath, work: Work, state: StateOf) -> None:
    """Delete a test softly: it is not routed any more, its data is kept, its name is free."""
    await _tests(work, state).delete(name)


@router.post(
    "/api/experiments/{name}/restore",
    dependencies=[WRITE],
    responses=problems(ABTestNotFound, ABTestTaken, InvalidInput),
)
async def restore_test(name: NamePath, work: Work, state: StateOf) -> ABTest:
    """Bring back the test of this name that was deleted last."""
    return await _tests(work, state).restore(name)


@router.post("/api/experiments/{name}/start", dependencies=[WRITE], responses=MOVES)
async def start_test(name: NamePath, work: Work, state: StateOf) -> ABTest:
    """Start a draft, or go on after a pause. Units keep their variants."""
    return await _tests(work, state).move(name, ABTestStatus.RUNNING)


@router.post("/api/experiments/{name}/pause", dependencies=[WRITE], responses=MOVES)
async def pause_test(name: NamePath, work: Work, state: StateOf) -> ABTest:
    """Give everyone the control's model version until the test is started again."""
    return await _tests(work, state).move(name, ABTestStatus.PAUSED)


@router.post("/api/experiments/{name}/stop", dependencies=[WRITE], responses=MOVES)
async def stop_test(name: NamePath, work: Work, state: StateOf, body: ABTestStop | None = None) -> ABTest:
    """End a test for good. With a winner everyone gets its model version from now on, else the control's."""
    return await _tests(work, state).stop(name, body or ABTestStop())


@router.post("/api/experiments/{name}/archive", dependencies=[WRITE], responses=MOVES)
async def archive_test(name: NamePath, work: Work, state: StateOf) -> ABTest:
    """Put a draft or a stopped test away: it is not routed any more and takes no data."""
    return await _tests(work, state).move(name, ABTestStatus.ARCHIVED)
