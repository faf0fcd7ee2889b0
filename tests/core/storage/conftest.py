"""A real S3 server for the tests of one process: moto's, on a loopback port of its own."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from obstore.store import S3Store

from mlops_platform.core.storage.opening import _RETRY

CREDENTIALS = {"aws_access_key_id": "testing-key", "aws_secret_access_key": "testing-secret", "region_name": "us-east-1"}
NO_RETRY = {"max_retries": 0}


@contextmanager
def running_s3():
    """A server and its address. It picks a free port itself and says which, so that nobody can take it meanwhile."""
    program = [sys.executable, "-u", str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The address of the server that the tests share, each with a bucket of its own."""
    with running_s3() as (_, endpoint):
        yield endpoint


@pytest.fixture(scope="session")
def s3_client(s3_endpoint):
    """The server as boto3 sees it: for looking behind the platform's back."""
    client = boto3.client("s3", endpoint_url=s3_endpoint, **CREDENTIALS)
    yield client
    client.close()


def s3_store(endpoint, bucket, secret=CREDENTIALS["aws_secret_access_key"], retry_config=_RETRY):
    """As the platform opens it. One 500 is not the end: moto gives one when a part arrives while its upload is aborted."""
    return S3Store(
        bucket,
        prefix="some/prefix",
        endpoint=endpoint,
        region=CREDENTIALS["region_name"],
        access_key_id=CREDENTIALS["aws_access_key_id"],
        secret_access_key=secret,
        client_options={"allow_http": True, "connect_timeout": "1s"},
        retry_config=retry_config,
    )
