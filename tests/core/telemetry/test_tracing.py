"""Spans of a real app at a real collector, which sees nothing that it should not, and may be away."""

import asyncio
import contextlib
import dataclasses
import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.identity import Role
from mlops_platform.core.settings import load_settings
from mlops_platform.core.telemetry import logs
from mlops_platform.core.telemetry.tracing import Span, Tracer
from mlops_platform.server.runtime import open_runtime
from mlops_platform.server.tracing import open_tracer
from tests.factories.collector import collecting
from tests.factories.sample_service import SERVICE, asgi_call, client_of, make_schema, toy_app
from tests.factories.waiting import until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
SERVER_KIND, INTERNAL_KIND, UNSET, ERROR = 2, 1, 0, 2
SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def collector():
    with collecting() as one:
        yield one


@pytest.fixture
def traced(runtime, collector):
    """Apps that export to the collector, or to where the settings say; all flushed at the end."""
    with contextlib.ExitStack() as stack:

        def make(**settings):
            given = {"otel_exporter_otlp_endpoint": collector.url, "otel_bsp_schedule_delay": 10}
            changed = runtime.settings.model_copy(update=given | settings)
            tracer = open_tracer(changed)
            assert tracer is not None
            stack.callback(tracer.close)
            return toy_app(dataclasses.replace(runtime, tracer=tracer))

        yield make


@pytest.fixture
async def ada(platform, database):
    await make_schema(database.owner_dsn)
    key, _ = await platform.key(await platform.project(), Role.ADMIN)
    return key


async def spans(collector, count):
    return await asyncio.to_thread(collector.wait_for, count)


async def span_of(traced, collector, key, path, **options):
    async with client_of(traced(), key) as client:
        await client.request(options.pop("method", "GET"), path, **options)
    return (await spans(collector, 1))[0]


def refused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestContext:
    async def test_the_span_is_a_child_of_the_callers_within_its_trace(self, traced, collector, ada):
        async with client_of(traced(), ada) as client:
            answer = await client.get("/api/toys", headers=CALLED)
        span = (await spans(collector, 1))[0]
        assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
        assert answer.headers["traceparent"].split("-")[2] == span.span_id

    async def test_without_a_caller_it_is_the_root_of_the_trace_that_is_answered(self, traced, collector, ada):
        async with client_of(traced(), ada) as client:
            answer = await client.get("/api/toys")
        span = (await spans(collector, 1))[0]
        assert answer.headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-01"
        assert span.parent_id == ""

    @pytest.mark.parametrize(
        "given",
        [
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{SPAN}-01-",
            f"00-{TRACE}-zzzzzzzzzzzzzzzz-01",
        ],
    )
    async def test_a_context_that_is_not_valid_is_nobodys(self, traced, collector, ada, given):
        span = await span_of(traced, collector, ada, "/api/toys", headers={"traceparent": given})
        assert span.parent_id == ""
        assert span.trace_id not in {TRACE, "0" * 32}

    async def test_of_several_contexts_the_one_that_is_answered_is_the_parent(self, traced, collector, ada):
        other = f"00-{TRACE[::-1]}-{SPAN[::-1]}-01"
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {ada}".encode())]
        headers += [(b"traceparent", other.encode()), (b"traceparent", CALLED["traceparent"].encode())]
        _, answered, _ = await asgi_call(traced(), path="/api/toys", headers=headers)
        span = (await spans(collector, 1))[0]
        assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
        assert answered["traceparent"][3:35] == TRACE


