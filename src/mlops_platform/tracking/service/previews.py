"""The beginning of an artifact, as what it is by its content. Bounded in bytes, rows and time, whatever the file says."""

import asyncio
from contextlib import aclosing

from mlops_platform.contracts.tracking_artifacts import ArtifactPreview, PreviewColumn, PreviewKind
from mlops_platform.core.storage.blob_store import BlobStore, StoredBlob
from mlops_platform.tracking.backends.parquet import NotReadable, ParquetHead
from mlops_platform.tracking.domain import previews
from mlops_platform.tracking.errors import NotAnImage


async def head_of(store: BlobStore, blob: StoredBlob, *, most: int = previews.HEAD_BYTES) -> bytes:
    """The first bytes."""
    return await _range(store, blob, 0, min(most, blob.size))


async def image_type(store: BlobStore, blob: StoredBlob, path: str) -> str:
    """The type under which an image may be shown, or `NotAnImage`."""
    kind = previews.image_type(await head_of(store, blob, most=32)) if blob.size else None
    if kind is None or blob.size > previews.IMAGE_BYTES:
        raise NotAnImage(
            f"{path!r} is not shown as an image: by its content it is no PNG, JPEG, GIF or WebP, or it is larger than "
            f"{previews.IMAGE_BYTES} bytes.",
            hint="Download it instead.",
        )
    return kind


async def preview(store: BlobStore, blob: StoredBlob, path: str) -> ArtifactPreview:
    """What can be shown without opening the file."""
    head = await head_of(store, blob)
    shown = ArtifactPreview(path=path, size=blob.size, sha256=blob.sha256, kind=PreviewKind.NONE)
    if (kind := previews.image_type(head)) is not None:
        if blob.size > previews.IMAGE_BYTES:
            return shown.model_copy(update={"media_type": kind, "reason": "The image is too large to be shown."})
        return shown.model_copy(update={"kind": PreviewKind.IMAGE, "media_type": kind})
    if head.startswith(previews.PARQUET_MARK):
        return await _parquet(store, blob, shown)
    return await asyncio.to_thread(_text, head, shown)


def _text(head: bytes, shown: ArtifactPreview) -> ArtifactPreview:
    is_cut = len(head) < shown.size
    text = previews.text_of(head, is_cut=is_cut)
    if text is None:
        return shown.model_copy(update={"reason": "It is neither text nor an image nor a table that can be shown."})
    delimiter = previews.delimiter_of(shown.path)
    table = previews.table_of(text, delimiter, is_cut=is_cut) if delimiter else None
    if table is not None:
        return _table(table, shown)
    kind = PreviewKind.JSON if previews.is_json(shown.path) else PreviewKind.TEXT
    most = previews.HEAD_BYTES if kind is PreviewKind.JSON else previews.TEXT_BYTES
    return shown.model_copy(update={"kind": kind, "text": text[:most], "is_cut": is_cut or len(text) > most})


async def _parquet(store: BlobStore, blob: StoredBlob, shown: ArtifactPreview) -> ArtifactPreview:
    async def fetch(start: int, end: int) -> bytes:
        return await _range(store, blob, start, end)

    try:
        return _table(await ParquetHead().read(blob.size, fetch), shown)
    except NotReadable as error:
        return shown.model_copy(update={"reason": str(error)})


def _table(table: previews.Table, shown: ArtifactPreview) -> ArtifactPreview:
    return shown.model_copy(
        update={
            "kind": PreviewKind.TABLE,
            "columns": [PreviewColumn(name=name, type=kind) for name, kind in table.columns],
            "rows": [list(row) for row in table.rows],
            "row_count": table.row_count,
            "is_cut": table.is_cut,
        }
    )


async def _range(store: BlobStore, blob: StoredBlob, start: int, end: int) -> bytes:
    if start >= end:
        return b""
    async with aclosing(await store.read(blob, start=start, end=end)) as content:
        return b"".join([chunk async for chunk in content])
