"""Background duties of the Feature Store; each is idempotent and may run on any replica."""

from mlops_platform.core.work.duties import Periodic
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.features.domain.times import to_us
from mlops_platform.features.service.compaction import compact
from mlops_platform.features.service.state import FeatureState


async def repair_online(runtime: Runtime, state: FeatureState) -> None:
    """Bring online what an ingest could not: it was killed after its commit, or the online store was away."""
    await state.online.repair(now_us=to_us(runtime.clock.now()))


async def compact_rows(runtime: Runtime, state: FeatureState) -> None:
    """Make few files of many small ingests."""
    await compact(runtime.database, state.files)


DUTIES = (
    Periodic("features.repair-online", 5.0, repair_online),
    Periodic("features.compact", 15.0, compact_rows),
)
