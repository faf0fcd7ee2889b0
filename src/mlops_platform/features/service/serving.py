"""Online reads: one cached plan, one call to the store, one answer. No SQL and no audit row."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from mlops_platform.contracts.features import MAX_ENTITY_LENGTH, MAX_FEATURES, MAX_SERVED_ENTITIES, ServeRequest
from mlops_platform.core.clock import Clock
from mlops_platform.core.errors import InvalidInput
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.features.backends.online import OnlineStore
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.serving import OnlineKey, Plan, assemble, make_plan
from mlops_platform.features.domain.times import to_us
from mlops_platform.features.service.definitions import Definitions, Snapshot

FEATURES_READ = Permission("features:read")
MAX_SERVED_VALUES = 100_000
_encode = msgspec.json.Encoder().encode


class Serving:
    """The use case, over the collaborators of the process."""

    def __init__(self, definitions: Definitions, store: OnlineStore, clock: Clock) -> None:
        self._definitions = definitions
        self._store = store
        self._clock = clock

    async def serve_query(self, principal: Principal, query: bytes) -> bytes:
        """`entities=a,b&features=x,set:y` as JSON bytes."""
        entities_raw, features_raw = _parameters(query)
        snapshot = await self._definitions.of(principal)
        if principal.name_patterns(FEATURES_READ) is not None:
            limited = _limited_plan(principal, snapshot, _list(features_raw, "features", most=MAX_FEATURES))
            return await self._serve(principal, limited, _entities(entities_raw))
        # The raw bytes are the key: the same request needs no decoding of its features.
        plan = snapshot.plans.get(features_raw)
        if plan is None:
            plan = make_plan(snapshot.views, _list(features_raw, "features", most=MAX_FEATURES))
            snapshot.keep(features_raw, plan)
        return await self._serve(principal, plan, _entities(entities_raw))

    async def serve(self, principal: Principal, request: ServeRequest) -> bytes:
        """The same for a body, for more entities than fit in a URL."""
        snapshot = await self._definitions.of(principal)
        is_limited = principal.name_patterns(FEATURES_READ) is not None
        plan = _limited_plan(principal, snapshot, request.features) if is_limited else _plan(snapshot, request.features)
        return await self._serve(principal, plan, request.entities)

    async def _serve(self, principal: Principal, plan: Plan, entities: Sequence[str]) -> bytes:
        if len(entities) * len(plan.labels) > MAX_SERVED_VALUES:
            raise InvalidInput.of("entities", f"times features must be at most {MAX_SERVED_VALUES} values", len(entities))
        project = principal.project
        keys = [OnlineKey(project, planned.id, entity) for entity in entities for planned in plan.sets]
        rows = await self._store.get_many(keys)
        return _encode(assemble(rows, plan, entities, to_us(self._clock.now())))


def _limited_plan(principal: Principal, snapshot: Snapshot, features: Sequence[str]) -> Plan:
    return make_plan(nameable(principal, snapshot.views, features), features)


def nameable(principal: Principal, views: Mapping[str, FeatureView], features: Sequence[str]) -> Mapping[str, FeatureView]:
    """The feature sets that the caller's grants name: what a plain feature name may mean, and what an error may list."""
    for reference in features:
        owner, colon, _ = reference.rpartition(":")
        if colon:
            principal.require(FEATURES_READ, owner)
    return {name: view for name, view in views.items() if principal.may(FEATURES_READ, name)}


def _plan(snapshot: Snapshot, features: Sequence[str]) -> Plan:
    key = "\n".join(features).encode()
    plan = snapshot.plans.get(key)
    if plan is None:
        plan = make_plan(snapshot.views, features)
        snapshot.keep(key, plan)
    return plan


def _parameters(query: bytes) -> tuple[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if name not in _NAMES:
            raise InvalidInput.of(name[:64].decode("ascii", "replace") or "query", "is not a parameter of this request")
        if name in found:
            raise InvalidInput.of(name.decode(), "must be given once, with commas between its values")
        found[name] = value
    for name in _NAMES:
        if not found.get(name):
            raise InvalidInput.of(name.decode(), "is needed: one name or several with commas between")
    return found[b"entities"], found[b"features"]


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAMES = (b"entities", b"features")


def _entities(raw: bytes) -> list[str]:
    entities = _list(raw, "entities", most=MAX_SERVED_ENTITIES)
    for entity in entities:
        if len(entity) > MAX_ENTITY_LENGTH or _CONTROL.search(entity):
            raise InvalidInput.of(
                "entities",
                f"must each have 1 to {MAX_ENTITY_LENGTH} characters, none of them a control character",
                entity[:64],
            )
    return entities


def _list(raw: bytes, name: str, *, most: int) -> list[str]:
    """Decoded as forms are: `+` and `%20` are spaces, an encoded comma still separates."""
    try:
        is_plain = b"%" not in raw and b"+" not in raw
        values = (raw if is_plain else unquote_to_bytes(raw.replace(b"+", b" "))).decode().split(",")
    except UnicodeDecodeError:
        raise InvalidInput.of(name, "is not UTF-8") from None
    if not all(values):
        raise InvalidInput.of(name, "has an empty value between commas")
    if len(values) > most:
        raise InvalidInput.of(name, f"must have at most {most} values", len(values))
    return values
