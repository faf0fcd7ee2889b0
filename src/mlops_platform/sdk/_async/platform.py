"""The one object that an application makes."""

from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlops_platform.sdk._async.client import AsyncPool, AsyncTransports
from mlops_platform.sdk.settings import ClientSettings, Service, load_client_settings

if TYPE_CHECKING:
    from mlops_platform.sdk._async.ab_testing import AsyncABTesting
    from mlops_platform.sdk._async.admin import AsyncAdmin
    from mlops_platform.sdk._async.features import AsyncFeatures
    from mlops_platform.sdk._async.pipelines import AsyncPipelines
    from mlops_platform.sdk._async.registry import AsyncRegistry
    from mlops_platform.sdk._async.tracking import AsyncTracking

# Each part brings the wire types of its service, which take longer to import than all else here: it is loaded at first use.


class AsyncPlatform:
    """The whole platform, asynchronous.

    ```python
    async with AsyncPlatform() as platform:
        async with platform.tracking.run("churn") as run:
            run.log_metric("accuracy", 0.95)
    ```

    Addresses and credential come from the arguments, else from the `MLOPS_*` variables, else from what `mlops up` left
    under `MLOPS_HOME`. `transport` replaces the network: one transport for all services, or one for each. `offline`: runs
    are recorded on this machine, for `mlops sync` to bring in later, and nothing is sent.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        project: str | None = None,
        urls: Mapping[Service, str] | None = None,
        timeout_seconds: float | None = None,
        settings: ClientSettings | None = None,
        transport: AsyncTransports | None = None,
        offline: bool | None = None,
    ) -> None:
        self.settings = settings or load_client_settings(
            urls=urls, api_key=api_key, project=project, timeout_seconds=timeout_seconds, offline=offline
        )
        self._pool = AsyncPool(self.settings, transport)

    @cached_property
    def registry(self) -> "AsyncRegistry":
        """Models, versions, artifacts, aliases, lineage."""
        from mlops_platform.sdk._async.registry import AsyncRegistry

        return AsyncRegistry(self._pool, self.settings)

    @cached_property
    def tracking(self) -> "AsyncTracking":
        """Experiments and runs."""
        from mlops_platform.sdk._async.tracking import AsyncTracking

        return AsyncTracking(self._pool, self.settings)

    @cached_property
    def features(self) -> "AsyncFeatures":
        """Feature sets, online values, training sets."""
        from mlops_platform.sdk._async.features import AsyncFeatures

        return AsyncFeatures(self._pool, self.settings)

    @cached_property
    def pipelines(self) -> "AsyncPipelines":
        """Pipelines, runs, schedules, logs."""
        from mlops_platform.sdk._async.pipelines import AsyncPipelines

        return AsyncPipelines(self._pool, self.settings)

    @cached_property
    def ab(self) -> "AsyncABTesting":
        """A/B tests."""
        from mlops_platform.sdk._async.ab_testing import AsyncABTesting

        return AsyncABTesting(self._pool, self.settings)

    @cached_property
    def admin(self) -> "AsyncAdmin":
        """Identity, projects, audit, events."""
        from mlops_platform.sdk._async.admin import AsyncAdmin

        return AsyncAdmin(self._pool, self.settings)

    def service(self, service: Service) -> "AsyncAdmin":
        """Health and the other common routes of one service."""
        from mlops_platform.sdk._async.admin import AsyncAdmin

        return AsyncAdmin(self._pool, self.settings, service)

    async def aclose(self) -> None:
        """Deliver what was recorded, and close the connections."""
        if "tracking" in self.__dict__:
            await self.tracking.aclose()
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
