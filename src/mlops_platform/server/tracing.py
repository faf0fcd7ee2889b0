"""Whether this process exports spans: it needs an endpoint and the extra `otel`."""

import structlog

from mlops_platform.core.settings import Settings
from mlops_platform.core.telemetry.logs import secrets_of
from mlops_platform.core.telemetry.tracing import Tracer

log = structlog.get_logger(__name__)


def open_tracer(settings: Settings) -> Tracer | None:
    """A tracer that sends to the collector; None without an endpoint.

    Nor without the extra, and then it is said: the variable is often set for a whole machine or cluster, and what
    nobody asked of this process must not keep it from starting.
    """
    url = settings.traces_url
    if url is None:
        return None
    try:
        from mlops_platform.core.telemetry.otlp import OtlpExporter  # noqa: PLC0415  # an extra
    except ImportError as error:
        remedy = "pip install 'mlops-platform[otel]'"
        log.warning("traces.off", why=f"OTEL_EXPORTER_OTLP_ENDPOINT is set and {error.name} is missing: {remedy}")
        return None
    return Tracer(
        OtlpExporter(url, settings.traces_headers, name=settings.otel_service_name, known=secrets_of(settings)),
        share=settings.otel_traces_sampler_arg,
        capacity=settings.otel_bsp_max_queue_size,
        delay_seconds=settings.otel_bsp_schedule_delay / 1000,
    )
