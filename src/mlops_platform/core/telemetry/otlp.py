"""Spans to a collector: OTLP over HTTP. Needs the extra `otel`, and is imported only where an endpoint is set.

The library's own variables for certificates, compression, time-out and resource attributes hold as they stand. Its tracer
and its batch processor are not used: making a span with them costs the request, and their shutdown takes up to 30 s.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from mlops_platform.core.identity import new_id
from mlops_platform.core.telemetry.logs import redact
from mlops_platform.core.telemetry.tracing import Span

_NAMESPACE = "mlops-platform"
_EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class OtlpExporter:
    """Turns spans into what the library exports. `name` overrides the services' own names."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], *, name: str | None = None, known: Sequence[str] = ()
    ) -> None:
        self._reasons = _Reasons()
        # It writes lines for each attempt of each batch, and malformed headers as they are.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter_log = logging.getLogger(_EXPORTER_LOGGER)
        exporter_log.setLevel(logging.WARNING)
        exporter_log.addFilter(self._reasons)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, headers=dict(headers))
        self._known = known
        self._scope = InstrumentationScope("mlops_platform", version("mlops-platform"))
        instance = new_id()

        @cache
        def resource(service: str) -> Resource:
            return Resource.create(
                {
                    "service.name": name or service,
                    "service.namespace": _NAMESPACE,
                    "service.version": version("mlops-platform"),
                    "service.instance.id": instance,
                    "mlops.service": service,
                }
            )

        self._resource = resource

    def send(self, spans: Sequence[Span]) -> str | None:
        """Send them; why they were not taken, if they were not."""
        self._reasons.last = ""
        result = self._exporter.export([self._readable(span) for span in spans])
        if result is SpanExportResult.SUCCESS:
            return None
        return self._reasons.last or "The collector did not take them."

    def close(self) -> None:
        """Give up what is under way, also the wait before another attempt."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it has none
        logging.getLogger(_EXPORTER_LOGGER).removeFilter(self._reasons)

    def _readable(self, span: Span) -> ReadableSpan:
        trace_id = int(span.context[3:35], 16)
        flags = TraceFlags(TraceFlags.SAMPLED)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=True, trace_flags=flags)
        attributes = {name: redact(value, known=self._known) for name, value in span.attributes.items()}
        if span.error is not None:
            attributes["error.type"] = span.error
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(span.context[36:52], 16), is_remote=False, trace_flags=flags),
            parent=parent,
            resource=self._resource(span.service),
            attributes=attributes,
            kind=SpanKind.SERVER if span.is_server else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET if span.error is None else StatusCode.ERROR),
            start_time=span.ended_ns - int(span.seconds * 1e9),
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


class _Reasons(logging.Filter):
    """Keeps what the library would write of a failed batch: our line, one a minute, says it."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        # The first warning tells what happened, those after it only that it was tried in vain.
        self.last = self.last or record.getMessage()
        return False
