import pytest

from mlops_platform.core.errors import ForbiddenOrigin, MalformedRequest
from mlops_platform.core.http.guard import UNGUARDED_PATHS, HostGuard, fields_of
from tests.factories.sample_service import asgi_call, toy_app


def is_allowed(settings, *headers, method="GET", path="/api/toys"):
    try:
        sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        HostGuard(settings).check(method, path, fields_of(sent))
    except (ForbiddenOrigin, MalformedRequest):
        return False
    return True


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8003",
            "[::1]",
            "[::1]:8000",
            "localhost.",
            "localhost.:80",
            "model-registry:8000",
            "ab-testing-service.mlops-platform.svc.cluster.local",
            "host.docker.internal:8000",
            "127.0.0.1",
            *("feature-store", "experiment-tracking", "pipeline-orchestrator", "ab-testing"),
            *("console:8080", "prometheus:9090", "grafana:3000", "alertmanager:9093"),
            "feature-store-service",
            "model-registry-service.mlops-platform:8000",
        ],
    )
    def test_loopback_and_the_platforms_own_names_pass(self, settings, host):
        assert is_allowed(settings, ("host", host))

    @pytest.mark.parametrize(
        "host",
        [
            "evil.test",
            "evil.test:8000",
            "localhost.evil.test",
            "evil-localhost",
            "127.0.0.1.evil.test",
            "127.0.0.2",
            "[::1].evil.test",
            "[::1]evil",
            "[::1]8000",
            "[::1]:80x",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "localhost:80:80",
            "localhost:evil",
            "localhost:\xb2",
            "user@localhost",
            "localhost@evil.test",
            "localhost/evil.test",
            "localhost,evil.test",
            "localhost evil.test",
            "",
            " ",
        ],
    )
    def test_a_rebound_name_or_a_malformed_one_does_not(self, settings, host):
        assert not is_allowed(settings, ("host", host))

    def test_none_at_all_does_not(self, settings):
        assert not is_allowed(settings)

    def test_two_do_not_even_when_both_are_fine(self, settings):
        assert not is_allowed(settings, ("host", "localhost"), ("host", "localhost"))

    def test_the_operators_own_names_pass(self, settings):
        own = settings.model_copy(update={"allowed_hosts": ("mlops.acme.test",)})
        assert is_allowed(own, ("host", "MLOPS.acme.test:443"))
        assert not is_allowed(own, ("host", "x.mlops.acme.test"))

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104  # compared, not bound
    def test_binding_to_every_address_allows_no_host_of_that_name(self, settings, host):
        own = settings.model_copy(update={"host": host})
        assert not is_allowed(own, ("host", host))
        assert not is_allowed(own, ("host", f"[{host}]"))

    def test_the_address_that_is_bound_passes(self, settings):
        assert not is_allowed(settings, ("host", "192.0.2.7:8000"))
        assert is_allowed(settings.model_copy(update={"host": "192.0.2.7"}), ("host", "192.0.2.7:8000"))

    def test_what_is_remembered_of_hosts_is_bounded(self, settings):
        guard = HostGuard(settings)
        for port in range(1, 1500):
            guard.check("GET", "/", {b"host": f"localhost:{port}".encode()})
        assert len(guard._passed) == 1000

    def test_a_name_that_passed_once_is_not_confused_with_another(self, settings):
        guard = HostGuard(settings)
        guard.check("GET", "/", {b"host": b"localhost"})
        with pytest.raises(ForbiddenOrigin):
            guard.check("GET", "/", {b"host": b"evil.test"})


class TestOrigin:
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "http://evil.test",
            "https://localhost.evil.test",
            "file://",
            "chrome-extension://x",
            "",
            "http://",
            "http://[::1].evil",
            "x",
        ],
    )
    def test_a_foreign_page_is_refused_on_every_method(self, settings, method, origin):
        assert not is_allowed(settings, ("host", "localhost"), ("origin", origin), method=method)

    @pytest.mark.parametrize(
        "origin", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:8000", "https://console"]
    )
    def test_the_platforms_own_pages_pass(self, settings, origin):
        assert is_allowed(settings, ("host", "localhost"), ("origin", origin), method="POST")

    def test_a_second_origin_is_refused(self, settings):
        for origins in (("http://localhost", "http://evil.test"), ("http://evil.test", "http://localhost")):
            assert not is_allowed(settings, ("host", "localhost"), *(("origin", origin) for origin in origins))

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_a_cross_site_change_is_refused_without_an_origin_too(self, settings, method):
        headers = [("host", "localhost"), ("sec-fetch-site", "cross-site")]
        assert not is_allowed(settings, *headers, method=method)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_a_cross_site_link_may_be_followed(self, settings, method):
        assert is_allowed(settings, ("host", "localhost"), ("sec-fetch-site", "cross-site"), method=method)


class TestOnThePort:
    @pytest.mark.parametrize("path", sorted(UNGUARDED_PATHS))
    async def test_probes_come_with_any_host(self, runtime, path):
        status, _, _ = await asgi_call(toy_app(runtime), path=path, headers=[(b"host", b"10.1.2.3:8000")])
        assert status == 200

    @pytest.mark.parametrize(
        "name",
        [
            *("host", "origin", "sec-fetch-site", "authorization", "x-api-key"),
            *("x-mlops-project", "x-mlflow-workspace", "x-mlops-on-behalf-of"),
        ],
    )
    async def test_a_header_that_decides_is_sent_once(self, runtime, ada, name):
        value = {"host": "localhost", "origin": "http://localhost", "authorization": f"Bearer {ada.key}"}.get(
            name, "same-origin"
        )
        headers = {b"host": b"localhost", b"authorization": f"Bearer {ada.key}".encode(), name.encode(): value.encode()}
        sent = [*headers.items(), (name.encode(), value.encode())]
        status, _, body = await asgi_call(toy_app(runtime), path="/api/toys", headers=sent)
        assert status == 400
        assert f"several {name} headers" in body.decode().lower()

    async def test_a_header_that_decides_nothing_may_come_again(self, runtime, ada):
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {ada.key}".encode()), *[(b"accept", b"*/*")] * 2]
        status, _, _ = await asgi_call(toy_app(runtime), path="/api/toys", headers=headers)
        assert status == 200

    @pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/version", "/api/toys", "/health/../api/toys"])
    async def test_nothing_else_does_whatever_the_credential(self, runtime, ada, path):
        headers = [(b"host", b"evil.test"), (b"authorization", f"Bearer {ada.key}".encode())]
        status, answer, body = await asgi_call(toy_app(runtime), path=path, headers=headers)
        assert status == 403
        assert answer["content-type"] == "application/problem+json"
        assert b"MLOPS_ALLOWED_HOSTS" in body
