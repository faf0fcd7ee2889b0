"""Routes of training sets."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from pydantic import ValidationError
from starlette.responses import StreamingResponse

from mlops_platform.contracts.common import NAME_PATTERN, Page, Timestamp
from mlops_platform.contracts.features import FEATURE_REFERENCE_PATTERN, MAX_FEATURES, TrainingSet, TrainingSetCreate
from mlops_platform.core.db.session import Record
from mlops_platform.core.errors import ContentTooLarge, InvalidInput, MalformedRequest, UnsupportedMediaType
from mlops_platform.core.http.dependencies import Caller, Reading, Work, unit_of_work
from mlops_platform.core.http.pages import PageOf
from mlops_platform.core.http.problems import from_validation
from mlops_platform.core.http.routing import platform_router, problems, requires
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.features.endpoints.access import FEATURES_READ, FEATURES_WRITE, StateOf, TrainingSetId
from mlops_platform.features.endpoints.bodies import documented_body, spooled, upload_format
from mlops_platform.features.errors import AmbiguousFeature, FeatureSetNotFound, TrainingSetNotFound, UnknownFeature
from mlops_platform.features.repository.training import TrainingSetReader
from mlops_platform.features.service.training import Spec, training_blob

router = platform_router(tags=["training sets"])

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


class DataFormat(StrEnum):
    """How the rows of a training set are sent."""

    PARQUET = "parquet"
    ARROW = "arrow"


Begin = Callable[[], Awaitable[UnitOfWork]]


async def later_work(request: Request) -> AsyncIterator[Begin]:
    """A unit of work that begins when it is needed: a join takes seconds, and no transaction should wait for it."""
    async with AsyncExitStack() as stack:

        async def begin() -> UnitOfWork:
            return await stack.enter_async_context(asynccontextmanager(unit_of_work)(request))

        yield begin


LaterWork = Annotated[Begin, Depends(later_work, scope="function")]

_reads = [requires(FEATURES_READ)]
_SPEC = "For a columnar body; a JSON body states it itself."


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What a training set is made of, in the query, where the body is a file."""

    features: str | None
    name: str | None
    as_known: bool | None
    known_until: datetime | None

    def spec(self) -> Spec:
        """Checked as the JSON body is."""
        references = self.features.split(",") if self.features else []
        if not references:
            raise InvalidInput.of("features", "is needed in the query when the body is a file")
        if len(references) > MAX_FEATURES:
            raise InvalidInput.of("features", f"must have at most {MAX_FEATURES} values", len(references))
        for reference in references:
            if not re.fullmatch(FEATURE_REFERENCE_PATTERN, reference):
                raise InvalidInput.of("features", "must be names of features, with commas between", reference[:100])
        return Spec(references, self.name, "", bool(self.as_known), self.known_until)


async def _upload_spec(
    features: Annotated[str | None, Query(max_length=100_000, description=f"Comma-separated features. {_SPEC}")] = None,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description=f"A name. {_SPEC}")] = None,
    as_known: Annotated[bool | None, Query(description=f"See `as_known` of the JSON body. {_SPEC}")] = None,
    known_until: Annotated[Timestamp | None, Query(description=f"See `known_until` of the JSON body. {_SPEC}")] = None,
) -> UploadSpec:
    return UploadSpec(features, name, as_known, known_until)


@router.post(
    "/api/training-sets",
    status_code=201,
    dependencies=[requires(FEATURES_WRITE)],
    responses=problems(
        UnknownFeature, AmbiguousFeature, FeatureSetNotFound, MalformedRequest, ContentTooLarge, UnsupportedMediaType
    ),
    openapi_extra=documented_body(TrainingSetCreate),
)
async def create_training_set(
    request: Request,
    caller: Caller,
    state: StateOf,
    begin: LaterWork,
    response: Response,
    query: Annotated[UploadSpec, Depends(_upload_spec)],
) -> TrainingSet:
    """Join labels with the features as they were at each label's time, and keep the result."""
    form = upload_format(request)
    if form is None:
        draft = await state.training.from_rows(caller, await _read_json(request))
    else:
        async with spooled(request) as path:
            draft = await state.training.from_file(caller, query.spec(), path, form)
    row = await state.training.record(await begin(), draft)
    response.headers["Location"] = f"/api/training-sets/{row.id}"
    return _training_set(row)


@router.get("/api/training-sets", dependencies=_reads)
async def list_training_sets(
    caller: Caller,
    session: Reading,
    page: PageOf,
    name: Annotated[str | None, Query(max_length=128, description="Training sets of this name.")] = None,
) -> Page[TrainingSet]:
    """The training sets of the project, newest first."""
    reader = TrainingSetReader(session, caller)
    rows = await reader.training_sets(name=name, before=page.after[0] if page.after else None, limit=page.size + 1)
    return page.answer(rows, _training_set, lambda row: (row.id,))


@router.get("/api/training-sets/{training_set_id}", dependencies=_reads, responses=problems(TrainingSetNotFound))
async def get_training_set(training_set_id: TrainingSetId, caller: Caller, session: Reading) -> TrainingSet:
    """One training set: its columns, digest, and the exact feature set versions that it was made from."""
    return _training_set(await _found(TrainingSetReader(session, caller), training_set_id))


@router.get(
    "/api/training-sets/{training_set_id}/data",
    dependencies=_reads,
    responses={200: {"content": {PARQUET: {}, ARROW: {}}}, **problems(TrainingSetNotFound)},
    response_class=StreamingResponse,
)
async def download_training_set(
    training_set_id: TrainingSetId,
    work: Work,
    state: StateOf,
    form: Annotated[
        DataFormat, Query(alias="format", description="The file itself, or the same rows as an Arrow stream.")
    ] = DataFormat.PARQUET,
) -> StreamingResponse:
    """The rows. As Parquet it is the very file whose SHA-256 is the training set's digest."""
    row = await _found(TrainingSetReader(work.session, work.principal), training_set_id)
    await work.audit("training_set.downloaded", work.urn("training-set", row.id), detail={"format": form.value})
    blob = training_blob(row)
    if form is DataFormat.ARROW:
        return StreamingResponse(await state.files.stream_arrow(blob), media_type=ARROW)
    headers = {
        "Content-Length": str(row.size_bytes),
        "ETag": f'"{row.digest}"',
        "X-Checksum-SHA256": row.digest,
        "Content-Disposition": f'attachment; filename="{row.name or row.id}.parquet"',
    }
    return StreamingResponse(await state.files.read(blob), media_type=PARQUET, headers=headers)


async def _read_json(request: Request) -> TrainingSetCreate:
    try:
        return TrainingSetCreate.model_validate(await request.json())
    except ValidationError as error:
        raise from_validation([{**found, "loc": ("body", *found["loc"])} for found in error.errors()]) from None


async def _found(reader: TrainingSetReader, training_set_id: str) -> Record:
    row = await reader.training_set(training_set_id)
    if row is None:
        raise TrainingSetNotFound(training_set_id)
    return row


def _training_set(row: Record) -> TrainingSet:
    return TrainingSet(**{name: getattr(row, name) for name in TrainingSet.model_fields})
