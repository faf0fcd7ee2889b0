"""Online stores: the newest row of each entity, for reading by key.

Every store follows one rule, `OnlineRow.is_newer_than`: a late row never replaces a newer one, in whatever order or how
often rows are written. So writing again is always safe, and a store can be rebuilt from the offline rows at any time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from mlops_platform.features.domain.serving import OnlineKey, OnlineRow

DEFAULT_CACHED_ROWS = 200_000


class OnlineStore(Protocol):
    """What serving and ingest need of an online store."""

    async def get_many(self, keys: Sequence[OnlineKey]) -> Sequence[OnlineRow | None]:
        """The rows of these keys, in order; one round trip however many there are."""
        ...

    async def put_many(self, rows: Sequence[tuple[OnlineKey, OnlineRow]]) -> None:
        """Write each row unless a newer one is there."""
        ...

    async def drop(self, project_id: str, feature_set_id: str) -> None:
        """Forget all rows of a feature set."""
        ...

    async def check(self) -> None:
        """Raise `DependencyUnavailable` when the store does not answer."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class OnlineTable(Protocol):
    """The durable part of the embedded store."""

    async def load(self, keys: Sequence[OnlineKey]) -> dict[OnlineKey, OnlineRow]: ...

    async def save(self, rows: Sequence[tuple[OnlineKey, OnlineRow]]) -> None: ...

    async def drop(self, project_id: str, feature_set_id: str) -> None: ...

    async def ping(self) -> None: ...


class EmbeddedOnlineStore:
    """For one server process: a bounded cache of decoded rows, written through to a table.

    A key that is known to be absent is cached too, as None. The cache belongs to one process; replicas need Redis.
    """

    def __init__(self, table: OnlineTable, *, max_rows: int = DEFAULT_CACHED_ROWS) -> None:
        self._table = table
        self._max_rows = max_rows
        self._rows: OrderedDict[str, OnlineRow | None] = OrderedDict()
        # Counts what was written, so that a load that overlapped a write does not put the old row back.
        self._writes = 0

    async def get_many(self, keys: Sequence[OnlineKey]) -> Sequence[OnlineRow | None]:
        rows = self._rows
        try:
            return [rows[project + owner + entity] for project, owner, entity in keys]
        except KeyError:
            return await self._load(keys)

    async def _load(self, keys: Sequence[OnlineKey]) -> Sequence[OnlineRow | None]:
        writes = self._writes
        absent = [key for key in dict.fromkeys(keys) if _name(key) not in self._rows]
        loaded = await self._table.load(absent)
        found = {key: self._rows[_name(key)] if _name(key) in self._rows else loaded.get(key) for key in keys}
        if writes == self._writes:
            self._remember((key, loaded.get(key)) for key in absent)
        return [found[key] for key in keys]

    async def put_many(self, rows: Sequence[tuple[OnlineKey, OnlineRow]]) -> None:
        if not rows:
            return
        winners: dict[OnlineKey, OnlineRow] = {}
        for key, row in rows:
            held = winners.get(key)
            if held is None or row.is_newer_than(held):
                winners[key] = row
        await self._table.save(list(winners.items()))
        self._writes += 1
        self._remember((key, row) for key, row in winners.items() if self._is_known_older(key, row))

    def _is_known_older(self, key: OnlineKey, row: OnlineRow) -> bool:
        """Whether the cache has an answer for this key that the row changes. Unknown keys stay unknown: the table knows."""
        if _name(key) not in self._rows:
            return False
        held = self._rows[_name(key)]
        return held is None or row.is_newer_than(held)

    def _remember(self, rows: Iterable[tuple[OnlineKey, OnlineRow | None]]) -> None:
        for key, row in rows:
            name = _name(key)
            self._rows[name] = row
            self._rows.move_to_end(name)
        while len(self._rows) > self._max_rows:
            self._rows.popitem(last=False)

    async def drop(self, project_id: str, feature_set_id: str) -> None:
        await self._table.drop(project_id, feature_set_id)
        self._writes += 1
        for name in [name for name in self._rows if name.startswith(project_id + feature_set_id)]:
            del self._rows[name]

    async def check(self) -> None:
        await self._table.ping()

    async def close(self) -> None:
        self._rows.clear()


def _name(key: OnlineKey) -> str:
    """A key as one text: ids are hex of one length, so no two keys meet. Texts cost the garbage collector nothing."""
    return key[0] + key[1] + key[2]
