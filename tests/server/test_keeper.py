import asyncio

from mlops_platform.server import keeper
from tests.factories.waiting import until


class TestKeeping:
    async def test_a_machine_that_cannot_start_a_process_now_is_asked_again(self, runtime, monkeypatch):
        """Short of memory or processes for a moment: the worker must not be missing until the next restart."""
        tried = []
        start = asyncio.create_subprocess_exec

        async def exhausted_at_first(*command, **options):
            tried.append(command)
            if len(tried) < 3:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return await start("sleep", "60", **{**options, "env": None})

        monkeypatch.setattr(asyncio, "create_subprocess_exec", exhausted_at_first)
        monkeypatch.setattr(keeper, "_RESTART_SECONDS", 0.01)
        async with keeper.beside(runtime, "postgresql://nowhere/"):
            await until(lambda: len(tried) == 3)
        assert len(tried) == 3
