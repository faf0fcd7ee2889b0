"""Where the platform is and who asks: the one place that reads the client's environment.

For each value: what the caller says, else the environment, else what `mlops up` left under `MLOPS_HOME`
(`client.json` with the addresses, `secrets/api_key` with the first key), else the default ports on this machine.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlops_platform.sdk.errors import ConfigurationError


class Service(StrEnum):
    """The five services, by the names that `client.json` uses."""

    REGISTRY = "registry"
    FEATURES = "features"
    TRACKING = "tracking"
    PIPELINES = "pipelines"
    AB_TESTING = "ab_testing"


URL_VARIABLES: Mapping[Service, str] = {
    Service.REGISTRY: "MLOPS_MODEL_REGISTRY_URL",
    Service.FEATURES: "MLOPS_FEATURE_STORE_URL",
    Service.TRACKING: "MLOPS_EXPERIMENT_TRACKING_URL",
    Service.PIPELINES: "MLOPS_PIPELINE_ORCHESTRATOR_URL",
    Service.AB_TESTING: "MLOPS_AB_TESTING_URL",
}
DEFAULT_PORTS: Mapping[Service, int] = {
    Service.REGISTRY: 8000,
    Service.FEATURES: 8002,
    Service.TRACKING: 8003,
    Service.PIPELINES: 8004,
    Service.AB_TESTING: 8090,
}
CLIENT_VARIABLES: Mapping[str, str] = {
    "MLOPS_MODEL_REGISTRY_URL": "Address of the Model Registry.",
    "MLOPS_FEATURE_STORE_URL": "Address of the Feature Store.",
    "MLOPS_EXPERIMENT_TRACKING_URL": "Address of Experiment Tracking.",
    "MLOPS_PIPELINE_ORCHESTRATOR_URL": "Address of the Pipeline Orchestrator.",
    "MLOPS_AB_TESTING_URL": "Address of A/B Testing.",
    "MLOPS_API_KEY": "The API key to send; `MLOPS_API_KEY_FILE` names a file that holds it.",
    "MLOPS_SERVICE_TOKEN": "The service token to send instead of a key; also as `MLOPS_SERVICE_TOKEN_FILE`.",
    "MLOPS_PROJECT": "The project to work in, for credentials that have several.",
    "MLOPS_HOME": "Where `mlops up` leaves addresses and key, and where the client keeps its cache and spool (`~/.mlops`).",
    "MLOPS_TIMEOUT_SECONDS": "How long one request may take (30).",
    "MLOPS_RETRIES": "How often a request is sent at most, the first time included (4).",
    "MLOPS_OFFLINE": "`1`: runs are recorded under `MLOPS_HOME/offline` and none is sent; `mlops sync` does (0).",
    "MLOPS_CAPTURE": "`0`: a run does not record the code, arguments and environment that it was started with (1).",
    "MLOPS_SYSTEM_METRICS": "`1`: runs record `system/...` metrics of this machine unless they say otherwise (0).",
    "MLOPS_HEARTBEAT_SECONDS": "How often a run says that it lives; it is `FAILED` after five times that (60; 0: never).",
    "MLOPS_PARTS_ABOVE_MB": "Artifacts larger than so many MiB go in parts, which go on where they broke off (128).",
}
"""Every variable that the client reads, with its meaning: the reference page is made from it."""

LONGEST_HEARTBEAT_SECONDS = 120_960
"""Five times that is the longest silence that the server allows."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One client's view of the platform. Frozen; credentials stay out of its repr."""

    urls: Mapping[Service, str]
    credential: str | None = field(default=None, repr=False)
    credential_is_local: bool = False
    """The credential is the one that `mlops up` made: it is sent to `local_urls` and to no other address."""
    local_urls: frozenset[str] = frozenset()
    project: str | None = None
    home: Path = field(default_factory=lambda: Path("~/.mlops").expanduser())
    timeout_seconds: float = 30.0
    retries: int = 4
    offline: bool = False
    capture: bool = False
    system_metrics: bool = False
    heartbeat_seconds: float = 0.0
    """How often a run says that its process is alive; 0 when it promises nothing."""
    parts_above_bytes: int = 128 * 1024**2
    """What is larger goes in parts; for less, one request is quicker."""
    must_reach: bool = False
    """A run that cannot be started on the server is an error, and is not begun here to be delivered later."""

    def credential_for(self, url: str) -> str | None:
        """The credential to send to `url`; a key found on this machine never leaves it by a mistyped address."""
        if self.credential_is_local and url not in self.local_urls and not is_loopback(url):
            return None
        return self.credential

    @property
    def cache(self) -> Path:
        """Downloaded blobs, by digest."""
        return self.home / "cache" / "blobs"

    @property
    def spool(self) -> Path:
        """What could not be delivered yet."""
        return self.home / "spool"

    @property
    def offline_runs(self) -> Path:
        """Runs that were recorded without a server, a folder each."""
        return self.home / "offline"


