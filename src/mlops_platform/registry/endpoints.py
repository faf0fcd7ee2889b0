"""HTTP of the Model Registry: path, permission, contract in, contract out."""

from typing import Annotated, Any

from fastapi import Path, Query, Response

from mlops_platform.contracts.common import NAME_PATTERN, Page
from mlops_platform.contracts.registry import (
    Alias,
    AliasSet,
    ModelVersion,
    ModelVersionCreate,
    ModelVersionUpdate,
    RegisteredModel,
    RegisteredModelUpdate,
)
from mlops_platform.core.db.session import Record
from mlops_platform.core.http.dependencies import Caller, Reading, Work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.identity import Permission
from mlops_platform.registry.errors import (
    AliasNotFound,
    ModelNotFound,
    ModelVersionAliased,
    ModelVersionNotFound,
    ModelVersionTaken,
)
from mlops_platform.registry.repository import MODELS_READ, ModelReader
from mlops_platform.registry.service import ModelRegistry, model_not_found, version_not_found

MODELS_WRITE = Permission("models:write")
MODELS_PROMOTE = Permission("models:promote")

router = platform_router(tags=["models"])

ModelName = Annotated[str, Path(pattern=NAME_PATTERN, description="The model's name.")]
VersionLabel = Annotated[str, Path(pattern=NAME_PATTERN, description="The version's label.")]
AliasName = Annotated[str, Path(pattern=NAME_PATTERN, description="The alias, for example `champion`.")]

_read = requires(MODELS_READ, resource="name")
_write = requires(MODELS_WRITE, resource="name")
_promote = requires(MODELS_PROMOTE, resource="name")


@router.post("/api/models", status_code=201, dependencies=[requires(MODELS_WRITE)], responses=problems(ModelVersionTaken))
async def create_version(body: ModelVersionCreate, work: Work, response: Response) -> ModelVersion:
    """Add a version to a model; the model is made when absent. The version is `pending` until it is finalised."""
    work.principal.require(MODELS_WRITE, body.name)
    row = await ModelRegistry(work).create_version(body)
    response.headers["Location"] = f"/api/models/{row.name}/versions/{row.version}"
    return _version(row)


@router.get("/api/models", dependencies=[requires(MODELS_READ)])
async def list_models(
    caller: Caller,
    session: Reading,
    page: PageOf,
    tags: Annotated[
        str | None, Query(max_length=2000, description="Comma-separated: models with a version that carries them all.")
    ] = None,
) -> Page[RegisteredModel]:
    """The models of the project, by name."""
    wanted = [tag.strip() for tag in tags.split(",") if tag.strip()] if tags else []
    after = page.after[0] if page.after else None
    rows = await ModelReader(session, caller).models(tags=wanted, after=after, limit=page.size + 1)
    return page.answer(rows, _model, lambda row: (row.name,))


@router.get("/api/models/{name}", dependencies=[_read], responses=problems(ModelNotFound))
async def get_model(name: ModelName, caller: Caller, session: Reading) -> RegisteredModel:
    """One model."""
    row = await ModelReader(session, caller).model(name)
    if row is None:
        raise model_not_found(name)
    return _model(row)


@router.patch("/api/models/{name}", dependencies=[_write], responses=problems(ModelNotFound))
async def update_model(name: ModelName, body: RegisteredModelUpdate, work: Work) -> RegisteredModel:
    """Change the description of a model."""
    return _model(await ModelRegistry(work).update_model(name, body))


@router.delete("/api/models/{name}", status_code=204, dependencies=[_write], responses=problems(ModelNotFound))
async def delete_model(name: ModelName, work: Work) -> None:
    """Hide a model with all its versions. It can be restored."""
    await ModelRegistry(work).delete_model(name)


@router.post("/api/models/{name}/restore", dependencies=[_write], responses=problems(ModelNotFound))
async def restore_model(name: ModelName, work: Work) -> RegisteredModel:
    """Bring a deleted model back."""
    return _model(await ModelRegistry(work).restore_model(name))


@router.get("/api/models/{name}/versions", dependencies=[_read], responses=problems(ModelNotFound))
async def list_versions(name: ModelName, caller: Caller, session: Reading, page: PageOf) -> Page[ModelVersion]:
    """The versions of a model, newest first."""
    reader = ModelReader(session, caller)
    model = await reader.model(name)
    if model is None:
        raise model_not_found(name)
    rows = await reader.versions(model.id, before=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, _version, lambda row: (row.id,))


@router.get("/api/models/{name}/versions/{version}", dependencies=[_read], responses=problems(ModelVersionNotFound))
async def get_version(name: ModelName, version: VersionLabel, caller: Caller, session: Reading) -> ModelVersion:
    """One version."""
    row = await ModelReader(session, caller).version(name, version)
    if row is None:
        raise version_not_found(name, version)
    return _version(row)


@router.patch("/api/models/{name}/versions/{version}", dependencies=[_write], responses=problems(ModelVersionNotFound))
async def update_version(name: ModelName, version: VersionLabel, body: ModelVersionUpdate, work: Work) -> ModelVersion:
    """Change the words about a version: description and tags."""
    return _version(await ModelRegistry(work).update_version(name, version, body))


@router.delete(
    "/api/models/{name}/versions/{version}",
    status_code=204,
    dependencies=[_write],
    responses=problems(ModelVersionNotFound, ModelVersionAliased),
)
async def delete_version(name: ModelName, version: VersionLabel, work: Work) -> None:
    """Hide a version. Its label stays taken; it can be restored."""
    await ModelRegistry(work).delete_version(name, version)


@router.post(
    "/api/models/{name}/versions/{version}/restore",
    dependencies=[_write],
    responses=problems(ModelVersionNotFound),
)
async def restore_version(name: ModelName, version: VersionLabel, work: Work) -> ModelVersion:
    """Bring a deleted version back."""
    return _version(await ModelRegistry(work).restore_version(name, version))


@router.get("/api/models/{name}/aliases/{alias}", dependencies=[_read], responses=problems(AliasNotFound))
async def get_alias(name: ModelName, alias: AliasName, caller: Caller, session: Reading) -> ModelVersion:
    """The version to which an alias points."""
    row = await ModelReader(session, caller).aliased(name, alias)
    if row is None:
        raise AliasNotFound(f"{name!r} has no alias {alias!r}.")
    return _version(row)


@router.put("/api/models/{name}/aliases/{alias}", dependencies=[_promote], responses=problems(ModelVersionNotFound))
async def set_alias(name: ModelName, alias: AliasName, body: AliasSet, work: Work) -> Alias:
    """Point an alias at a version, atomically: there is no moment at which it points nowhere."""
    row = await ModelRegistry(work).set_alias(name, alias, body.version)
    return Alias(name=name, alias=alias, version=row.version, updated_at=work.clock.now())


@router.delete(
    "/api/models/{name}/aliases/{alias}",
    status_code=204,
    dependencies=[_promote],
    responses=problems(ModelNotFound, AliasNotFound),
)
async def remove_alias(name: ModelName, alias: AliasName, work: Work) -> None:
    """Take an alias away."""
    await ModelRegistry(work).remove_alias(name, alias)


def _fields(row: Record, fields: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


def _version(row: Record) -> ModelVersion:
    return ModelVersion(**_fields(row, ModelVersion.model_fields))


def _model(row: Record) -> RegisteredModel:
    fields = _fields(row, RegisteredModel.model_fields)
    return RegisteredModel(**{**fields, "tags": fields["tags"] or [], "aliases": fields["aliases"] or {}})
