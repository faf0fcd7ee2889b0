"""What `run.log_metric` costs the thread that trains."""

from time import perf_counter_ns

from benchmarks.processes import Running
from mlops_platform.sdk.platform import Platform
from mlops_platform.sdk.settings import Service

_CALLS = 20_000


def log_metric_cost(running: Running) -> dict[str, float]:
    """Median and 99th percentile in microseconds, while the background thread delivers to the running platform."""
    urls = {Service(name): f"http://127.0.0.1:{port}" for name, port in running.ports.items()}
    with Platform(urls=urls, api_key=running.key, project="default") as platform:
        with platform.tracking.run("bench-sdk") as run:
            costs = []
            for step in range(_CALLS):
                begun = perf_counter_ns()
                run.log_metric("loss", 0.5, step=step)
                costs.append(perf_counter_ns() - begun)
        costs.sort()
    return {
        "log_metric_p50_us": costs[_CALLS // 2] / 1000,
        "log_metric_p99_us": costs[int(_CALLS * 0.99)] / 1000,
        "log_metric_max_us": costs[-1] / 1000,
    }
