"""An upload in parts against a server that is killed, and a disk that is full: it goes on, and nothing is half there."""

import hashlib
import os
import resource
import signal
import threading

import httpx2
import pytest

from mlops_platform.sdk.settings import Service
from tests.factories.running import RunningPlatform, eventually, free_ports, platform_home, running

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

MIB = 1024 * 1024
CONTENT = os.urandom(12 * MIB)
PART = 3 * MIB
RECOVERY_SECONDS = 10


def caller(platform: RunningPlatform) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {platform.key()}"}
    return httpx2.Client(base_url=platform.url(Service.TRACKING), headers=headers, timeout=60)


def begin(http: httpx2.Client, run_id: str) -> tuple[str, list[int]]:
    body = {"path": "a.bin", "sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT), "part_bytes": PART}
    answer = http.post(f"/api/runs/{run_id}/artifact-uploads", json=body)
    assert answer.status_code in {200, 201}, answer.text
    upload = answer.json()
    return f"/api/runs/{run_id}/artifact-uploads/{upload['id']}", [part["number"] for part in upload["received"]]


def send(http: httpx2.Client, upload: str, number: int) -> httpx2.Response:
    part = CONTENT[(number - 1) * PART : number * PART]
    headers = {"X-Checksum-SHA256": hashlib.sha256(part).hexdigest()}
    return http.put(f"{upload}/parts/{number}", content=part, headers=headers)


def a_run(http: httpx2.Client) -> str:
    experiment = http.post("/api/experiments", json={"name": "uploads"}).json()
    made = http.post(f"/api/experiments/{experiment['id']}/runs", json={})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def test_an_upload_goes_on_with_what_was_acknowledged_after_the_server_was_killed_in_a_part():
    with platform_home() as home:
        ports = free_ports()
        with running(home, ports) as platform, caller(platform) as http:
            run_id = a_run(http)
            upload, _ = begin(http, run_id)
            assert send(http, upload, 2).status_code == 200
            is_under_way, may_go_on = threading.Event(), threading.Event()

            def half():
                yield CONTENT[:MIB]
                is_under_way.set()
                may_go_on.wait(30)
                yield CONTENT[MIB:PART]

            def send_first():
                headers = {"X-Checksum-SHA256": hashlib.sha256(CONTENT[:PART]).hexdigest()}
                try:
                    http.put(f"{upload}/parts/1", content=half(), headers=headers)
                except httpx2.HTTPError:
                    refused.append(True)

            refused: list[bool] = []
            sending = threading.Thread(target=send_first)
            sending.start()
            assert is_under_way.wait(30)
            platform.stop(signal.SIGKILL)
            may_go_on.set()
            sending.join(60)
            assert refused
        with running(home, ports) as after, caller(after) as http:
            again, received = begin(http, run_id)
            assert (again, received) == (upload, [2])
            assert http.get(f"/api/runs/{run_id}/artifacts/a.bin").status_code == 404
            for number in (1, 3, 4):
                assert send(http, upload, number).status_code == 200
            assert http.post(f"{upload}/finish").status_code == 200
            assert http.get(f"/api/runs/{run_id}/artifacts/a.bin").content == CONTENT


def test_on_a_full_disk_an_upload_is_refused_others_go_on_and_it_finishes_when_there_is_room():
    with platform_home() as home, running(home) as platform, caller(platform) as http:
        run_id = a_run(http)
        upload, _ = begin(http, run_id)
        for number in (1, 2, 3, 4):
            assert send(http, upload, number).status_code == 200
        # What the server's user would meet on a full disk or under a quota, for its own process alone.
        resource.prlimit(platform.process.pid, resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
        for refused in (
            http.post(f"{upload}/finish"),
            http.put(f"/api/runs/{run_id}/artifacts/b.bin", content=os.urandom(8 * MIB)),
        ):
            assert (refused.status_code, refused.json()["code"]) == (507, "storage_full"), refused.text
        assert http.get(f"/api/runs/{run_id}/artifacts").json()["items"] == []
        assert list((home / "blobs" / "incoming").iterdir()) == []
        assert http.post(f"/api/runs/{run_id}/metrics", json={"loss": 0.5}).status_code == 200
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(platform.process.pid, resource.RLIMIT_FSIZE, unlimited)
        eventually(lambda: http.post(f"{upload}/finish").status_code == 200, seconds=RECOVERY_SECONDS, what="room")
        assert http.get(f"/api/runs/{run_id}/artifacts/a.bin").content == CONTENT
