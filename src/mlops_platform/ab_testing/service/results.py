"""What a test's data says: gathered in one statement, computed off the event loop."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mlops_platform.ab_testing.domain import analysis
from mlops_platform.ab_testing.domain.definition import Definition
from mlops_platform.ab_testing.domain.statistics import Split
from mlops_platform.ab_testing.errors import ABTestNotFound
from mlops_platform.ab_testing.repository.definitions import ABTestReader
from mlops_platform.ab_testing.repository.evidence import Evidence, gather
from mlops_platform.contracts.ab_testing import ABTestResults, OutcomeMetric, VariantUnits
from mlops_platform.core.clock import Clock
from mlops_platform.core.db.session import ReadSession
from mlops_platform.core.identity import Principal


@dataclass(frozen=True, slots=True)
class _Case:
    """All that the computation needs: no session, no clock."""

    test: Definition
    metrics: Sequence[OutcomeMetric]
    evidence: Evidence
    weights: Mapping[int, Sequence[float]]
    confidence: float
    now: datetime


async def results(
    session: ReadSession, principal: Principal, clock: Clock, *, name: str, confidence: float
) -> ABTestResults:
    """The results of a test as of now."""
    reader = ABTestReader(session, principal)
    test = await reader.test(name)
    if test is None:
        raise ABTestNotFound.named(name)
    case = _Case(
        test=test,
        metrics=await reader.metrics(test.id),
        evidence=await gather(session, principal, test.id),
        weights=await reader.weights_by_version(test.id),
        confidence=confidence,
        now=clock.now(),
    )
    return await asyncio.to_thread(_compute, case)


def _compute(case: _Case) -> ABTestResults:
    test, evidence = case.test, case.evidence
    judged = [
        analysis.judge(
            metric,
            [(arm.name, evidence.outcomes(metric.name, i)) for i, arm in enumerate(test.arms)],
            control=test.control,
            confidence=case.confidence,
        )
        for metric in case.metrics
    ]
    units = sum(evidence.units.values())
    srm = analysis.check_ratio(_splits(case))
    return ABTestResults(
        experiment=test.name,
        status=test.status,
        control=test.control,
        confidence_level=case.confidence,
        computed_at=case.now,
        units=units,
        crossover_units=evidence.crossover_units,
        variants=[
            VariantUnits(
                variant=arm.name,
                model_version=arm.model_version,
                weight=arm.weight,
                units=evidence.exposed(i),
                exposures=evidence.exposures.get(i, 0),
            )
            for i, arm in enumerate(test.arms)
        ],
        srm=srm,
        metrics=judged,
        warnings=analysis.warnings(
            srm,
            judged,
            units=units,
            crossover_units=evidence.crossover_units,
            allocations=len({version for _, version in evidence.units}),
        ),
    )


def _splits(case: _Case) -> list[Split]:
    """The units of each allocation version against the weights of that version."""
    return [
        Split(
            units=tuple(case.evidence.units.get((i, version), 0) for i in range(len(weights))),
            weights=tuple(weights),
        )
        for version, weights in sorted(case.weights.items())
    ]
