"""How what a client records reaches the server: by the recorder's thread, and signs of life by the heart's."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mlops_platform.contracts.tracking import Artifact, Experiment
from mlops_platform.sdk._async import backend
from mlops_platform.sdk._async.artifacts import AsyncArtifacts
from mlops_platform.sdk._async.client import AsyncPool, AsyncServiceClient
from mlops_platform.sdk._sync.client import Pool, ServiceClient
from mlops_platform.sdk.errors import MlopsError
from mlops_platform.sdk.heartbeat import Heart, Pulse, Send, new_writer, promised_seconds
from mlops_platform.sdk.offline import OfflineStore
from mlops_platform.sdk.recorder import Recorder
from mlops_platform.sdk.settings import ClientSettings, Service
from mlops_platform.sdk.spool import Delivery, Spool

DELIVERY_SECONDS = 10.0
SLOWEST_BYTES_PER_SECOND = 250_000
ABSENCE_SECONDS = 30.0


class AsyncDeliveries:
    """One client's way to the server, or to the disk while there is none."""

    def __init__(
        self,
        pool: AsyncPool,
        settings: ClientSettings,
        *,
        url: str,
        artifacts: AsyncArtifacts,
        experiment: Callable[[str], backend.Later[Experiment]],
    ) -> None:
        self._pool = pool
        self._settings = settings
        # The recorder has the spool to fall back on: it asks once, and does not hold up the end of a run for long.
        self._quick = replace(settings, retries=1, timeout_seconds=min(DELIVERY_SECONDS, settings.timeout_seconds))
        self._client = AsyncServiceClient(Service.TRACKING, pool, self._quick)
        self._artifacts = artifacts
        self._experiment = experiment
        self._spool = Spool(settings.spool, url, settings.project)
        self._known_experiments: dict[str, str] = {}
        self._recorder: Recorder | None = None
        self._heart: Heart | None = None
        self._beating_pool: Pool | None = None
        self._away_until = 0.0
        self.offline = OfflineStore(settings.offline_runs) if settings.offline else None

    @property
    def recorder(self) -> Recorder:
        if self._recorder is None:
            self._recorder = self._recorder_offline() if self.offline is not None else self._recorder_online()
        return self._recorder

    # Signs of life

    def promise(self) -> dict[str, Any]:
        """What a run that starts says of its writer, and of how long it may be silent; or nothing."""
        if self.offline is not None or not self._settings.heartbeat_seconds:
            return {}
        return {"writer": new_writer(), "heartbeat_seconds": promised_seconds(self._settings.heartbeat_seconds)}

    def pulse(self, run_id: str, promised: Mapping[str, Any]) -> Pulse | None:
        """Begin to keep what a run promised."""
        if not promised.get("heartbeat_seconds"):
            return None
        if self._heart is None:
            self._heart = Heart(self._beat(), self.recorder.warn)
        return self._heart.begin(run_id, promised["writer"], promised["heartbeat_seconds"])

    def _beat(self) -> Send:
        if self._pool.transport is None:
            # Not by the caller's event loop, which a training may hold for hours.
            self._beating_pool = Pool(self._settings, None)
            client = ServiceClient(Service.TRACKING, self._beating_pool, self._quick)

            def straight(path: str, body: Mapping[str, Any]) -> None:
                client.request("POST", path, json=body)

            return straight
        outside = backend.Outside()

        def through_the_transport(path: str, body: Mapping[str, Any]) -> None:
            async def request() -> None:
                await self._client.request("POST", path, json=body)

            outside.call(request, timeout_seconds=2 * DELIVERY_SECONDS)

        return through_the_transport

    # While the server is away

    def is_away(self) -> bool:
        """Whether the server did not answer a moment ago: asking each time would hold up each run that starts."""
        return time.monotonic() < self._away_until

    def note_absence(self, error: MlopsError) -> None:
        """A run is begun here, and made on the server when it is back."""
        self._away_until = time.monotonic() + ABSENCE_SECONDS
        self.recorder.warn(
            "absent", f"The run begins without the server, and waits in {self._spool.directory} until it is back: {error}"
        )

    async def aclose(self) -> None:
        """Deliver what was recorded, as far as that is possible."""
        if self._heart is not None:
            await backend.in_thread(self._heart.close)
        if self._recorder is not None:
            await backend.in_thread(self._recorder.close)
        if self._beating_pool is not None:
            self._beating_pool.close()

    # The recorder's sends

    def _recorder_offline(self) -> Recorder:
        store = OfflineStore(self._settings.offline_runs) if self.offline is None else self.offline
        spool = Spool(store.root / ".pending", "offline", None)
        return Recorder(lambda it: store.take(it, spool.file(it) if it.file is not None else None), spool)

    def _recorder_online(self) -> Recorder:
        outside = backend.Outside()

        def send(delivery: Delivery) -> None:
            async def request() -> None:
                await self._deliver(delivery)

            size = self._spool.file(delivery).stat().st_size if delivery.file is not None else 0
            outside.call(request, timeout_seconds=2 * DELIVERY_SECONDS + size / SLOWEST_BYTES_PER_SECOND)

        return Recorder(send, self._spool)

    async def _deliver(self, delivery: Delivery) -> None:
        path = delivery.path
        if delivery.experiment is not None:
            if delivery.experiment not in self._known_experiments:
                self._known_experiments[delivery.experiment] = (await self._experiment(delivery.experiment)).id
            path = f"/api/experiments/{self._known_experiments[delivery.experiment]}{path}"
        if delivery.file is not None:
            await self._artifacts.put_file(path, self._spool.file(delivery), Artifact)
        elif delivery.content_type is not None:
            headers = {"Content-Type": delivery.content_type}
            await self._client.request(delivery.method, path, content=delivery.body.encode(), headers=headers)
        else:
            key = delivery.idempotency_key
            await self._client.request(delivery.method, path, json=delivery.body, idempotency_key=key)
