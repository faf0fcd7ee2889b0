"""The page for those who come from Weights & Biases: every block of it runs, in order, as it stands there."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.factories.serving import serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coming-from-wandb.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVICES = ("experiment-tracking", "model-registry")
_KEPT = ("LANG", "TMPDIR")


def script() -> str:
    """The blocks as one program: what is for the shell is called from it."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} == {"python", "bash"}
    shell = "import subprocess\nsubprocess.run(['bash', '-euo', 'pipefail', '-c', {!r}], check=True)\n"
    return "\n".join(block if language == "python" else shell.format(block) for language, block in blocks)


@pytest.mark.timeout(300)
async def test_every_block_of_the_page_runs(platform, apps, tmp_path):
    key, _ = await platform.key(await platform.project())
    # The command that the page calls, of this code and not of an installed one.
    command = tmp_path / "bin" / "mlops"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlops_platform.cli.main "$@"\n')
    command.chmod(0o700)
    page = tmp_path / "page.py"
    page.write_text(script(), encoding="utf-8")
    async with serving({name: apps[name] for name in SERVICES}) as urls:
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "HOME": str(tmp_path),
            "MLOPS_HOME": str(tmp_path / "home"),
            "MLOPS_API_KEY": key,
            "MLOPS_EXPERIMENT_TRACKING_URL": urls["tracking"],
            "MLOPS_MODEL_REGISTRY_URL": urls["registry"],
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", page, cwd=tmp_path, env=environment, stdout=PIPE, stderr=PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:] + err.decode()[-4000:]
