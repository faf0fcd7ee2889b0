"""A canary of each kind of secret goes through every way into the log, and must not come out."""

import io
import json
import logging

import pytest
import structlog
from pydantic import SecretStr

from mlops_platform.core.auth.keys import make_key
from mlops_platform.core.auth.tokens import TokenClaims, sign_token
from mlops_platform.core.clock import SystemClock
from mlops_platform.core.identity import PrincipalKind, new_id
from mlops_platform.core.settings import LogFormat, load_settings
from mlops_platform.core.telemetry import logs

NOW = SystemClock().now()
KEY = make_key(PrincipalKind.USER)
TOKEN = sign_token(b"k" * 32, TokenClaims(new_id(), "p", NOW, NOW))
DSN_PASSWORD = "c4nary-dsn-p%40ss"
STORAGE_KEY = "c0ffee42" * 8
ROOT = "canary root of all the secrets of this process"
CANARIES = {
    "api key": KEY,
    "service key": make_key(PrincipalKind.SERVICE),
    "token": TOKEN,
    "bearer header": "Bearer Y2FuYXJ5LW9wYXF1ZS10b2tlbg",
    "basic header": "Basic Y2FuYXJ5OmNhbmFyeQ==",
    "dsn": f"postgresql://app:{DSN_PASSWORD}@db/m",
    "password": "c4nary-dsn-p@ss",
    "foreign dsn": "redis://user:c4nary-of-nobody@cache:6379/0",
    "storage key": STORAGE_KEY,
    "root": ROOT,
}
NEEDLES = [
    KEY,
    KEY.split("_")[2],
    CANARIES["service key"],
    TOKEN,
    TOKEN.split(".")[2],
    "Y2FuYXJ5",
    DSN_PASSWORD,
    "c4nary-dsn-p@ss",
    "c4nary-of-nobody",
    STORAGE_KEY,
    ROOT,
]


@pytest.fixture(params=[LogFormat.JSON, LogFormat.CONSOLE])
def written(request, settings):
    """What the process writes; the session's own logging is put back afterwards."""
    stream = io.StringIO()
    changed = load_settings(
        log_format=request.param,
        log_level="debug",
        api_secret_key=SecretStr(ROOT),
        storage_key=SecretStr(STORAGE_KEY),
        database_url=f"postgresql://app:{DSN_PASSWORD}@db/m",
    )
    logs.configure(changed, stream=stream)
    yield stream.getvalue
    logs.configure(settings)


class Thing:
    """Something that shows its secret when it is printed."""

    def __init__(self, secret):
        self.secret = secret

    def __repr__(self):
        return f"<Thing {self.secret}>"


def fail(secret):
    raise RuntimeError(f"cannot connect with {secret}")


WAYS = {
    "message": lambda log, secret: log.error(f"went wrong: {secret}"),  # noqa: G004  # the way that is tried
    "value": lambda log, secret: log.error("e", url=secret),
    "nested": lambda log, secret: log.error("e", request={"headers": [("x", secret)], "more": ({"deep": secret},)}),
    "object": lambda log, secret: log.error("e", thing=Thing(secret)),
    "object in a list": lambda log, secret: log.error("e", things=[Thing(secret)]),
    "bytes": lambda log, secret: log.error("e", raw=secret.encode()),
    "a set": lambda log, secret: log.error("e", raw={secret}),
    "context": lambda log, secret: structlog.contextvars.bound_contextvars(bound=secret).__enter__() or log.error("e"),
    "secret name": lambda log, secret: log.error("e", api_key=secret, Authorization=secret, password=secret.encode()),
}


class TestCanaries:
    @pytest.mark.parametrize("way", WAYS)
    def test_none_comes_out_of_a_structured_line(self, written, way):
        for secret in CANARIES.values():
            WAYS[way](structlog.get_logger("test"), secret)
            structlog.contextvars.clear_contextvars()
        assert written().count("\n") >= len(CANARIES)
        assert [needle for needle in NEEDLES if needle in written()] == []

    def test_none_comes_out_of_a_librarys_line(self, written):
        for secret in CANARIES.values():
            logging.getLogger("some.library").error("cannot reach %s (%r)", secret, Thing(secret))
            logging.getLogger("some.library").error("with extra", extra={"thing": secret})
        assert [needle for needle in NEEDLES if needle in written()] == []

    @pytest.mark.parametrize("as_library", [True, False])
    def test_none_comes_out_of_an_exception_or_its_causes(self, written, as_library):
        log = logging.getLogger("some.library") if as_library else structlog.get_logger("test")
        for secret in CANARIES.values():
            try:
                try:
                    fail(secret)
                except RuntimeError as error:
                    raise ValueError(Thing(secret)) from error
            except ValueError:
                log.exception("crashed")
        assert written().count("Traceback") >= len(CANARIES)
        assert [needle for needle in NEEDLES if needle in written()] == []


class TestLines:
    def test_json_is_one_object_a_line_and_keeps_what_is_no_secret(self, settings):
        stream = io.StringIO()
        logs.configure(settings.model_copy(update={"log_format": LogFormat.JSON, "log_level": "INFO"}), stream=stream)
        structlog.get_logger("test").info("access", path="/api/models", status=200, ratio=0.5, ok=True, nothing=None)
        logs.configure(settings)
        line = json.loads(stream.getvalue())
        assert (line["event"], line["path"], line["status"], line["ratio"], line["ok"]) == (
            "access",
            "/api/models",
            200,
            0.5,
            True,
        )
        assert line["nothing"] is None
        assert line["level"] == "info"

    def test_text_from_outside_cannot_write_a_line_or_a_colour_of_its_own(self, written):
        structlog.get_logger("test").info("access", path="/x\n2026-01-01 [error] forged\x1b[31m", name="\u202eevil")
        assert written().count("\n") == 1
        assert "\x1b[31m" not in written()
        assert "\u202e" not in written()

    def test_below_the_level_nothing_is_written(self, settings):
        stream = io.StringIO()
        logs.configure(settings.model_copy(update={"log_level": "ERROR"}), stream=stream)
        structlog.get_logger("test").warning("quiet")
        logging.getLogger("x").warning("quiet")
        logs.configure(settings)
        assert stream.getvalue() == ""
