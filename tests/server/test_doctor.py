"""Something else holds a port: the very moment for which there is a doctor."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mlops_platform.server import doctor
from mlops_platform.server.catalog import CATALOG


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[int]:
    """A server of somebody else's, on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


FOREIGN = [b"[]", b"{}", b'"ready"', b'{"dependencies": []}', b'{"time": 5}', b'{"time": "2026-01-01"}', b"<html>", b"\xff"]


class TestForeignServer:
    @pytest.mark.parametrize("status", [200, 404, 503])
    @pytest.mark.parametrize("body", FOREIGN)
    def test_it_is_told_apart_from_a_service_of_ours(self, settings, body, status):
        with answering(body, status) as port:
            theirs = settings.model_copy(update={"model_registry_port": port})
            finding = doctor._port(theirs, CATALOG[0])
            assert finding.is_wrong
            assert "is not this service" in finding.found
            assert "no service to compare with" in doctor._clock(theirs).found

    @pytest.mark.parametrize("body", FOREIGN)
    def test_its_answer_does_not_make_the_key_work(self, settings, body, tmp_path):
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "api_key").write_text("mlops_user_x_y\n")
        with answering(body) as port:
            theirs = settings.model_copy(update={"model_registry_port": port, "home": tmp_path})
            assert "no service to try it on" in doctor._key(theirs).found
