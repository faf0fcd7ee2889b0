import asyncio
import contextlib
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_platform.core.identity import Role
from tests.factories.sample_service import asgi_call, toy_app
from tests.factories.waiting import until


def known(caller, *more):
    return [(b"host", b"localhost"), (b"authorization", f"Bearer {caller.key}".encode()), *more]


def routes_counted(app, method="GET"):
    families = text_string_to_metric_families(app.metrics.render().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == "mlops_http_requests_total"]
    return {(sample.labels["method"], sample.labels["route"], sample.labels["status"]): sample.value for sample in samples}


class TestRequestId:
    async def test_the_callers_id_comes_back(self, ada):
        response = await ada.http.get("/api/toys", headers={"X-Request-Id": "my-id.1"})
        assert response.headers["x-request-id"] == "my-id.1"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "a\tb", "ü"])
    async def test_an_unfit_id_is_replaced(self, ada, runtime, given):
        header = (b"x-request-id", given.encode("latin-1"))
        _, headers, _ = await asgi_call(toy_app(runtime), path="/api/toys", headers=known(ada, header))
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])

    async def test_problems_and_audit_carry_it(self, ada):
        response = await ada.http.get("/nowhere", headers={"X-Request-Id": "r-404"})
        assert response.json()["request_id"] == "r-404"
        await ada.http.post("/api/toys", json={"name": "bear"}, headers={"X-Request-Id": "r-made"})
        entries = (await ada.http.get("/api/platform/audit")).json()["items"]
        assert [entry["request_id"] for entry in entries] == ["r-made"]

    async def test_the_trace_goes_on_with_a_span_of_our_own(self, ada):
        trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        response = await ada.http.get("/api/toys", headers={"traceparent": f"00-{trace}-{span}-01"})
        parts = response.headers["traceparent"].split("-")
        assert parts[1] == trace
        assert parts[2] != span
        assert parts[3] == "01"

    @pytest.mark.parametrize("given", ["", "00-xyz", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra"])
    async def test_a_malformed_trace_is_replaced(self, ada, given):
        response = await ada.http.get("/api/toys", headers={"traceparent": given})
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", response.headers["traceparent"])


class TestCrash:
    async def test_an_unforeseen_error_is_a_problem_with_the_request_id_and_leaks_nothing(self, ada):
        response = await ada.http.get("/api/toys/crash?secret=hunter2", headers={"X-Request-Id": "r-crash"})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["request_id"] == "r-crash"
        for leak in ("hunter2", "RuntimeError", "Traceback", "toys.py"):
            assert leak not in response.text

    async def test_it_is_counted_under_its_route(self, play, runtime):
        app = toy_app(runtime)
        ada = await play.caller(app=app)
        await ada.http.get("/api/toys/crash")
        assert routes_counted(app)["GET", "/api/toys/crash", "500"] == 1

    async def test_a_stream_that_breaks_is_not_followed_by_a_second_answer(self, ada, runtime):
        status, _, body = await asgi_call(toy_app(runtime), path="/api/toys/stream", headers=known(ada))
        assert (status, body) == (200, b"one")


class TestOverload:
    async def test_what_is_too_much_is_shed_at_once_and_probes_are_not(self, play, runtime):
        app = toy_app(runtime, max_concurrent_requests=2)
        ada = await play.caller(app=app)
        held = [asyncio.create_task(ada.http.get("/api/toys/sleep")) for _ in range(2)]
        await app.fastapi.state.reached.wait()
        await until(lambda: app.edge._in_flight == 2)
        shed = await ada.http.get("/api/toys")
        assert shed.status_code == 503
        assert shed.headers["retry-after"]
        assert (await ada.http.get("/health")).status_code == 200
        app.fastapi.state.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {200}
        assert (await ada.http.get("/api/toys")).status_code == 200


class TestCancelled:
    async def test_a_cancelled_request_is_undone_counted_and_its_connection_goes_on(self, play, runtime):
        app = toy_app(runtime)
        ada = await play.caller(app=app)
        call = asgi_call(
            app, method="POST", path="/api/toys/slow", body=[b'{"name": "bear"}'],
            headers=known(ada, (b"content-type", b"application/json")),
        )  # fmt: skip
        task = asyncio.create_task(call)
        await app.fastapi.state.reached.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert routes_counted(app)["POST", "/api/toys/slow", "499"] == 1
        assert app.edge._in_flight == 0
        answers = await asyncio.gather(*(ada.http.get("/api/toys/count/bear") for _ in range(20)))
        assert {answer.json() for answer in answers} == {0}

    async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_crash(self, ada, runtime):
        app = toy_app(runtime)
        body_without_end = {"type": "http.request", "body": b'{"na', "more_body": True}
        messages = [body_without_end, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            assert message.get("status", 499) == 499

        scope = {"type": "http", "method": "POST", "path": "/api/toys", "query_string": b"", "http_version": "1.1"}
        headers = known(ada, (b"content-type", b"application/json"))
        await app(
            {**scope, "scheme": "http", "server": ("127.0.0.1", 1), "root_path": "", "headers": headers}, receive, send
        )
        assert routes_counted(app)["POST", "/api/toys", "499"] == 1


class TestMetrics:
    async def test_labels_are_bounded_whatever_is_asked_for(self, play, runtime):
        app = toy_app(runtime)
        ada = await play.caller(app=app)
        for number in range(50):
            await ada.http.get(f"/random/{number}")
            await ada.http.request(f"VERB{number}", "/api/toys")
            await ada.http.get(f"/api/toys/count/t{number}")
        counted = routes_counted(app)
        assert counted["GET", "unmatched", "404"] == 50
        assert counted["GET", "/api/toys/count/{name}", "200"] == 50
        assert {method for method, _, _ in counted} == {"GET", "OTHER"}
        assert len(counted) <= 4

    async def test_metrics_need_a_credential_when_they_are_not_public(self, play, runtime):
        app = toy_app(runtime, metrics_public=False)
        anyone = await play.client(app=app)
        assert (await anyone.get("/metrics")).status_code == 401
        viewer = await play.caller(Role.VIEWER, app=app)
        assert (await viewer.http.get("/metrics")).status_code == 200
        scoped = await play.caller(app=app, scopes=("models:read",))
        assert (await scoped.http.get("/metrics")).status_code == 403


class TestHotRoutes:
    async def test_they_have_the_same_guards_as_any_other(self, play, ada):
        anyone = await play.client()
        assert (await anyone.post("/api/hot", content=b"x")).status_code == 401
        viewer = await play.caller(Role.VIEWER)
        assert (await viewer.http.post("/api/hot", content=b"x")).status_code == 403
        assert (await viewer.http.get("/api/hot/bear")).text == "bear"
        assert (await viewer.http.get("/api/hot/bear/")).text == "bear"
        rebound = await ada.http.post("/api/hot", content=b"x", headers={"Host": "evil.test"})
        assert rebound.status_code == 403
        too_much = await ada.http.post("/api/hot", content=b"x" * 101)
        assert too_much.status_code == 413
        assert too_much.headers["content-type"] == "application/problem+json"

    async def test_half_a_body_does_not_pass_for_a_whole_one(self, ada, runtime):
        app = toy_app(runtime)
        status, _, _ = await asgi_call(app, method="POST", path="/api/hot", headers=known(ada), body=[b"half", b""])
        assert status == 200
        messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            raise AssertionError(message)

        scope = {"type": "http", "method": "POST", "path": "/api/hot", "query_string": b"", "headers": known(ada)}
        await app(scope, receive, send)
        assert routes_counted(app)["POST", "/api/hot", "499"] == 1

    async def test_a_parameter_does_not_reach_over_a_slash(self, ada):
        assert (await ada.http.get("/api/hot/a/b")).status_code == 404


class TestSecurityHeaders:
    async def test_every_answer_has_them(self, ada, play):
        anyone = await play.client()
        answers = [
            await ada.http.get("/api/toys"),
            await anyone.get("/api/toys"),
            await anyone.get("/docs"),
            await ada.http.get("/x"),
        ]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "cache-control" in answer.headers
            assert "server" not in answer.headers
