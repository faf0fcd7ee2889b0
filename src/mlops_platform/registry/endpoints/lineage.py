"""The lineage graph of the whole platform."""

from typing import Annotated

from fastapi import Query

from mlops_platform.contracts.common import LineageEdge
from mlops_platform.contracts.registry import LineageDirection, LineageEdgeCreate, LineageGraph
from mlops_platform.core.errors import NotFound
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Permission
from mlops_platform.registry.domain.lineage import EXCLUSIVE, MAX_DEPTH, Urn, read_urn
from mlops_platform.registry.endpoints.parameters import MODELS_PROMOTE, READ, AliasName, ModelName, VersionLabel
from mlops_platform.registry.errors import AliasNotFound, ModelVersionNotFound
from mlops_platform.registry.repository.lineage import LineageReader
from mlops_platform.registry.repository.models import ModelReader
from mlops_platform.registry.service.lineage import LINEAGE_READ, Lineage, graph
from mlops_platform.registry.service.models import found_alias, found_version

LINEAGE_WRITE = Permission("lineage:write")

router = platform_router(tags=["lineage"])

Direction = Annotated[LineageDirection, Query(description="Towards what it was made from, what was made from it, or both.")]
Depth = Annotated[int, Query(ge=1, le=MAX_DEPTH, description="How many edges away an answer may be.")]


@router.post("/api/lineage", status_code=201, dependencies=[requires(LINEAGE_WRITE)], responses=problems(NotFound))
async def state_edge(body: LineageEdgeCreate, work: Work) -> LineageEdge:
    """State an edge that no service states by itself. Stating it again changes nothing."""
    project = work.principal.project
    subject, target = read_urn(body.subject, project, field="subject"), read_urn(body.object, project, field="object")
    for end in (subject, target):
        work.principal.require(LINEAGE_WRITE, end.resource)
    if body.relation in EXCLUSIVE:
        # It takes the place of what an alias states, so it takes what moving an alias takes.
        work.principal.require(MODELS_PROMOTE, subject.resource)
    return await Lineage(work).state_by_hand(subject, body.relation, target)


@router.get("/api/lineage", dependencies=[requires(LINEAGE_READ)], responses=problems(NotFound))
async def get_lineage(
    urn: Annotated[str, Query(max_length=500, description="A URN of this project, or its short form `<kind>:<name>`.")],
    caller: Caller,
    session: Reading,
    direction: Direction = LineageDirection.BOTH,
    depth: Depth = 5,
) -> LineageGraph:
    """What a thing was made from (upstream), and what is affected when it is wrong (downstream)."""
    root = read_urn(urn, caller.project, field="urn")
    caller.require(LINEAGE_READ, root.resource)
    return await graph(LineageReader(session, caller), caller, root, direction, depth=depth)


@router.get("/api/models/{name}/versions/{version}/lineage", dependencies=[READ], responses=problems(ModelVersionNotFound))
async def get_version_lineage(
    name: ModelName,
    version: VersionLabel,
    caller: Caller,
    session: Reading,
    direction: Direction = LineageDirection.UPSTREAM,
    depth: Depth = MAX_DEPTH,
) -> LineageGraph:
    """The lineage of a version."""
    row = await found_version(ModelReader(session, caller), name, version)
    root = Urn(caller.project, "model-version", f"{row.name}/{row.version}")
    return await graph(LineageReader(session, caller), caller, root, direction, depth=depth)


@router.get("/api/models/{name}/aliases/{alias}/lineage", dependencies=[READ], responses=problems(AliasNotFound))
async def get_alias_lineage(
    name: ModelName,
    alias: AliasName,
    caller: Caller,
    session: Reading,
    direction: Direction = LineageDirection.UPSTREAM,
    depth: Depth = MAX_DEPTH,
) -> LineageGraph:
    """The lineage of an alias, through the version to which it points."""
    row = await found_alias(ModelReader(session, caller), name, alias)
    root = Urn(caller.project, "alias", f"{row.name}/{alias}")
    return await graph(LineageReader(session, caller), caller, root, direction, depth=depth)
