"""What a process of the Feature Store keeps: made once at start by `app`, passed to whoever needs it."""

from dataclasses import dataclass

from mlops_platform.features.backends.offline import OfflineFiles
from mlops_platform.features.backends.online import OnlineStore
from mlops_platform.features.service.definitions import Definitions
from mlops_platform.features.service.ingest import Ingest
from mlops_platform.features.service.online_writes import OnlineWriter
from mlops_platform.features.service.serving import Serving
from mlops_platform.features.service.training import TrainingSets


@dataclass(frozen=True, slots=True)
class FeatureState:
    """The collaborators and use cases."""

    definitions: Definitions
    store: OnlineStore
    files: OfflineFiles
    online: OnlineWriter
    ingest: Ingest
    serving: Serving
    training: TrainingSets