class TestSpan:
    async def test_it_is_named_after_method_and_template_and_carries_the_conventions(self, traced, collector, ada):
        before = time.time_ns()
        span = await span_of(traced, collector, ada, "/api/toys/count/bear", headers={"X-Request-Id": "r-1"})
        assert (span.name, span.kind, span.status) == ("GET /api/toys/count/{name}", SERVER_KIND, UNSET)
        assert before - 1_000_000 <= span.started_ns < span.ended_ns <= time.time_ns()
        assert span.attributes == {
            "http.request.method": "GET",
            "http.route": "/api/toys/count/{name}",
            "http.response.status_code": 200,
            "url.scheme": "http",
            "mlops.request_id": "r-1",
            "server.address": "localhost",
        }

    async def test_the_port_is_the_one_that_was_called(self, traced, collector, ada):
        await asgi_call(traced(), path="/api/toys", headers=[(b"host", b"localhost")])
        span = (await spans(collector, 1))[0]
        assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", 1)
        assert span.attributes["http.response.status_code"] == 401

    async def test_a_hot_route_has_its_template_too(self, traced, collector, ada):
        assert (await span_of(traced, collector, ada, "/api/hot/bear")).name == "GET /api/hot/{name}"

    async def test_what_nobody_answers_has_no_route(self, traced, collector, ada):
        span = await span_of(traced, collector, ada, "/nowhere/at/all")
        assert span.name == "GET"
        assert "http.route" not in span.attributes
        assert span.attributes["http.response.status_code"] == 404

    async def test_a_method_that_anyone_can_invent_names_nothing(self, traced, collector, ada):
        span = await span_of(traced, collector, ada, "/api/toys", method="BREW")
        assert span.name.startswith("HTTP")
        assert span.attributes["http.request.method"] == "_OTHER"

    async def test_a_failure_of_ours_is_an_error(self, traced, collector, ada):
        span = await span_of(traced, collector, ada, "/api/toys/crash")
        assert (span.status, span.attributes["error.type"]) == (ERROR, "500")
        assert span.attributes["http.response.status_code"] == 500

    async def test_a_mistake_of_the_callers_is_none(self, traced, collector, ada):
        span = await span_of(traced, collector, ada, "/api/toys", method="POST", json={"no": "toy"})
        assert (span.status, span.attributes["http.response.status_code"]) == (UNSET, 422)
        assert "error.type" not in span.attributes


class TestFramework:
    async def test_the_frameworks_own_spans_are_off_whatever_provider_is_set(self, traced, collector, ada, monkeypatch):
        kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(kept))
        monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
        await span_of(traced, collector, ada, "/api/toys/crash?secret=c4nary")
        provider.shutdown()
        assert kept.get_finished_spans() == ()
        assert len(collector.spans) == 1


class TestResource:
    async def test_it_names_the_service_and_its_version(self, traced, collector, ada):
        resource = (await span_of(traced, collector, ada, "/api/toys")).resource
        assert resource["service.name"] == resource["mlops.service"] == "toys"
        assert resource["service.namespace"] == "mlops-platform"
        assert resource["service.version"]
        assert len(resource["service.instance.id"]) == 32

    async def test_the_standard_variable_overrides_the_name(self, traced, collector, ada):
        async with client_of(traced(otel_service_name="mine"), ada) as client:
            await client.get("/api/toys")
        resource = (await spans(collector, 1))[0].resource
        assert (resource["service.name"], resource["mlops.service"]) == ("mine", "toys")


class TestWhereTo:
    async def test_the_base_gets_the_path_of_the_protocol_and_the_headers(self, traced, collector, ada):
        headers = SecretStr("Authorization=Bearer%20of-the-collector, X-Tenant = a=b")
        async with client_of(traced(otel_exporter_otlp_headers=headers), ada) as client:
            await client.get("/api/toys")
        await spans(collector, 1)
        sent = {name.lower(): value for name, value in collector.headers[0].items()}
        assert collector.paths == ["/v1/traces"]
        assert (sent["authorization"], sent["x-tenant"]) == ("Bearer of-the-collector", "a=b")
        assert sent["content-type"] == "application/x-protobuf"

    async def test_the_traces_endpoint_is_taken_as_it_stands(self, traced, collector, ada):
        own = {"otel_exporter_otlp_traces_endpoint": f"{collector.url}/otlp/mine", "otel_exporter_otlp_endpoint": None}
        async with client_of(traced(**own), ada) as client:
            await client.get("/api/toys")
        await spans(collector, 1)
        assert collector.paths == ["/otlp/mine"]


