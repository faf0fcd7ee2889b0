"""Prometheus metrics of one service: rate, errors, duration by route template, with bounded labels."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
UNMATCHED = "unmatched"
# The method is the caller's word: anything else would be a label that anyone can multiply.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Tally:
    """What was answered with one method, route and status."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BUCKETS) + 1)
        self.seconds = 0.0


class _Requests(Collector):
    """Counts plainly and makes metrics of it when it is scraped.

    All requests of a service are answered by one thread, so a count needs no lock; the library's own counter and
    histogram take three for each request.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._tallies: dict[tuple[str, str, int], _Tally] = {}

    def add(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally()
        tally.buckets[bisect_left(_BUCKETS, seconds)] += 1
        tally.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        counts = CounterMetricFamily(
            "mlops_http_requests", "Requests answered.", labels=("service", "method", "route", "status")
        )
        times = HistogramMetricFamily(
            "mlops_http_request_duration_seconds",
            "Time from the first byte in to the last byte out.",
            labels=("service", "method", "route"),
        )
        by_route: dict[tuple[str, str], _Tally] = {}
        for (method, route, status), tally in self._tallies.items():
            counts.add_metric((self._service, method, route, str(status)), sum(tally.buckets))
            whole = by_route.setdefault((method, route), _Tally())
            whole.buckets = [a + b for a, b in zip(whole.buckets, tally.buckets, strict=True)]
            whole.seconds += tally.seconds
        bounds = [*map(str, _BUCKETS), "+Inf"]
        for (method, route), tally in by_route.items():
            buckets = list(zip(bounds, map(float, accumulate(tally.buckets)), strict=True))
            times.add_metric((self._service, method, route), buckets, tally.seconds)
        yield counts
        yield times


class ServiceMetrics:
    """The registry of one service. `registry` is open for what a service adds of its own."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = _Requests(service)
        self.registry.register(self._requests)
        self.in_flight = Gauge(
            "mlops_http_requests_in_flight", "Requests under way.", ("service",), registry=self.registry
        ).labels(service)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.add(method if method in METHODS else "OTHER", route, status, seconds)

    def render(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
