"""A worker as a process of its own, for tests that kill and stop it. Arguments: a JSON object."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from mlops_platform.core.settings import load_settings
from mlops_platform.core.telemetry import logs
from mlops_platform.pipelines.tasks.worker import WorkerOptions, run_worker
from mlops_platform.server.runtime import open_runtime


async def main() -> None:
    given = json.loads(sys.argv[1])
    settings = load_settings(
        home=Path(given["home"]), api_secret_key=SecretStr(given["secret"]), storage_key=SecretStr("07" * 32)
    )
    logs.configure(settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = WorkerOptions(paths=[Path(__file__).parent], environment=dict(os.environ), **given["options"])
    async with open_runtime(settings, given["dsn"]) as runtime:
        await run_worker(runtime, options, stop)


if __name__ == "__main__":
    asyncio.run(main())
