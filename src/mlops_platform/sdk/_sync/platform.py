# Generated from sdk/_async/platform.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""The one object that an application makes."""

from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlops_platform.sdk._sync.client import Pool, Transports
from mlops_platform.sdk.settings import ClientSettings, Service, load_client_settings

if TYPE_CHECKING:
    from mlops_platform.sdk._sync.ab_testing import ABTesting
    from mlops_platform.sdk._sync.admin import Admin
    from mlops_platform.sdk._sync.features import Features
    from mlops_platform.sdk._sync.pipelines import Pipelines
    from mlops_platform.sdk._sync.registry import Registry
    from mlops_platform.sdk._sync.tracking import Tracking

# Each part brings the wire types of its service, which take longer to import than all else here: it is loaded at first use.


class Platform:
    """The whole platform, asynchronous.

    ```python
    with Platform() as platform:
        with platform.tracking.run("churn") as run:
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
        transport: Transports | None = None,
        offline: bool | None = None,
    ) -> None:
        self.settings = settings or load_client_settings(
            urls=urls, api_key=api_key, project=project, timeout_seconds=timeout_seconds, offline=offline
        )
        self._pool = Pool(self.settings, transport)

    @cached_property
    def registry(self) -> "Registry":
        """Models, versions, artifacts, aliases, lineage."""
        from mlops_platform.sdk._sync.registry import Registry

        return Registry(self._pool, self.settings)

    @cached_property
    def tracking(self) -> "Tracking":
        """Experiments and runs."""
        from mlops_platform.sdk._sync.tracking import Tracking

        return Tracking(self._pool, self.settings)

    @cached_property
    def features(self) -> "Features":
        """Feature sets, online values, training sets."""
        from mlops_platform.sdk._sync.features import Features

        return Features(self._pool, self.settings)

    @cached_property
    def pipelines(self) -> "Pipelines":
        """Pipelines, runs, schedules, logs."""
        from mlops_platform.sdk._sync.pipelines import Pipelines

        return Pipelines(self._pool, self.settings)

    @cached_property
    def ab(self) -> "ABTesting":
        """A/B tests."""
        from mlops_platform.sdk._sync.ab_testing import ABTesting

        return ABTesting(self._pool, self.settings)

    @cached_property
    def admin(self) -> "Admin":
        """Identity, projects, audit, events."""
        from mlops_platform.sdk._sync.admin import Admin

        return Admin(self._pool, self.settings)

    def service(self, service: Service) -> "Admin":
        """Health and the other common routes of one service."""
        from mlops_platform.sdk._sync.admin import Admin

        return Admin(self._pool, self.settings, service)

    def close(self) -> None:
        """Deliver what was recorded, and close the connections."""
        if "tracking" in self.__dict__:
            self.tracking.close()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
