"""The durable part of the embedded online store."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ARRAY, Text, bindparam, text

from mlops_platform.core.db.database import Database
from mlops_platform.core.db.schema import HexId
from mlops_platform.features.domain.serving import OnlineKey, OnlineRow

CHUNK = 2000
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OnlineRow).decode

_KEYS = (
    bindparam("projects", type_=ARRAY(HexId)),
    bindparam("sets", type_=ARRAY(HexId)),
    bindparam("entities", type_=ARRAY(Text)),
)
_LOAD = text(
    "SELECT v.project_id, v.feature_set_id, v.entity, v.payload FROM features.online_values v"
    " JOIN unnest(CAST(:projects AS uuid[]), CAST(:sets AS uuid[]), CAST(:entities AS text[])) k (project, owner, entity)"
    " ON v.project_id = k.project AND v.feature_set_id = k.owner AND v.entity = k.entity"
).bindparams(*_KEYS)
_SAVE = (
    "INSERT INTO features.online_values AS held (project_id, feature_set_id, entity, rank, payload)"
    " SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[])"
    " ON CONFLICT (project_id, feature_set_id, entity) DO UPDATE"
    " SET rank = excluded.rank, payload = excluded.payload WHERE held.rank < excluded.rank"
)
_DROP = text(
    "DELETE FROM features.online_values WHERE project_id = CAST(:project AS uuid) AND feature_set_id = CAST(:set AS uuid)"
)
# What is here can be made again from the offline rows, and `online_pending` says when it must be: no need to wait for
# the disk.
_LAZILY = text("SET LOCAL synchronous_commit TO off")


class OnlineValues:
    """Implements `backends.online.OnlineTable` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, keys: Sequence[OnlineKey]) -> dict[OnlineKey, OnlineRow]:
        """The rows that are there."""
        projects, sets, entities = (list(part) for part in zip(*keys, strict=True))
        async with self._database.read() as session:
            rows = await session.all(_LOAD, {"projects": projects, "sets": sets, "entities": entities})
        return {OnlineKey(row.project_id.hex, row.feature_set_id.hex, row.entity): _decode(row.payload) for row in rows}

    async def save(self, rows: Sequence[tuple[OnlineKey, OnlineRow]]) -> None:
        """Write each row unless a newer one is there. Sorted, so that two writers never wait for each other in a circle."""
        ordered = sorted(rows, key=lambda pair: pair[0])
        async with self._database.write() as session:
            await session.execute(_LAZILY)
            for start in range(0, len(ordered), CHUNK):
                part = ordered[start : start + CHUNK]
                await session.fetch(
                    _SAVE,
                    [key.project_id for key, _ in part],
                    [key.feature_set_id for key, _ in part],
                    [key.entity for key, _ in part],
                    [row.rank() for _, row in part],
                    [_encode(row) for _, row in part],
                )

    async def drop(self, project_id: str, feature_set_id: str) -> None:
        """Take away the rows of a feature set."""
        async with self._database.write() as session:
            await session.execute(_DROP, {"project": project_id, "set": feature_set_id})

    async def ping(self) -> None:
        """Raise `DependencyUnavailable` unless the database answers."""
        await self._database.ping()
