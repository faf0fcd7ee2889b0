"""The five services and their ports."""

from dataclasses import dataclass

from mlops_platform.ab_testing.app import SERVICE as AB_TESTING
from mlops_platform.core.http.service import Service
from mlops_platform.core.settings import Settings
from mlops_platform.features.app import SERVICE as FEATURES
from mlops_platform.pipelines.app import SERVICE as PIPELINES
from mlops_platform.registry.app import SERVICE as REGISTRY
from mlops_platform.tracking.app import SERVICE as TRACKING


@dataclass(frozen=True, slots=True)
class Entry:
    """A service, the short name by which clients know it, and the setting that holds its port."""

    key: str
    service: Service
    port_setting: str

    def port(self, settings: Settings) -> int:
        """The port it listens on."""
        return int(getattr(settings, self.port_setting))

    def url(self, settings: Settings) -> str:
        """Where clients on this machine find it."""
        host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104  # compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port(settings)}"

    @property
    def url_variable(self) -> str:
        """The environment variable by which clients are told its URL."""
        return f"MLOPS_{self.service.name.upper().replace('-', '_')}_URL"


CATALOG: tuple[Entry, ...] = (
    Entry("registry", REGISTRY, "model_registry_port"),
    Entry("features", FEATURES, "feature_store_port"),
    Entry("tracking", TRACKING, "experiment_tracking_port"),
    Entry("pipelines", PIPELINES, "pipeline_orchestrator_port"),
    Entry("ab_testing", AB_TESTING, "ab_testing_port"),
)
BY_NAME: dict[str, Entry] = {entry.service.name: entry for entry in CATALOG}
