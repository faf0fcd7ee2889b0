"""An import that broke off anywhere is completed by doing it again, and nothing is there twice."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from mlops_platform.sdk import AsyncPlatform
from mlops_platform.sdk.errors import PlatformUnreachable
from mlops_platform.sdk.settings import URL_VARIABLES, ClientSettings, Service
from mlops_platform.tracking.tasks import remove_for_ever
from tests.conftest import Caller
from tests.conftest import Platform as RunningPlatform
from tests.factories.archives import a_full_experiment
from tests.factories.serving import serving

SERVICE = "experiment-tracking"
SOURCE = Path(__file__).parents[2] / "src"


class Flaky(httpx2.AsyncBaseTransport):
    """Carries requests out, and loses some of the answers; or is away."""

    def __init__(self, app, loses):
        self._inner = httpx2.ASGITransport(app=app)
        self._loses = loses
        self.count = 0

    async def handle_async_request(self, request):
        self.count += 1
        response = await self._inner.handle_async_request(request)
        if self._loses(self.count):
            await response.aclose()
            raise httpx2.ReadError("the connection broke", request=request)
        return response


class Refusing(httpx2.ASGITransport):
    """Never takes files of one name."""

    def __init__(self, app, name):
        super().__init__(app)
        self._name = name

    async def handle_async_request(self, request):
        if request.method == "PUT" and request.url.path.endswith(self._name):
            problem = {
                "type": "about:blank",
                "title": "t",
                "status": 413,
                "code": "too_large",
                "detail": "It is too large.",
            }
            return httpx2.Response(413, json=problem)
        return await super().handle_async_request(request)


@pytest.fixture
async def ada(platform: RunningPlatform) -> Caller:
    return await platform.caller(SERVICE)


@pytest.fixture
def through(apps, ada, tmp_path):
    def make(loses, **changes):
        transport = Flaky(apps[SERVICE], loses)
        urls = dict.fromkeys(Service, "http://localhost:8003")
        settings = ClientSettings(urls=urls, credential=ada.key, home=tmp_path, **changes)
        return transport, AsyncPlatform(settings=settings, transport=transport)

    return make


@pytest.fixture
async def archive(through, ada, platform, tmp_path):
    """An experiment that is in a file and nowhere else, and its contents."""
    experiment_id, _ = await a_full_experiment(ada)
    path = f"/api/experiments/{experiment_id}/runs"
    for number in range(60):
        run_id = (await ada.http.post(path, json={"run_name": f"small {number}"})).json()["id"]
        await ada.http.post(f"/api/runs/{run_id}/metrics", json=[{"loss": n, "step": n} for n in range(20)])
        await ada.http.put(f"/api/runs/{run_id}/artifacts/number.txt", content=str(number).encode())
    _, sdk = through(lambda _: False)
    async with sdk:
        file = await sdk.tracking.export_experiment(experiment_id, tmp_path / "whole.zip")
        await sdk.tracking.purge_experiment(experiment_id, confirm="vision/cats")
    await remove_for_ever(platform.runtime, None)
    return experiment_id, file


async def check(through, archive, tmp_path):
    """All of it is there, once."""
    experiment_id, file = archive
    _, sdk = through(lambda _: False)
    async with sdk:
        again = await sdk.tracking.import_experiment(file)
        assert (again.is_whole, again.created, again.points, again.files) == (True, 0, 0, 0)
        back = await sdk.tracking.export_experiment(experiment_id, tmp_path / "back.zip")
    # The keys of metrics are numbered by their arrival, which is the order of points within a run.
    sizes = back.stat().st_size, file.stat().st_size
    assert abs(sizes[0] - sizes[1]) < 2000
    assert (await counted(sdk, through, experiment_id)) == (61, 60 * 20 + 107)


async def counted(_, through, experiment_id):
    __, sdk = through(lambda _: False)
    async with sdk:
        experiment = await sdk.tracking.experiment(experiment_id)
        points = 0
        async for run in sdk.tracking.search(experiments=[experiment_id]):
            points += sum(metric.count for metric in await sdk.tracking.metrics(run.id))
        return experiment.run_count - 1, points


async def test_answers_that_are_lost_on_the_way_do_no_harm(through, archive, tmp_path):
    _, sdk = through(lambda count: count % 3 == 0, retries=6)
    async with sdk:
        report = await sdk.tracking.import_experiment(archive[1])
    assert report.is_whole
    await check(through, archive, tmp_path)


@pytest.mark.parametrize("after", [1, 4, 12, 60])
async def test_a_server_that_goes_away_in_the_middle_is_gone_on_with(through, archive, tmp_path, after):
    _, sdk = through(lambda count: count > after, retries=1)
    async with sdk:
        with pytest.raises(PlatformUnreachable):
            await sdk.tracking.import_experiment(archive[1])
    _, sdk = through(lambda _: False)
    async with sdk:
        assert (await sdk.tracking.import_experiment(archive[1])).is_whole
    await check(through, archive, tmp_path)


async def test_a_file_that_is_refused_for_good_holds_up_no_other_run(through, archive, ada, apps, tmp_path):
    _, sdk = through(lambda _: False)
    async with AsyncPlatform(settings=sdk.settings, transport=Refusing(apps[SERVICE], "/model.bin")) as refused:
        report = await refused.tracking.import_experiment(archive[1])
        again = await refused.tracking.import_experiment(archive[1])
    file, run = report.left_out
    assert "'a/model.bin': It is too large." in file
    assert "import_incomplete" in run
    assert (report.created, report.files, report.conflicts) == (64, 63, [])
    # The one run is all that has yet to come.
    assert (again.created, again.unchanged, again.files, len(again.left_out)) == (1, 63, 0, 2)
    async with sdk:
        assert (await sdk.tracking.import_experiment(archive[1])).is_whole
    await check(through, archive, tmp_path)


async def test_a_killed_import_is_completed_by_the_next(through, archive, ada, apps, tmp_path):
    experiment_id, file = archive
    async with serving({SERVICE: apps[SERVICE]}) as urls:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "MLOPS_HOME": str(tmp_path)}
        environment |= {"MLOPS_API_KEY": ada.key, URL_VARIABLES[Service.TRACKING]: urls["tracking"]}
        command = [sys.executable, "-m", "mlops_platform.cli", "experiment", "import", str(file), "-o", "json"]
        process = await asyncio.to_thread(subprocess.Popen, command, env=environment, stdout=subprocess.DEVNULL)
        while True:
            found = await ada.http.get(f"/api/experiments/{experiment_id}")
            if found.status_code == 200 and found.json()["run_count"] > 0:
                break
            assert process.poll() is None
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        done = await asyncio.to_thread(subprocess.run, command, env=environment, check=True, capture_output=True)
        assert b'"whole": true' in done.stdout
    await check(through, archive, tmp_path)


async def test_two_imports_at_once_bring_each_thing_once(through, archive, tmp_path):
    clients = [through(lambda _: False)[1] for _ in range(2)]
    async with clients[0], clients[1]:
        reports = await asyncio.gather(*(sdk.tracking.import_experiment(archive[1]) for sdk in clients))
    assert [report.is_whole for report in reports] == [True, True]
    await check(through, archive, tmp_path)