def load_client_settings(
    environ: Mapping[str, str] | None = None,
    *,
    urls: Mapping[Service, str] | None = None,
    api_key: str | None = None,
    project: str | None = None,
    timeout_seconds: float | None = None,
    offline: bool | None = None,
) -> ClientSettings:
    """The settings of this process. Raises `ConfigurationError`, which names the variable that is wrong."""
    env = os.environ if environ is None else environ
    home = Path(env.get("MLOPS_HOME") or "~/.mlops").expanduser()
    left = _read_client_file(home)
    addresses = {service: _address(service, env, given=urls or {}, left=left) for service in Service}
    credential = api_key or _secret(env, "MLOPS_API_KEY") or _secret(env, "MLOPS_SERVICE_TOKEN")
    local = None if credential else _local_key(home)
    return ClientSettings(
        urls=addresses,
        credential=credential or local,
        credential_is_local=credential is None and local is not None,
        local_urls=frozenset(_clean(url, "client.json") for url in left.get("urls", {}).values()),
        # What `mlops up` calls the project holds for its own key, not for one that was given for another platform.
        project=project or env.get("MLOPS_PROJECT") or (left.get("project") if local else None),
        home=home,
        timeout_seconds=timeout_seconds or _positive(env, "MLOPS_TIMEOUT_SECONDS", 30.0),
        retries=int(_positive(env, "MLOPS_RETRIES", 4)),
        offline=_switch(env, "MLOPS_OFFLINE", default=False) if offline is None else offline,
        capture=_switch(env, "MLOPS_CAPTURE", default=True),
        system_metrics=_switch(env, "MLOPS_SYSTEM_METRICS", default=False),
        heartbeat_seconds=_interval(env, "MLOPS_HEARTBEAT_SECONDS", 60.0, most=LONGEST_HEARTBEAT_SECONDS),
        parts_above_bytes=int(_positive(env, "MLOPS_PARTS_ABOVE_MB", 128) * 1024**2),
    )


def mlflow_authorization(environ: Mapping[str, str] | None = None) -> str | None:
    """The header for a server of MLflow, of the variables that MLflow's own client reads."""
    env = os.environ if environ is None else environ
    token, user = env.get("MLFLOW_TRACKING_TOKEN"), env.get("MLFLOW_TRACKING_USERNAME")
    if token:
        return f"Bearer {token}"
    if user:
        pair = f"{user}:{env.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    return None


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def _address(service: Service, env: Mapping[str, str], *, given: Mapping[Service, str], left: Mapping[str, Any]) -> str:
    if service in given:
        return _clean(given[service], f"urls[{service.value!r}]")
    variable = URL_VARIABLES[service]
    if env.get(variable):
        return _clean(env[variable], variable)
    found = left.get("urls", {}).get(service.value)
    return _clean(found, "client.json") if found else f"http://127.0.0.1:{DEFAULT_PORTS[service]}"


def _clean(url: str, source: str) -> str:
    if not _is_address(str(url)):
        raise ConfigurationError(
            f"{source}: {url!r} is not an http:// or https:// address.", hint="For example http://127.0.0.1:8000."
        )
    if "@" in urlsplit(url).netloc:
        # An address stands in messages, logs and the spool; what it held is not repeated here either.
        raise ConfigurationError(f"{source}: an address holds no password.", hint="The key goes into MLOPS_API_KEY.")
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # Brackets that do not close, a port that is no port.
        return False


def _read_client_file(home: Path) -> Mapping[str, Any]:
    path = home / "client.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint="'mlops up' writes it anew.") from error
    if not isinstance(content, dict) or not isinstance(content.get("urls", {}), dict):
        raise ConfigurationError(f"{path} is not what 'mlops up' writes.", hint="'mlops up' writes it anew.")
    return content


def _local_key(home: Path) -> str | None:
    try:
        return (home / "secrets" / "api_key").read_text(encoding="utf-8").strip() or None
    except OSError:
        # Absent, or not ours to read: then there is no key here, and the server says what is missing.
        return None


def _secret(env: Mapping[str, str], name: str) -> str | None:
    if env.get(name):
        return env[name].strip()
    path = env.get(f"{name}_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{name}_FILE: cannot read {path!r}: {error.strerror}.") from error


def _positive(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"{name}: {text!r} is not a number above 0.")
    return value


def _interval(env: Mapping[str, str], name: str, default: float, *, most: float) -> float:
    """Seconds; 0 switches off."""
    text = env.get(name, "").strip()
    if text in {"0", "0.0"}:
        return 0.0
    seconds = _positive(env, name, default)
    if seconds > most:
        raise ConfigurationError(f"{name}: {text!r} is more than {most:g} seconds.")
    return seconds


def _switch(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = env.get(name, "").strip().lower()
    if not text:
        return default
    if text not in _SWITCH:
        raise ConfigurationError(f"{name}: {env[name]!r} is neither 1 nor 0.")
    return _SWITCH[text]


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
