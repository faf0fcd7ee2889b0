"""Requests over a real connection: retries, errors, credentials."""

import os
import socket
import threading
import time

import httpx2
import pytest

from mlops_platform.sdk import AsyncPlatform, Platform
from mlops_platform.sdk.errors import (
    ApiError,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PlatformUnreachable,
    RequestTimedOut,
    ServerError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthenticated,
    UnexpectedAnswer,
)
from mlops_platform.sdk.wire import NotSerialisable
from tests.sdk.server import Reply, fake_service, problem

EXPERIMENT = {
    "id": "0" * 32,
    "name": "e",
    "tags": {},
    "runs": {},
    "run_count": 0,
    "created_by": "ada",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}


def in_turn(*replies):
    """Answer with each in turn, and with the last for ever."""
    left = list(replies)
    return lambda seen: left.pop(0) if len(left) > 1 else left[0]


class TestRetries:
    def test_503_and_then_a_success_is_a_success(self, connected):
        with connected(in_turn(problem(503, headers={"Retry-After": "0"}), Reply(201, EXPERIMENT))) as (service, platform):
            assert platform.tracking.create_experiment("e").name == "e"
            assert len(service.seen) == 2

    def test_every_attempt_of_one_post_carries_the_same_idempotency_key(self, connected):
        with connected(in_turn(problem(503), problem(429), Reply(201, EXPERIMENT))) as (service, platform):
            platform.tracking.create_experiment("e")
            platform.tracking.create_experiment("e")
            keys = [seen.headers["Idempotency-Key"] for seen in service.seen]
            assert keys[0] == keys[1] == keys[2] != keys[3]

    def test_a_connection_that_breaks_within_the_answer_is_tried_again(self, connected):
        with connected(in_turn(Reply(201, EXPERIMENT, cut_after=9), Reply(201, EXPERIMENT))) as (service, platform):
            assert platform.tracking.create_experiment("e").name == "e"
            assert len(service.seen) == 2

    def test_retry_after_is_waited_for(self, connected):
        with connected(in_turn(problem(429, headers={"Retry-After": "0.4"}), Reply(201, EXPERIMENT))) as (
            _service,
            platform,
        ):
            start = time.monotonic()
            platform.tracking.create_experiment("e")
            assert time.monotonic() - start >= 0.4

    def test_it_gives_up_with_the_typed_error(self, connected):
        with connected(in_turn(problem(503, "dependency_unavailable")), retries=2) as (service, platform):
            with pytest.raises(ServiceUnavailable) as caught:
                platform.tracking.create_experiment("e")
            assert caught.value.code == "dependency_unavailable"
            assert len(service.seen) == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500])
    def test_what_is_final_is_asked_once(self, connected, status):
        with connected(in_turn(problem(status))) as (service, platform):
            with pytest.raises(ApiError, match="It is so"):
                platform.tracking.create_experiment("e")
            assert len(service.seen) == 1

    def test_a_conflict_with_a_time_to_come_back_is_tried_again(self, connected):
        busy = problem(409, "idempotency_key_in_use", headers={"Retry-After": "0"})
        with connected(in_turn(busy, Reply(201, EXPERIMENT))) as (_, platform):
            assert platform.tracking.create_experiment("e").name == "e"


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, InvalidRequest),
            (401, Unauthenticated),
            (403, PermissionDenied),
            (404, NotFound),
            (409, Conflict),
            (413, InvalidRequest),
            (422, InvalidRequest),
            (429, TooManyRequests),
            (500, ServerError),
        ],
    )
    def test_each_status_has_its_type(self, connected, status, kind):
        with connected(in_turn(problem(status)), retries=1) as (_, platform), pytest.raises(kind):
            platform.tracking.get_run("a")

    def test_code_request_id_hint_and_fields_arrive(self, connected):
        fields = [{"field": "name", "message": "is too long", "value": "xxx"}]
        reply = problem(422, "invalid_input", request_id="r-1", hint="Shorten it.", errors=fields)
        with connected(in_turn(reply)) as (_, platform), pytest.raises(InvalidRequest) as caught:
            platform.tracking.create_experiment("xxx")
        error = caught.value
        assert (error.status, error.code, error.request_id, error.hint) == (422, "invalid_input", "r-1", "Shorten it.")
        assert error.errors[0].field == "name"
        assert "name: is too long" in str(error)
        assert "Shorten it." in str(error)

    def test_an_answer_that_is_no_problem_document_still_has_a_type_and_the_address(self, connected):
        with (
            connected(in_turn(Reply(500, b"<html>proxy</html>", content_type="text/html"))) as (service, platform),
            pytest.raises(ServerError, match=service.url),
        ):
            platform.tracking.get_run("a")

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(200, b"<html>welcome</html>", content_type="text/html"),
            Reply(200, {"items": "none"}),
            Reply(200, b"", content_type="text/plain"),
        ],
    )
    def test_a_success_of_something_else_has_a_type_and_the_address(self, connected, reply):
        with connected(lambda seen: reply) as (service, platform):
            with pytest.raises(UnexpectedAnswer, match=service.url):
                list(platform.registry.models())
            with pytest.raises(UnexpectedAnswer, match="metrics"):
                platform.tracking.metrics("1" * 32)

    def test_an_answer_that_cannot_be_unpacked_has_a_type(self, connected):
        torn = Reply(200, b"not gzip", {"Content-Encoding": "gzip"})
        with connected(lambda seen: torn) as (_, platform), pytest.raises(PlatformUnreachable):
            platform.registry.get_model("m")

    def test_what_json_cannot_carry_has_a_type(self, connected):
        with connected(lambda seen: Reply()) as (service, platform):
            with pytest.raises(NotSerialisable, match="object"):
                platform.registry.create_version("m", params={"x": object()})
            assert service.seen == []

    def test_when_nothing_listens_the_error_says_how_to_start_it(self, settings_for):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with (
                Platform(settings=settings_for(url, retries=1)) as platform,
                pytest.raises(PlatformUnreachable, match=r"Nothing answers at .*mlops up"),
            ):
                platform.tracking.get_run("a")

    def test_a_server_that_never_answers_is_a_timeout(self, connected):
        release = threading.Event()

        def hang(seen):
            release.wait(5)
            return Reply()

        with connected(hang, timeout_seconds=0.2, retries=1) as (_, platform):
            with pytest.raises(RequestTimedOut, match="MLOPS_TIMEOUT_SECONDS"):
                platform.tracking.get_run("a")
            release.set()


