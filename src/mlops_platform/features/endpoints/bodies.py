"""Bodies that are JSON or columnar files. Files go to disk as they arrive, so that memory stays bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Request

from mlops_platform.contracts.common import Contract
from mlops_platform.core.errors import UnsupportedMediaType
from mlops_platform.core.http.routing import is_json, limited
from mlops_platform.features.backends.offline import private_folder
from mlops_platform.features.backends.uploads import UploadFormat


def upload_format(request: Request) -> UploadFormat | None:
    """Which columnar format the body has; None for JSON, and an error for anything else."""
    given = request.headers.get("content-type")
    kind = (given or "").partition(";")[0].strip().lower()
    if is_json(given):
        return None
    if kind not in {form.value for form in UploadFormat}:
        raise UnsupportedMediaType(
            f"This route reads JSON, an Arrow stream or Parquet, and the content type is {(given or 'nothing')[:100]!r}.",
            hint=f"Send 'Content-Type: application/json', or one of {', '.join(form.value for form in UploadFormat)}.",
        )
    return UploadFormat(kind)


@asynccontextmanager
async def spooled(request: Request) -> AsyncIterator[Path]:
    """The body as a file, for as long as the block."""
    limit = request.app.state.runtime.settings.max_ingest_bytes
    async with private_folder() as folder:
        path = folder / "upload"
        with await asyncio.to_thread(path.open, "wb") as sink:
            async for chunk in limited(_chunks(request), limit):
                await asyncio.to_thread(sink.write, chunk)
        yield path


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    if "idempotency-key" in request.headers:
        # The key is compared with the whole body, which is then held in memory and bounded like any JSON body.
        yield await request.body()
        return
    async for chunk in request.stream():
        yield chunk


def documented_body(contract: type[Contract]) -> dict[str, Any]:
    """The OpenAPI of such a body."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content: dict[str, Any] = {form.value: binary for form in UploadFormat}
    content["application/json"] = {"schema": contract.model_json_schema()}
    return {"requestBody": {"required": True, "content": content}}
