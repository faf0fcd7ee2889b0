import asyncio

from tests.factories.sample_service import client_of, toy_app
from tests.factories.waiting import until


class TestReady:
    async def test_a_crowd_of_probes_asks_the_dependencies_once(self, runtime):
        """Nobody needs a credential for it, and no probe is shed: it must not take the connections of those who work."""
        app, gate, asked = toy_app(runtime), asyncio.Event(), []

        async def check():
            asked.append(1)
            await gate.wait()

        app.fastapi.state.checks["toy box"] = check
        async with client_of(app) as client:
            probes = [asyncio.create_task(client.get("/ready")) for _ in range(100)]
            await until(lambda: asked)
            await asyncio.sleep(0.05)
            gate.set()
            answers = await asyncio.gather(*probes)
            assert {answer.status_code for answer in answers} == {200}
            assert len(asked) == 1
            await client.get("/ready")
        assert len(asked) == 2

    async def test_a_probe_that_hangs_up_does_not_end_the_others(self, runtime):
        app, gate = toy_app(runtime), asyncio.Event()
        app.fastapi.state.checks["toy box"] = gate.wait
        async with client_of(app) as client:
            first, second = (asyncio.create_task(client.get("/ready")) for _ in range(2))
            await until(lambda: app.edge._in_flight == 2)
            first.cancel()
            gate.set()
            assert (await second).status_code == 200
