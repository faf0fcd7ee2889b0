"""The files of versions."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Row, Text, cast, delete, exists, func, literal, or_
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.core.storage.ledger import BlobState
from mlops_platform.core.storage.tables import blob_references, blobs
from mlops_platform.registry.domain.paths import ancestors
from mlops_platform.registry.tables import artifacts

_HOLDER_PREFIX = "model-artifact/"
_AT_ONCE = 1000


def holder_of(artifact_id: str) -> str:
    """By what name a file holds its content in the blob store."""
    return f"{_HOLDER_PREFIX}{artifact_id}"


class ArtifactReader:
    """Reads: everything starts from what the principal may see."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def artifact(self, version_id: str, path: str) -> Row[Any] | None:
        """One file."""
        return await self._session.first(
            visible_to(self._principal, artifacts).where(artifacts.c.version_id == version_id, artifacts.c.path == path)
        )

    async def artifacts(self, version_id: str, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
        """The files of a version by path."""
        statement = visible_to(self._principal, artifacts).where(artifacts.c.version_id == version_id)
        if after is not None:
            statement = statement.where(artifacts.c.path > after)
        return await self._session.all(statement.order_by(artifacts.c.path).limit(limit))

    async def manifest(self, version_id: str) -> Sequence[Row[Any]]:
        """All files of a version by path."""
        statement = visible_to(self._principal, artifacts).where(artifacts.c.version_id == version_id)
        return await self._session.all(statement.order_by(artifacts.c.path))


class ArtifactRepository(ArtifactReader):
    """Writes, within the same limits."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def in_the_way(self, version_id: str, path: str) -> Row[Any] | None:
        """The file of this path; else one that would have to be a folder for it, or that makes a folder of it."""
        below = (artifacts.c.path > f"{path}/") & (artifacts.c.path < f"{path}0")  # "0" is what follows "/"
        statement = visible_to(self._principal, artifacts).where(
            artifacts.c.version_id == version_id, or_(artifacts.c.path.in_([path, *ancestors(path)]), below)
        )
        return await self._session.first(statement.order_by(artifacts.c.path != path).limit(1))

    async def put(self, values: Mapping[str, Any]) -> Row[Any]:
        """Insert a file, or let it replace the one of the same path, whose id it then has; the file as it is now."""
        statement = upsert(artifacts).values({**values, "project_id": self._principal.project})
        replaced = ("blob_id", "sha256", "size", "is_encrypted", "format", "stored_at")
        stored = await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=["version_id", "path"], set_={name: statement.excluded[name] for name in replaced}
            ).returning(artifacts)
        )
        return stored.one()

    async def remove(self, artifact_id: str) -> None:
        """Remove the row of a file."""
        await self._session.execute(
            delete(artifacts).where(in_project(self._principal, artifacts), artifacts.c.id == artifact_id)
        )

    async def remove_all(self, version_ids: Sequence[str]) -> list[str]:
        """Remove the rows of all files of these versions; what held their content."""
        gone: list[str] = []
        remaining = iter(version_ids)
        while some := list(islice(remaining, _AT_ONCE)):
            removed = await self._session.execute(
                delete(artifacts)
                .where(in_project(self._principal, artifacts), artifacts.c.version_id.in_(some))
                .returning(artifacts.c.id)
            )
            gone += [holder_of(row.id) for row in removed]
        return gone

    async def unheld(self, version_id: str) -> str | None:
        """A file whose content the blob store does not hold as the manifest says; None when all is well."""
        holder = literal(_HOLDER_PREFIX).concat(func.replace(cast(artifacts.c.id, Text), "-", ""))
        is_held = exists().where(
            blob_references.c.project_id == artifacts.c.project_id,
            blob_references.c.holder == holder,
            blobs.c.id == blob_references.c.blob_id,
            blobs.c.id == artifacts.c.blob_id,
            blobs.c.state == BlobState.STORED,
            blobs.c.sha256 == artifacts.c.sha256,
            blobs.c.size == artifacts.c.size,
        )
        row = await self._session.first(
            visible_to(self._principal, artifacts).where(artifacts.c.version_id == version_id, ~is_held).limit(1)
        )
        return row.path if row else None
