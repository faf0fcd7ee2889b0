"""Background entry points of the Model Registry: it keeps the lineage that every service states."""

from mlops_platform.core.events.outbox import LINEAGE_STATED, Event
from mlops_platform.core.work.duties import EventHandler
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.repository import LineageRepository


async def keep_edge(work: UnitOfWork, event: Event) -> None:
    """Remember one stated edge; a redelivery changes nothing."""
    stated = event.data
    await LineageRepository(work.session, work.principal).add(
        stated["subject"], stated["relation"], stated["object"], event.occurred_at
    )


KEEP_LINEAGE = EventHandler("registry.lineage", (LINEAGE_STATED,), keep_edge)
