"""Prometheus metrics of one service: rate, errors, duration by route template, with bounded labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNMATCHED = "unmatched"
# The method is the caller's word: anything else would be a label that anyone can multiply.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ServiceMetrics:
    """The registry of one service. `registry` is open for what a service adds of its own."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("service", "method", "route", "status")
        self._service = service
        self._requests = Counter("mlops_http_requests", "Requests answered.", labels, registry=self.registry)
        self._seconds = Histogram(
            "mlops_http_request_duration_seconds",
            "Time from the first byte in to the last byte out.",
            ("service", "method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "mlops_http_requests_in_flight", "Requests under way.", ("service",), registry=self.registry
        ).labels(service)
        # Looking up a labelled child costs more than the observation itself: keep them.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        method = method if method in METHODS else "OTHER"
        key = (method, route, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(self._service, method, route, str(status)),
                self._seconds.labels(self._service, method, route),
            )
        children[0].inc()
        children[1].observe(seconds)

    def render(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