class TestCredentials:
    def test_the_key_and_the_project_are_sent(self, connected):
        with connected(in_turn(Reply(201, EXPERIMENT)), project="fraud") as (service, platform):
            platform.tracking.create_experiment("e")
        assert service.seen[0].headers["Authorization"] == "Bearer mlops_user_test"
        assert service.seen[0].headers["X-MLOps-Project"] == "fraud"

    def test_a_redirect_is_not_followed_with_the_key(self, connected):
        with fake_service() as elsewhere:
            moved = Reply(307, {}, {"Location": elsewhere.url})
            with connected(in_turn(moved)) as (_, platform), pytest.raises(ApiError, match="307"):
                platform.tracking.get_run("a")
            assert elsewhere.seen == []

    def test_without_a_key_401_says_where_one_is_looked_for(self, connected):
        with (
            connected(in_turn(problem(401)), credential=None) as (_, platform),
            pytest.raises(Unauthenticated, match="MLOPS_API_KEY"),
        ):
            platform.tracking.get_run("a")


class TestConnections:
    def test_requests_share_one_connection(self, connected):
        with connected(in_turn(Reply(201, EXPERIMENT))) as (service, platform):
            for _ in range(5):
                platform.tracking.create_experiment("e")
            assert len(service.connections) == 1

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_talks_over_its_own_connection(self, connected):
        with connected(in_turn(Reply(201, EXPERIMENT))) as (service, platform):
            platform.tracking.create_experiment("e")
            child = os.fork()
            if child == 0:
                try:
                    platform.tracking.create_experiment("e")
                    os._exit(0)
                except BaseException:  # noqa: BLE001  # a child of a test must not go on as the test
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            platform.tracking.create_experiment("e")
            assert len(service.seen) == 3
            assert len(service.connections) == 2

    async def test_a_transport_can_stand_in_for_the_network(self, settings_for):
        def handle(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(201, json=EXPERIMENT | {"name": request.url.host})

        settings = settings_for("http://nowhere.test")
        async with AsyncPlatform(settings=settings, transport=httpx2.MockTransport(handle)) as platform:
            assert (await platform.tracking.create_experiment("e")).name == "nowhere.test"

    def test_pages_are_fetched_as_they_are_consumed(self, connected):
        def page(seen):
            if "page_token=two" in seen.path:
                return Reply(200, {"items": [EXPERIMENT], "next_page_token": None})
            return Reply(200, {"items": [EXPERIMENT, EXPERIMENT], "next_page_token": "two"})

        with connected(page) as (service, platform):
            found = platform.tracking.experiments()
            next(found)
            assert len(service.seen) == 1
            assert sum(1 for _ in found) == 2
            assert len(service.seen) == 2
