"""Every table that the migrations build: importing the modules fills the metadata."""

from mlops_platform.ab_testing.tables import METADATA as AB_TESTING
from mlops_platform.core.audit import tables as _audit
from mlops_platform.core.auth import tables as _auth
from mlops_platform.core.db.schema import CORE
from mlops_platform.core.events import tables as _events
from mlops_platform.core.http import tables as _http
from mlops_platform.core.jobs import tables as _jobs
from mlops_platform.core.storage import tables as _storage
from mlops_platform.features.tables import METADATA as FEATURES
from mlops_platform.pipelines.tables import METADATA as PIPELINES
from mlops_platform.registry.tables import METADATA as REGISTRY
from mlops_platform.tracking.tables import METADATA as TRACKING

ALL = [CORE, REGISTRY, FEATURES, TRACKING, PIPELINES, AB_TESTING]
FILLED_BY = (_audit, _auth, _events, _http, _jobs, _storage)
