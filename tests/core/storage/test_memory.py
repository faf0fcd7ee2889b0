import json
import os
import subprocess
import sys

import pytest

from mlops_platform.core.identity import new_id

LIMIT_MIB = 64  # and the smallest object streamed here is twice that


def measure(*arguments):
    command = [sys.executable, "-m", "tests.core.storage.measure_streaming", *arguments]
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("mebibytes", [256, pytest.param(2048, marks=pytest.mark.slow)])
def test_streaming_files_up_and_down_keeps_memory_bounded(tmp_path, mebibytes):
    found = measure("--directory", str(tmp_path / "blobs"), "--mebibytes", str(mebibytes))
    assert found["size"] == mebibytes * 1024 * 1024
    assert found["growth_mib"] < LIMIT_MIB


@pytest.mark.parametrize("mebibytes", [128, pytest.param(512, marks=pytest.mark.slow)])
def test_streaming_s3_up_and_down_keeps_memory_bounded(s3_endpoint, s3_client, mebibytes):
    bucket = f"bucket-{new_id()}"
    s3_client.create_bucket(Bucket=bucket)
    found = measure("--endpoint", s3_endpoint, "--bucket", bucket, "--mebibytes", str(mebibytes))
    assert found["size"] == mebibytes * 1024 * 1024
    assert found["growth_mib"] < LIMIT_MIB
