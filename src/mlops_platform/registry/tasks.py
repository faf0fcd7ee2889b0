"""Background entry points of the Model Registry: it keeps the lineage that every service states."""

from mlops_platform.core.events.outbox import LINEAGE_STATED, Event
from mlops_platform.core.work.duties import EventHandler
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.service.lineage import ALIAS_REMOVED, Lineage


async def keep_lineage(work: UnitOfWork, event: Event) -> None:
    """Remember one stated edge, or forget where a removed alias pointed; a redelivery changes nothing."""
    lineage, stated = Lineage(work), event.data
    if event.type == ALIAS_REMOVED:
        await lineage.forget_alias(event.subject, event.occurred_at)
    else:
        await lineage.hear(stated["subject"], stated["relation"], stated["object"], stated_at=event.occurred_at)


KEEP_LINEAGE = EventHandler("registry.lineage", (LINEAGE_STATED, ALIAS_REMOVED), keep_lineage)
