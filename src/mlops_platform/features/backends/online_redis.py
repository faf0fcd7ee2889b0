"""The online store on Redis or Valkey, for replicas.

One string for each (project, feature set, entity): its rank as digits, then the row as MessagePack. One MGET reads any
number of keys (a hash for each entity was measured at half that speed), and a script compares the rank and writes in
one step.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.features.domain.serving import RANK_LENGTH, OnlineKey, OnlineRow

CHUNK = 1000
TIMEOUT_SECONDS = 2.0
MAX_CONNECTIONS = 32
_PREFIX = "mlops:features"
# Ranks are digits of one length, so comparing them as text compares them as numbers.
_PUT = f"""
for i, key in ipairs(KEYS) do
  local held = redis.call('GETRANGE', key, 0, {RANK_LENGTH - 1})
  if held == '' or held < string.sub(ARGV[i], 1, {RANK_LENGTH}) then
    redis.call('SET', key, ARGV[i])
  end
end
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OnlineRow).decode


class RedisOnlineStore:
    """Implements `OnlineStore` over one Redis server, or one that Sentinel names; not over a cluster."""

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=30,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._put = self._redis.register_script(_PUT)

    async def get_many(self, keys: Sequence[OnlineKey]) -> Sequence[OnlineRow | None]:
        async with _translated():
            found: Any = await self._redis.mget([_name(key) for key in keys])
        return [None if raw is None else _decode(memoryview(raw)[RANK_LENGTH:]) for raw in found]

    async def put_many(self, rows: Sequence[tuple[OnlineKey, OnlineRow]]) -> None:
        async with _translated():
            for start in range(0, len(rows), CHUNK):
                part = rows[start : start + CHUNK]
                values = [row.rank().encode() + _encode(row) for _, row in part]
                await self._put(keys=[_name(key) for key, _ in part], args=values)

    async def drop(self, project_id: str, feature_set_id: str) -> None:
        async with _translated():
            names: list[Any] = []
            async for name in self._redis.scan_iter(match=f"{_PREFIX}:{project_id}:{feature_set_id}:*", count=CHUNK):
                names.append(name)
                if len(names) == CHUNK:
                    await self._redis.unlink(*names)
                    names.clear()
            if names:
                await self._redis.unlink(*names)

    async def check(self) -> None:
        async with _translated():
            await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()


def _name(key: OnlineKey) -> str:
    # Ids are hex of one length and the entity comes last, so no entity can reach into another key.
    return f"{_PREFIX}:{key[0]}:{key[1]}:{key[2]}"


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise DependencyUnavailable("online store") from error
