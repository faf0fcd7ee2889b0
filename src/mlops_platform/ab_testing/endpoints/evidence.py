"""What units did, and what it says."""

from typing import Annotated

from fastapi import Query

from mlops_platform.ab_testing.domain import power
from mlops_platform.ab_testing.endpoints.experiments import MISSING, READ, WRITE, NamePath
from mlops_platform.ab_testing.errors import ABTestNotFound, NotRecording
from mlops_platform.ab_testing.repository.definitions import AB_TESTS_READ
from mlops_platform.ab_testing.service import results
from mlops_platform.ab_testing.service.recording import Recording
from mlops_platform.contracts.ab_testing import (
    ABTestResults,
    ExposureBatch,
    OutcomeBatch,
    Recorded,
    SampleSize,
    SampleSizeQuery,
)
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.routing import platform_router, problems, requires

router = platform_router(tags=["evidence"])
RECORDING = problems(ABTestNotFound, NotRecording, InvalidInput)


@router.post("/api/experiments/{name}/outcomes", status_code=201, dependencies=[WRITE], responses=RECORDING)
async def record_outcomes(name: NamePath, body: OutcomeBatch, work: Work) -> Recorded:
    """Record what units did: one outcome or a list. Sending an outcome again changes nothing."""
    return await Recording(work).outcomes(name, body)


@router.post("/api/experiments/{name}/exposures", status_code=201, dependencies=[WRITE], responses=RECORDING)
async def record_exposures(name: NamePath, body: ExposureBatch, work: Work) -> Recorded:
    """Record which variants units met, for clients that assign by themselves; `/api/route` does it by itself."""
    return await Recording(work).exposures(name, body)


@router.get("/api/experiments/{name}/results", dependencies=[READ], responses=MISSING)
async def get_results(
    name: NamePath,
    caller: Caller,
    session: Reading,
    runtime: RuntimeOf,
    confidence: Annotated[
        float, Query(ge=0.5, le=0.9999, description="Confidence level of intervals and verdicts.")
    ] = 0.95,
) -> ABTestResults:
    """Counts, means, differences with intervals and p-values, and whether units fell as weighted."""
    return await results.results(session, caller, runtime.clock, name=name, confidence=confidence)


@router.get("/api/sample-size", dependencies=[requires(AB_TESTS_READ)], responses=problems(InvalidInput))
def get_sample_size(query: Annotated[SampleSizeQuery, Query()]) -> SampleSize:
    """How many units a test needs to find an effect."""
    return power.sample_size(query)
