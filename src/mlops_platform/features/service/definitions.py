"""The feature sets of each project in memory, with the plans that were made from them.

A change forgets them at once in its own process. For changes made elsewhere, a snapshot that is a little old is renewed in
the background, and one older than `OLDEST_SECONDS` is never used.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

from mlops_platform.core.db.database import Database
from mlops_platform.core.errors import DependencyUnavailable
from mlops_platform.core.identity import Principal, ProjectId
from mlops_platform.features.domain.schema import FeatureView
from mlops_platform.features.domain.serving import Plan
from mlops_platform.features.repository.sets import FeatureSetReader

FRESH_SECONDS = 2.0
OLDEST_SECONDS = 10.0
MAX_PLANS = 2000


@dataclass(slots=True)
class Snapshot:
    """The feature sets of one project at one moment."""

    views: Mapping[str, FeatureView]
    loaded_at: float
    plans: dict[bytes, Plan] = field(default_factory=dict)

    def keep(self, key: bytes, plan: Plan) -> None:
        """Remember a plan; all are dropped when there are too many, as they are cheap to make."""
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
        self.plans[key] = plan


class Definitions:
    """Snapshots by project."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshots: dict[ProjectId, Snapshot] = {}
        self._generation = 0
        self._renewals: dict[ProjectId, asyncio.Task[None]] = {}

    def forget(self) -> None:
        """Something has changed: what is being loaded just now is not kept either."""
        self._generation += 1
        self._snapshots.clear()

    async def of(self, principal: Principal) -> Snapshot:
        """The snapshot of the caller's project. No I/O as long as a recent one is known."""
        known = self._snapshots.get(principal.project)
        if known is not None:
            age = monotonic() - known.loaded_at
            if age < FRESH_SECONDS:
                return known
            if age < OLDEST_SECONDS:
                self._renew(principal)
                return known
        return await self.load(principal)

    async def load(self, principal: Principal) -> Snapshot:
        """Read the feature sets now. Plans outlive a reading that found nothing new."""
        generation, started = self._generation, monotonic()
        async with self._database.read() as session:
            views = await FeatureSetReader(session, principal).views()
        snapshot = Snapshot(views, started)
        old = self._snapshots.get(principal.project)
        if old is not None and old.views == views:
            snapshot.plans = old.plans
        if generation == self._generation:
            self._snapshots[principal.project] = snapshot
        return snapshot

    def _renew(self, principal: Principal) -> None:
        project = principal.project
        if project not in self._renewals:
            task = asyncio.create_task(self._load_quietly(principal), name="feature-definitions")
            self._renewals[project] = task
            task.add_done_callback(lambda _: self._renewals.pop(project, None))

    async def _load_quietly(self, principal: Principal) -> None:
        try:
            await self.load(principal)
        except DependencyUnavailable:
            return  # The old snapshot serves until it is too old; then the request itself says what is wrong.

    async def close(self) -> None:
        """End what is under way."""
        for task in list(self._renewals.values()):
            task.cancel()
        await asyncio.gather(*self._renewals.values(), return_exceptions=True)
