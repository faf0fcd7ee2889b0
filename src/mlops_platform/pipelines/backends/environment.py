"""What of the worker's environment a task sees: a list of what is let through, and nothing else.

The worker's environment holds the database password, the signing key and whatever else the operator put there. A list of
what to remove would miss the next secret; a list of what to keep does not.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX",
    "PYTHONPATH", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "OMP_*", "OPENBLAS_*", "MKL_*", "NUMEXPR_*",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "no_proxy",
    "MLOPS_MODEL_REGISTRY_URL", "MLOPS_EXPERIMENT_TRACKING_URL", "MLOPS_FEATURE_STORE_URL",
    "MLOPS_PIPELINE_ORCHESTRATOR_URL", "MLOPS_AB_TESTING_URL", "MLOPS_PROMETHEUS_URL", "MLOPS_GRAFANA_URL",
)  # fmt: skip


def child_environment(base: Mapping[str, str], *, passed: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a task process: what is kept, and what the operator passes on by name."""
    patterns = (*KEPT, *passed)
    return {name: value for name, value in base.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}
