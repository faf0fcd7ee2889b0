"""What a server of MLflow answers is read page by page, repeated when it is overloaded, and never trusted with a key."""

import asyncio
import gzip
from base64 import b64encode

import pytest

from mlops_platform.sdk.errors import NotFound, PlatformUnreachable, UnexpectedAnswer
from mlops_platform.sdk.mlflow import rest
from mlops_platform.sdk.mlflow.rest import RestStore
from mlops_platform.sdk.transfer import Unreadable
from tests.sdk.server import Reply, fake_service

RUN = {"info": {"run_id": "r1", "experiment_id": "7", "start_time": 5, "artifact_uri": "mlflow-artifacts:/7/r1/artifacts"}}


@pytest.fixture
def reading(settings_for):
    """A store over a small server, which is closed at the end."""
    opened = []

    def read(service, authorization=None, **changes):
        store = RestStore(service.url + "/", settings_for(service.url, **changes), authorization)
        opened.append(store)
        return store

    yield read
    for store in opened:
        store.close()


def test_pages_are_followed_to_their_end(reading):
    def answer(request):
        token = request.json.get("page_token")
        return Reply(body={"runs": [RUN], "next_page_token": "2"} if token is None else {"runs": [RUN]})

    with fake_service(answer) as service:
        assert len(list(reading(service).runs("7"))) == 2
        assert [request.json["order_by"] for request in service.seen] == [["attributes.start_time ASC"]] * 2


def test_an_overloaded_server_is_asked_again(reading):
    replies = [
        Reply(503, body={"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}),
        Reply(body={"experiments": [{}]}),
    ]

    def answer(_):
        return replies.pop(0)

    with fake_service(answer) as service:
        assert list(reading(service).experiments()) == [{}]


def test_its_own_sentence_is_the_error(reading):
    def answer(_):
        return Reply(404, body={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such experiment, says MLflow"})

    with fake_service(answer) as service:
        with pytest.raises(NotFound, match="says MLflow"):
            list(reading(service).experiments())
        assert reading(service).started("7", "r1") is None
        assert list(reading(service).models("7")) == []


def test_what_is_no_json_is_no_server_of_mlflow(reading):
    with fake_service(lambda _: Reply(body=b"<html>")) as service, pytest.raises(UnexpectedAnswer):
        list(reading(service).experiments())


def test_no_key_of_the_platform_is_sent_to_it(reading):
    with fake_service(lambda _: Reply(body={})) as service:
        list(reading(service).experiments())
        list(reading(service, "Bearer theirs").experiments())
        sent = [request.headers.get("Authorization") for request in service.seen]
    assert sent == [None, "Bearer theirs"]


def test_nobody_answers(settings_for):
    store = RestStore("http://127.0.0.1:1", settings_for("http://127.0.0.1:1", retries=1), None)
    with pytest.raises(PlatformUnreachable):
        list(store.experiments())
    store.close()


def test_a_password_in_the_address_is_used_and_never_shown(reading, settings_for, caplog):
    caplog.set_level("DEBUG")
    with fake_service(lambda _: Reply(body={})) as service:
        with_password = service.url.replace("://", "://bob:s3%20cret@")
        store = RestStore(with_password, settings_for(service.url, retries=1), None)
        list(store.experiments())
        assert service.seen[0].headers["Authorization"] == f"Basic {b64encode(b'bob:s3 cret').decode()}"
    store.close()
    away = RestStore("http://bob:s3%20cret@127.0.0.1:1", settings_for("http://127.0.0.1:1", retries=1), None)
    with pytest.raises(PlatformUnreachable, match=r"Nothing answers at http://127\.0\.0\.1:1:") as caught:
        list(away.experiments())
    away.close()
    assert "cret" not in str(caught.value) + caplog.text


LISTED = {"files": [{"path": "a.bin", "is_dir": False, "file_size": 3}, {"path": "b.bin", "is_dir": False, "file_size": 1}]}
PACKED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(body=b"abcd"), "more than the 3 bytes"),
        (Reply(body=gzip.compress(b"0" * 10_000_000), headers=PACKED), "more than the 3 bytes"),
        (Reply(body=b"ab"), "holds 2 bytes"),
        (Reply(body=b"no gzip", headers=PACKED), "cannot be unpacked"),
    ],
)
def test_a_file_that_is_not_as_it_was_listed_is_refused(reading, reply, said):
    with fake_service(lambda seen: Reply(body=LISTED) if "/artifacts/list" in seen.path else reply) as service:
        file = next(iter(reading(service).files(RUN)))
        with pytest.raises(Unreadable, match=said):
            file.open()
        assert service.seen[-1].headers["Accept-Encoding"] == "identity"


def test_a_file_of_no_listed_size_has_a_bound_too(reading, monkeypatch):
    monkeypatch.setattr(rest, "MOST_UNLISTED", 3)
    listed = {"files": [{"path": "a.bin", "is_dir": False}]}
    content = [b"abc"]
    with fake_service(lambda seen: Reply(body=listed if "/list" in seen.path else content[0])) as service:
        file = next(iter(reading(service).files(RUN)))
        with file.open() as opened:
            assert opened.read() == b"abc"
        content[0] = b"abcd"
        with pytest.raises(Unreadable, match="more than the 3 bytes"):
            file.open()


async def test_a_file_that_cannot_be_read_is_left_out_and_the_rest_comes_in(connect):
    run = {"info": {**RUN["info"], "status": "FINISHED", "end_time": 6}, "data": {}}

    def answer(seen):
        if "/experiments/search" in seen.path:
            return Reply(body={"experiments": [{"experiment_id": "7", "name": "odd files", "creation_time": 5}]})
        if "/runs/search" in seen.path:
            return Reply(body={"runs": [run]})
        if "/logged-models/search" in seen.path:
            return Reply(body={})
        if "/artifacts/list" in seen.path:
            return Reply(body=LISTED)
        return Reply(body=b"no gzip", headers=PACKED) if seen.path.endswith("a.bin") else Reply(body=b"b")

    with fake_service(answer) as service:
        (report,) = await asyncio.to_thread(connect().tracking.import_mlflow, service.url)
    assert (report.created, report.files) == (1, 1)
    (said,) = report.left_out
    assert "'a.bin'" in said
    assert "cannot be unpacked" in said


def test_a_tree_of_files_is_walked_once_however_it_names_itself(reading):
    def answer(request):
        if "/artifacts/list" in request.path:
            folder, name = {"path": "a", "is_dir": True}, "a" if "path=a" in request.path else "top"
            return Reply(body={"files": [folder, {"path": f"{name}.txt", "is_dir": False, "file_size": 3}]})
        return Reply(body=b"abc")

    with fake_service(answer) as service:
        files = list(reading(service).files(RUN))
        assert [file.path for file in files] == ["top.txt", "a.txt"]
        with files[0].open() as content:
            assert content.read() == b"abc"
        assert service.seen[-1].path == "/api/2.0/mlflow-artifacts/artifacts/7/r1/artifacts/top.txt"
        elsewhere = {"info": {**RUN["info"], "artifact_uri": "s3://bucket/7/r1/artifacts"}}
        with next(iter(reading(service).files(elsewhere))).open() as content:
            assert content.read() == b"abc"
        assert service.seen[-1].path.startswith("/get-artifact?run_id=r1&path=")
