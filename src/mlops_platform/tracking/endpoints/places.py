"""Where a run is: `/api/runs/{run_id}`, or below its experiment. Everything below a run answers at both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Request

from mlops_platform.contracts.common import ID_PATTERN
from mlops_platform.core.errors import PlatformError
from mlops_platform.core.http.routing import problems, requires
from mlops_platform.core.identity import Permission
from mlops_platform.tracking.endpoints.experiments import ExperimentId
from mlops_platform.tracking.errors import RunNotFound

SHORT = "/api/runs/{run_id}"
LONG = "/api/experiments/{experiment_id}/runs/{run_id}"
RunId = Annotated[str, Path(pattern=ID_PATTERN, description="The run's id.")]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class RunPlace:
    """A run as the path names it."""

    run_id: str
    experiment_id: str | None


async def run_place(run_id: RunId, request: Request) -> RunPlace:
    """The run of the path, and its experiment when the path has it."""
    return RunPlace(run_id, request.path_params.get("experiment_id"))


async def _declare_experiment(experiment_id: ExperimentId) -> str:
    """Check and document the path parameter that only the long form has."""
    return experiment_id


Place = Annotated[RunPlace, Depends(run_place)]
_FORMS: tuple[tuple[str, list[Any]], ...] = ((SHORT, []), (LONG, [Depends(_declare_experiment)]))


def on_run(
    router: APIRouter,
    method: str,
    suffix: str = "",
    *,
    permission: Permission,
    errors: tuple[type[PlatformError], ...] = (),
    also: Sequence[Any] = (),
    **options: Any,
) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint below both forms of a run's path; `also` are further dependencies."""

    def register(endpoint: Endpoint) -> Endpoint:
        for prefix, declared in _FORMS:
            router.add_api_route(
                prefix + suffix,
                endpoint,
                methods=[method],
                dependencies=[requires(permission), *declared, *also],
                responses=problems(RunNotFound, *errors),
                **options,
            )
        return endpoint

    return register
