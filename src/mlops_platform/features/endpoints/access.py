"""What the routes of this service share: permissions, names, the service's state."""

from typing import Annotated

from fastapi import Depends, Path, Request

from mlops_platform.contracts.common import ID_PATTERN, NAME_PATTERN
from mlops_platform.core.http.routing import requires
from mlops_platform.core.identity import Permission
from mlops_platform.features.service.author import Author
from mlops_platform.features.service.state import FeatureState

FEATURES_READ = Permission("features:read")
FEATURES_WRITE = Permission("features:write")

reads_named = requires(FEATURES_READ, resource="name")
writes_named = requires(FEATURES_WRITE, resource="name")

FeatureSetName = Annotated[str, Path(pattern=NAME_PATTERN, description="The feature set's name.")]
TrainingSetId = Annotated[str, Path(pattern=ID_PATTERN, description="The training set's id.")]


async def feature_state(request: Request) -> FeatureState:
    """What this service keeps in memory."""
    state = request.app.state.service
    assert isinstance(state, FeatureState)  # noqa: S101  # `app.SERVICE` makes it
    return state


async def author_of(request: Request) -> Author:
    """The caller, for use cases that open their own transactions."""
    state = request.scope["state"]
    return Author(state["principal"], state.get("request_id"), state.get("trace_parent"))


AuthorOf = Annotated[Author, Depends(author_of)]
StateOf = Annotated[FeatureState, Depends(feature_state)]
