"""The five services and their ports."""

from dataclasses import dataclass

from mlops_platform.core.http.service import Service
from mlops_platform.core.settings import Settings
from mlops_platform.registry.app import SERVICE as REGISTRY


@dataclass(frozen=True, slots=True)
class Entry:
    """A service, the short name by which clients know it, and the setting that holds its port."""

    key: str
    service: Service
    port_setting: str

    def port(self, settings: Settings) -> int:
        """The port it listens on."""
        return int(getattr(settings, self.port_setting))


CATALOG: tuple[Entry, ...] = (Entry("registry", REGISTRY, "model_registry_port"),)
BY_NAME: dict[str, Entry] = {entry.service.name: entry for entry in CATALOG}