class TestSampling:
    async def test_a_caller_that_does_not_sample_decides_for_its_trace(self, traced, collector, ada):
        async with client_of(traced(), ada) as client:
            await client.get("/api/toys", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
            await client.get("/api/hot/last")
        assert [span.name for span in await spans(collector, 1)] == ["GET /api/hot/{name}"]

    async def test_of_a_share_of_nothing_only_what_callers_sample_is_left(self, traced, collector, ada):
        async with client_of(traced(otel_traces_sampler_arg=0.0), ada) as client:
            for _ in range(20):
                await client.get("/api/toys")
            await client.get("/api/hot/last", headers=CALLED)
        assert [span.name for span in await spans(collector, 1)] == ["GET /api/hot/{name}"]

    async def test_a_share_is_about_that_share(self, traced, collector, ada):
        app = traced(otel_traces_sampler_arg=0.5)
        async with client_of(app, ada) as client:
            for _ in range(200):
                await client.get("/api/hot/some")
        await asyncio.to_thread(app.runtime.tracer.close)
        assert 60 <= len(collector.spans) <= 140


class TestSecrets:
    async def test_no_exported_byte_holds_a_secret_or_what_a_caller_sent(self, traced, collector, ada):
        token = SecretStr("authorization=Bearer c4nary-of-the-collector")
        app = traced(otel_exporter_otlp_headers=token)
        canary = "c4nary"
        async with client_of(app, ada) as client:
            await client.get(f"/api/toys/crash?secret={canary}-query&api_key={ada}")
            await client.get(f"/api/toys/count/{canary}-path")
            await client.get(f"/{canary}/{ada}")
            await client.get("/api/toys", headers={"X-Request-Id": ada[:64], "User-Agent": f"{canary}-agent"})
            await client.get("/api/toys", headers={"X-Request-Id": "c4nary-of-the-collector", "Cookie": canary})
            await client.post("/api/toys", json={"name": canary, "password": canary})
            await client.get("/api/toys", headers={"Authorization": f"Bearer {canary}", "Host": f"{canary}.test"})
            await client.get("/api/toys", headers={"tracestate": f"a={canary}", "baggage": f"b={canary}"})
        await spans(collector, 8)
        sent = b"".join(collector.bodies)
        assert canary.encode() not in sent
        assert ada.split("_")[2].encode() not in sent
        assert app.runtime.settings.api_secret_key.get_secret_value().encode() not in sent

    async def test_the_log_of_a_failed_export_holds_none_either(self, settings, traced, collector, ada):
        stream = io.StringIO()
        collector.statuses = [401]
        given = {
            "otel_exporter_otlp_endpoint": collector.url.replace("//", "//user:sp4rrow-in-url@"),
            "otel_exporter_otlp_headers": SecretStr("x-key=sp4rrow-in-header"),
            "log_level": "DEBUG",
        }
        logs.configure(settings.model_copy(update=given), stream=stream)
        try:
            async with client_of(traced(**given), ada) as client:
                await client.get("/api/toys")
            await until(lambda: "traces.lost" in stream.getvalue())
        finally:
            logs.configure(settings)
        assert "401" in stream.getvalue()
        assert "sp4rrow" not in stream.getvalue()


class TestAway:
    async def test_nobody_listening_costs_spans_and_no_request(self, settings, traced, ada):
        stream = io.StringIO()
        logs.configure(settings, stream=stream)
        try:
            app = traced(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{refused_port()}")
            async with client_of(app, ada) as client:
                answers = [await client.get("/api/hot/bear") for _ in range(50)]
            await asyncio.to_thread(app.runtime.tracer.close)
        finally:
            logs.configure(settings)
        assert {answer.status_code for answer in answers} == {200}
        lines = [line for line in stream.getvalue().splitlines() if "traces.lost" in line]
        assert 1 <= len(lines) <= 2
        assert "onnection" in lines[0]

    async def test_what_waits_for_a_silent_collector_is_bounded_and_requests_go_on(self, traced, collector, ada):
        collector.gate.clear()
        app = traced(otel_bsp_max_queue_size=16)
        async with client_of(app, ada) as client:
            await client.get("/api/hot/first")
            await asyncio.to_thread(collector.reached.wait, 10)
            answers = [await client.get("/api/hot/bear") for _ in range(100)]
            collector.gate.set()
        assert {answer.status_code for answer in answers} == {200}
        await asyncio.to_thread(app.runtime.tracer.close)
        assert len(collector.spans) == 1 + 16

    async def test_a_collector_that_is_busy_gets_the_same_spans_again(self, traced, collector, ada):
        collector.statuses = [503, 429]
        async with client_of(traced(), ada) as client:
            await client.get("/api/hot/bear")
        await spans(collector, 1)
        assert len(collector.bodies) == 3
        assert len(set(collector.bodies)) == 1

    async def test_batches_are_bounded(self, traced, collector, ada):
        collector.gate.clear()
        app = traced()
        async with client_of(app, ada) as client:
            await client.get("/api/hot/first")
            await asyncio.to_thread(collector.reached.wait, 10)
            for _ in range(1100):
                await client.get("/api/hot/bear")
            collector.gate.set()
        await spans(collector, 1101)
        assert len(collector.bodies) == 4


class TestEnd:
    async def test_what_waits_is_sent_before_the_process_ends(self, settings, database, collector, platform):
        await make_schema(database.owner_dsn)
        key, _ = await platform.key(await platform.project(), Role.ADMIN)
        given = {"otel_exporter_otlp_endpoint": collector.url, "otel_bsp_schedule_delay": 600_000}
        async with open_runtime(settings.model_copy(update=given), database.app_dsn) as own:
            async with client_of(ServiceApp(SERVICE, own), key) as client:
                await client.get("/api/hot/bear")
            assert collector.spans == []
        assert [span.name for span in collector.spans] == ["GET /api/hot/{name}"]

    async def test_a_collector_that_never_answers_does_not_keep_the_process(self, settings, traced, collector, ada):
        stream = io.StringIO()
        logs.configure(settings, stream=stream)
        collector.gate.clear()
        app = traced()
        try:
            async with client_of(app, ada) as client:
                await client.get("/api/hot/bear")
            began = time.monotonic()
            await asyncio.to_thread(app.runtime.tracer.close)
        finally:
            logs.configure(settings)
        assert time.monotonic() - began < 8
        (line,) = [line for line in stream.getvalue().splitlines() if "traces.lost" in line]
        assert json.loads(line)["spans"] == 1

    async def test_an_exporter_that_breaks_is_told_and_the_next_batch_is_sent(self, settings):
        stream = io.StringIO()
        logs.configure(settings, stream=stream)
        sent: list[list[Span]] = []
        one = Span(CALLED["traceparent"], None, "one", "toys", True, 1, 0.0, {}, None)
        two = one._replace(name="two")

        class Broken:
            def send(self, batch):
                sent.append(batch)
                if len(sent) == 1:
                    raise RuntimeError("unforeseen")

            def close(self):
                """Nothing to give up."""

        tracer = Tracer(Broken(), share=1.0, capacity=10, delay_seconds=0.005)
        try:
            tracer.add(one)
            await until(lambda: len(sent) == 1)
            tracer.add(two)
            await until(lambda: len(sent) == 2)
        finally:
            await asyncio.to_thread(tracer.close)
            logs.configure(settings)
        assert sent == [[one], [two]]
        assert "unforeseen" in stream.getvalue()


def python(script, **variables):
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


OPEN = """
import sys
from mlops_platform.core.settings import load_settings
from mlops_platform.core.telemetry import logs
from mlops_platform.server import embedded, process, worker
from mlops_platform.server.tracing import open_tracer
settings = load_settings()
logs.configure(settings)
sys.stdout.write(f"tracer={open_tracer(settings)!r} loaded={any('otlp' in name for name in sys.modules)}")
"""
WITHOUT_EXTRA = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


class TestSwitch:
    def test_without_an_endpoint_nothing_of_it_is_loaded(self):
        assert "tracer=None loaded=False" in python(OPEN)

    def test_it_can_be_switched_off_where_an_endpoint_is_set_for_all(self):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}
        assert "tracer=None loaded=False" in python(OPEN, **variables)

    def test_an_endpoint_without_the_extra_says_what_to_install_and_goes_on(self):
        said = python(WITHOUT_EXTRA + OPEN, OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318")
        assert "pip install 'mlops-platform[otel]'" in said
        assert said.count("traces.off") == 1
        assert "tracer=None" in said
        assert "Traceback" not in said

    def test_the_settings_alone_do_not_import_the_app_without_the_extra(self):
        assert "tracer=None loaded=False" in python(WITHOUT_EXTRA + OPEN)

    def test_an_edge_without_a_tracer_makes_no_spans(self, runtime):
        assert runtime.tracer is None
        assert toy_app(runtime).edge._spans is None

    def test_empty_variables_are_as_good_as_none(self, monkeypatch):
        for name in ("ENDPOINT", "TRACES_ENDPOINT", "HEADERS"):
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "")
        for name in ("OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER_ARG", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SDK_DISABLED"):
            monkeypatch.setenv(name, "")
        loaded = load_settings()
        assert (loaded.traces_url, loaded.traces_headers, loaded.otel_traces_sampler_arg) == (None, {}, 1.0)
