"""Background duties as values: services declare them, `core.jobs` runs them on whichever replica claims them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mlops_platform.core.events.outbox import Event
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.core.work.unit import UnitOfWork


@dataclass(frozen=True, slots=True)
class EventHandler:
    """Reads the event log by its own cursor; called at least once per event, in order, in a transaction of its own.

    `types` are exact or end in `.*`; `consumer` names the cursor and never changes once released.
    """

    consumer: str
    types: tuple[str, ...]
    handle: Callable[[UnitOfWork, Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Periodic:
    """Runs about every `every_seconds` on one replica at a time; `state` is the service's own, from its lifespan."""

    name: str
    every_seconds: float
    run: Callable[[Runtime, Any], Awaitable[None]]


Duty = EventHandler | Periodic
