"""The allowlist of hosts and origins: what keeps a web page, or a rebound DNS name, away from a laptop's services."""

from collections.abc import Mapping, Sequence

from mlops_platform.core.errors import ForbiddenOrigin, MalformedRequest
from mlops_platform.core.settings import Settings

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SERVICES = ("model-registry", "feature-store", "experiment-tracking", "pipeline-orchestrator", "ab-testing")
_OTHERS = ("console", "prometheus", "grafana", "alertmanager", "host.docker.internal")
_KUBERNETES = ("{}-service", "{}-service.mlops-platform", "{}-service.mlops-platform.svc.cluster.local")
# Probes and scrapers come with a pod address as host.
UNGUARDED_PATHS = frozenset({"/health", "/health/", "/ready", "/metrics"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


# A second one could be read by a proxy in front and the first one by us, or the other way round.
_ONCE = (
    b"host",
    b"origin",
    b"sec-fetch-site",
    b"authorization",
    b"x-api-key",
    b"x-mlops-project",
    b"x-mlflow-workspace",
    b"x-mlops-on-behalf-of",
)


def fields_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name. Where one was sent several times the last stands; `MalformedRequest` where that would matter."""
    fields = dict(headers)
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        for name in _ONCE:
            if names.count(name) > 1:
                raise MalformedRequest(f"The request has several {name.decode().title()} headers.", hint="Send it once.")
    return fields


class HostGuard:
    """Decides by Host, Origin and Sec-Fetch-Site whether a request may go on."""

    def __init__(self, settings: Settings) -> None:
        names = [*_LOOPBACK, *_SERVICES, *_OTHERS, *settings.allowed_hosts]
        names += [form.format(service) for service in _SERVICES for form in _KUBERNETES]
        if settings.host not in {"0.0.0.0", "::"}:  # noqa: S104  # compared, not bound
            names.append(settings.host)
        self._hosts = frozenset(name.lower() for name in names)
        self._passed: set[bytes] = set()

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise `ForbiddenOrigin` unless host and origin are allowed."""
        if path in UNGUARDED_PATHS:
            return
        host = headers.get(b"host")
        if host not in self._passed:
            self._check_host(host)
        if b"origin" in headers:
            self._check_origin(headers[b"origin"])
        if headers.get(b"sec-fetch-site") == b"cross-site" and method not in _SAFE_METHODS:
            raise ForbiddenOrigin("A page of another site may not send this request.")

    def _check_host(self, host: bytes | None) -> None:
        name = _host_name((host or b"").decode("latin-1"))
        if name not in self._hosts:
            raise ForbiddenOrigin(
                f"The host {name[:100]!r} is not on the allowlist.",
                hint="If this name is yours, add it to MLOPS_ALLOWED_HOSTS.",
            )
        if host is not None and len(self._passed) < 1000:
            self._passed.add(host)

    def _check_origin(self, origin: bytes) -> None:
        name = _origin_name(origin.decode("latin-1"))
        if name not in self._hosts:
            raise ForbiddenOrigin(
                f"The origin {origin.decode('latin-1')[:100]!r} is not on the allowlist.",
                hint="If this site is yours, add its host to MLOPS_ALLOWED_HOSTS.",
            )


def _host_name(host: str) -> str:
    """The name of a Host header, without its port; empty for anything odd."""
    host = host.strip().lower()
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
        return name if rest == "" or (rest != port and _is_port(port)) else ""
    name, _, port = host.partition(":")
    return name.removesuffix(".") if _is_port(port) else ""


def _is_port(text: str) -> bool:
    return text == "" or (text.isascii() and text.isdigit())


def _origin_name(origin: str) -> str:
    """The host of an Origin header; empty for `null` and anything that is no web origin."""
    scheme, _, rest = origin.strip().lower().partition("://")
    return _host_name(rest) if scheme in {"http", "https"} else ""
