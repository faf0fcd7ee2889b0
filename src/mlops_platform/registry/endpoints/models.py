"""Models, their versions, their aliases."""

from typing import Annotated, Any

from fastapi import Query, Response

from mlops_platform.contracts.common import NAME_PATTERN, Page
from mlops_platform.contracts.registry import (
    Alias,
    AliasSet,
    ModelOrder,
    ModelVersion,
    ModelVersionCreate,
    ModelVersionUpdate,
    RegisteredModel,
    RegisteredModelUpdate,
    VersionStatus,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, RuntimeOf, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.registry.endpoints.parameters import (
    MODELS_ADMIN,
    MODELS_WRITE,
    PROMOTE,
    READ,
    WRITE,
    AliasName,
    ModelName,
    VersionLabel,
    after,
)
from mlops_platform.registry.errors import (
    AliasNotFound,
    ModelNotFound,
    ModelVersionAliased,
    ModelVersionNotFound,
    ModelVersionTaken,
)
from mlops_platform.registry.repository.models import MODELS_READ, ModelFilter, ModelReader
from mlops_platform.registry.service.models import ModelRegistry, found_alias, found_version, model_not_found

router = platform_router(tags=["models"])

_NO_NUL = r"^[^\x00]*$"
TagsWanted = Annotated[
    str | None,
    Query(max_length=2000, pattern=_NO_NUL, description="Comma-separated: with a version that carries them all."),
]
FrameworkWanted = Annotated[
    str | None, Query(max_length=100, pattern=_NO_NUL, description="With a version of this framework.")
]
StatusWanted = Annotated[VersionStatus | None, Query(description="With a version in this status.")]
AliasWanted = Annotated[str | None, Query(pattern=NAME_PATTERN, description="With this alias.")]
Purge = Annotated[bool, Query(description="Remove for good, files included; needs `models:admin`.")]


@router.post("/api/models", status_code=201, dependencies=[requires(MODELS_WRITE)], responses=problems(ModelVersionTaken))
async def create_version(body: ModelVersionCreate, work: Work, response: Response) -> ModelVersion:
    """Add a version to a model; the model is made when absent. The version is `pending` until it is finalised."""
    work.principal.require(MODELS_WRITE, body.name)
    row = await ModelRegistry(work).create_version(body)
    response.headers["Location"] = f"/api/models/{row.name}/versions/{row.version}"
    return version_of(row)


@router.get("/api/models", dependencies=[requires(MODELS_READ)])
async def list_models(
    caller: Caller,
    session: Reading,
    page: PageOf,
    tags: TagsWanted = None,
    framework: FrameworkWanted = None,
    status: StatusWanted = None,
    alias: AliasWanted = None,
    order: Annotated[ModelOrder, Query(description="By name, or the newest first.")] = ModelOrder.NAME,
) -> Page[RegisteredModel]:
    """The models of the project that have one version of all that is asked for."""
    wanted = ModelFilter(_tags(tags), framework, status, alias)
    kind = f"models.{order}"
    rows = await ModelReader(session, caller).models(wanted, order, after=after(page, kind), limit=page.size + 1)
    return page.answer(rows, _model, lambda row: (kind, row.name if order is ModelOrder.NAME else row.id))


@router.get("/api/models/{name}", dependencies=[READ], responses=problems(ModelNotFound))
async def get_model(name: ModelName, caller: Caller, session: Reading) -> RegisteredModel:
    """One model."""
    row = await ModelReader(session, caller).model(name)
    if row is None:
        raise model_not_found(name)
    return _model(row)


@router.patch("/api/models/{name}", dependencies=[WRITE], responses=problems(ModelNotFound))
async def update_model(name: ModelName, body: RegisteredModelUpdate, work: Work) -> RegisteredModel:
    """Change the description of a model."""
    return _model(await ModelRegistry(work).update_model(name, body))


@router.delete("/api/models/{name}", status_code=204, dependencies=[WRITE], responses=problems(ModelNotFound))
async def delete_model(name: ModelName, work: Work, runtime: RuntimeOf, *, purge: Purge = False) -> None:
    """Hide a model with all its versions; it can be restored. With `purge`, remove it for good, hidden or not."""
    if purge:
        work.principal.require(MODELS_ADMIN, name)
        await ModelRegistry(work).purge_model(name, runtime.blobs)
    else:
        await ModelRegistry(work).delete_model(name)


@router.post("/api/models/{name}/restore", dependencies=[WRITE], responses=problems(ModelNotFound))
async def restore_model(name: ModelName, work: Work) -> RegisteredModel:
    """Bring a deleted model back."""
    return _model(await ModelRegistry(work).restore_model(name))


@router.get("/api/models/{name}/versions", dependencies=[READ], responses=problems(ModelNotFound))
async def list_versions(
    name: ModelName,
    caller: Caller,
    session: Reading,
    page: PageOf,
    tags: TagsWanted = None,
    framework: FrameworkWanted = None,
    status: StatusWanted = None,
    alias: AliasWanted = None,
) -> Page[ModelVersion]:
    """The versions of a model that are all that is asked for, newest first."""
    reader = ModelReader(session, caller)
    model = await reader.model(name)
    if model is None:
        raise model_not_found(name)
    wanted = ModelFilter(_tags(tags), framework, status, alias)
    rows = await reader.versions(model.id, wanted, before=after(page, "versions"), limit=page.size + 1)
    return page.answer(rows, version_of, lambda row: ("versions", row.id))


@router.get("/api/models/{name}/versions/{version}", dependencies=[READ], responses=problems(ModelVersionNotFound))
async def get_version(name: ModelName, version: VersionLabel, caller: Caller, session: Reading) -> ModelVersion:
    """One version."""
    return version_of(await found_version(ModelReader(session, caller), name, version))


@router.patch("/api/models/{name}/versions/{version}", dependencies=[WRITE], responses=problems(ModelVersionNotFound))
async def update_version(name: ModelName, version: VersionLabel, body: ModelVersionUpdate, work: Work) -> ModelVersion:
    """Change the words about a version: description and tags."""
    return version_of(await ModelRegistry(work).update_version(name, version, body))


@router.delete(
    "/api/models/{name}/versions/{version}",
    status_code=204,
    dependencies=[WRITE],
    responses=problems(ModelVersionNotFound, ModelVersionAliased),
)
async def delete_version(
    name: ModelName, version: VersionLabel, work: Work, runtime: RuntimeOf, *, purge: Purge = False
) -> None:
    """Hide a version; its label stays taken, and it can be restored. With `purge`, remove it for good, hidden or not."""
    if purge:
        work.principal.require(MODELS_ADMIN, name)
        await ModelRegistry(work).purge_version(name, version, runtime.blobs)
    else:
        await ModelRegistry(work).delete_version(name, version)


@router.post(
    "/api/models/{name}/versions/{version}/restore",
    dependencies=[WRITE],
    responses=problems(ModelVersionNotFound),
)
async def restore_version(name: ModelName, version: VersionLabel, work: Work) -> ModelVersion:
    """Bring a deleted version back."""
    return version_of(await ModelRegistry(work).restore_version(name, version))


@router.get("/api/models/{name}/aliases/{alias}", dependencies=[READ], responses=problems(AliasNotFound))
async def get_alias(name: ModelName, alias: AliasName, caller: Caller, session: Reading) -> ModelVersion:
    """The version to which an alias points."""
    return version_of(await found_alias(ModelReader(session, caller), name, alias))


@router.put("/api/models/{name}/aliases/{alias}", dependencies=[PROMOTE], responses=problems(ModelVersionNotFound))
async def set_alias(name: ModelName, alias: AliasName, body: AliasSet, work: Work) -> Alias:
    """Point an alias at a version, atomically: there is no moment at which it points nowhere."""
    row = await ModelRegistry(work).set_alias(name, alias, body.version)
    return Alias(name=name, alias=alias, version=row.version, updated_at=work.clock.now())


@router.delete(
    "/api/models/{name}/aliases/{alias}",
    status_code=204,
    dependencies=[PROMOTE],
    responses=problems(ModelNotFound, AliasNotFound),
)
async def remove_alias(name: ModelName, alias: AliasName, work: Work) -> None:
    """Take an alias away."""
    await ModelRegistry(work).remove_alias(name, alias)


def _tags(given: str | None) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in given.split(",") if tag.strip()) if given else ()


def _fields(row: Record, fields: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


def version_of(row: Record) -> ModelVersion:
    """A row as the wire has it."""
    return ModelVersion(**_fields(row, ModelVersion.model_fields))


def _model(row: Record) -> RegisteredModel:
    fields = _fields(row, RegisteredModel.model_fields)
    return RegisteredModel(**{**fields, "tags": fields["tags"] or [], "aliases": fields["aliases"] or {}})
