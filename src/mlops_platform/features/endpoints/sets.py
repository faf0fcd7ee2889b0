"""Routes of feature sets."""

from typing import Annotated

from fastapi import Query, Response

from mlops_platform.contracts.common import Page
from mlops_platform.contracts.features import Feature, FeatureSet, FeatureSetCreate, FeatureSetUpdate, FeatureSetVersion
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.features.endpoints.access import (
    FEATURES_READ,
    FEATURES_WRITE,
    FeatureSetName,
    StateOf,
    reads_named,
    writes_named,
)
from mlops_platform.features.errors import FeatureSetNameTaken, FeatureSetNotFound, SchemaChangeRefused
from mlops_platform.features.repository.sets import FeatureSetReader
from mlops_platform.features.service.sets import FeatureSets

router = platform_router(tags=["feature sets"])

_create = [requires(FEATURES_WRITE)]


@router.post("/api/feature-sets", status_code=201, dependencies=_create, responses=problems(FeatureSetNameTaken))
async def create_feature_set(body: FeatureSetCreate, work: Work, state: StateOf, response: Response) -> FeatureSet:
    """Make a feature set: features that share an entity key and an event timestamp."""
    work.principal.require(FEATURES_WRITE, body.name)
    row = await FeatureSets(work, state.definitions).create(body)
    response.headers["Location"] = f"/api/feature-sets/{row.name}"
    return _feature_set(row)


@router.get("/api/feature-sets", dependencies=[requires(FEATURES_READ)])
async def list_feature_sets(
    caller: Caller,
    session: Reading,
    page: PageOf,
    tags: Annotated[str | None, Query(max_length=2000, description="Comma-separated: sets that carry them all.")] = None,
    owner: Annotated[str | None, Query(max_length=250, description="Sets of this owner.")] = None,
    deleted: Annotated[bool | None, Query(description="List the deleted sets, which can be restored.")] = None,
) -> Page[FeatureSet]:
    """The feature sets of the project, by name."""
    wanted = [tag.strip() for tag in tags.split(",") if tag.strip()] if tags else []
    after = page.after[0] if page.after else None
    reader = FeatureSetReader(session, caller)
    rows = await reader.feature_sets(tags=wanted, owner=owner, is_deleted=bool(deleted), after=after, limit=page.size + 1)
    return page.answer(rows, _feature_set, lambda row: (row.name,))


@router.get("/api/feature-sets/{name}", dependencies=[reads_named], responses=problems(FeatureSetNotFound))
async def get_feature_set(name: FeatureSetName, caller: Caller, session: Reading) -> FeatureSet:
    """One feature set."""
    row = await FeatureSetReader(session, caller).feature_set(name)
    if row is None:
        raise FeatureSetNotFound(name)
    return _feature_set(row)


@router.patch(
    "/api/feature-sets/{name}",
    dependencies=[writes_named],
    responses=problems(FeatureSetNotFound, SchemaChangeRefused),
)
async def update_feature_set(name: FeatureSetName, body: FeatureSetUpdate, work: Work, state: StateOf) -> FeatureSet:
    """Change a feature set. Features may be added; to remove or retype one takes `new_version`."""
    return _feature_set(await FeatureSets(work, state.definitions).update(name, body))


@router.delete(
    "/api/feature-sets/{name}", status_code=204, dependencies=[writes_named], responses=problems(FeatureSetNotFound)
)
async def delete_feature_set(name: FeatureSetName, work: Work, state: StateOf) -> None:
    """Hide a feature set and stop serving it. Its rows stay; it can be restored."""
    await FeatureSets(work, state.definitions).delete(name)


@router.post("/api/feature-sets/{name}/restore", dependencies=[writes_named], responses=problems(FeatureSetNotFound))
async def restore_feature_set(name: FeatureSetName, work: Work, state: StateOf) -> FeatureSet:
    """Bring a deleted feature set back."""
    return _feature_set(await FeatureSets(work, state.definitions).restore(name))


@router.get("/api/feature-sets/{name}/versions", dependencies=[reads_named], responses=problems(FeatureSetNotFound))
async def list_feature_set_versions(
    name: FeatureSetName, caller: Caller, session: Reading, page: PageOf
) -> Page[FeatureSetVersion]:
    """The versions of a feature set, newest first."""
    reader = FeatureSetReader(session, caller)
    row = await reader.feature_set(name)
    if row is None:
        raise FeatureSetNotFound(name)
    rows = await reader.versions(row.id, before=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, _version, lambda version: (version.version,))


def _feature_set(row: Record) -> FeatureSet:
    same = ("id", "name", "description", "entity", "version", "ttl_seconds", "tags", "owner")
    times = ("created_at", "updated_at", "deleted_at")
    fields = {name: getattr(row, name) for name in (*same, *times)}
    return FeatureSet(**fields, online=row.is_online, features=_features(row))


def _version(row: Record) -> FeatureSetVersion:
    return FeatureSetVersion(
        version=row.version, features=_features(row), created_at=row.created_at, created_by=row.created_by
    )


def _features(row: Record) -> list[Feature]:
    return [Feature(**feature) for feature in row.features]
