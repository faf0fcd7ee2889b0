"""Streams a blob up and down in a process of its own, and prints its speed and how much memory it took beyond idle."""

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

from mlops_platform.core.crypto.key_ring import KeyRing
from mlops_platform.core.identity import ProjectId, new_id
from mlops_platform.core.storage.blob_store import BlobStore
from mlops_platform.core.storage.local_files import LocalFiles
from mlops_platform.core.storage.object_store import ObjectStore
from tests.core.storage.conftest import s3_store

MEBIBYTE = 1024 * 1024


def resident():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The highest resident memory while it watches."""

    def __enter__(self):
        self.idle = self.highest = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, resident())

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


async def random_stream(mebibytes):
    pieces = [os.urandom(MEBIBYTE // 4) for _ in range(7)]
    for number in range(4 * mebibytes):
        yield pieces[number % 7]


async def measure(store, mebibytes):
    project = ProjectId(new_id())
    warm = await store.write(project, random_stream(1), max_bytes=10**7)
    async for _ in await store.read(warm):
        pass
    with Peak() as peak:
        began = time.perf_counter()
        blob = await store.write(project, random_stream(mebibytes), max_bytes=64 * 1024**3)
        between = time.perf_counter()
        async for _ in await store.read(blob):
            pass
        done = time.perf_counter()
    await store.delete(blob.address)
    return {
        "size": blob.size,
        "growth_mib": round((peak.highest - peak.idle) / MEBIBYTE, 1),
        "write_mib_s": round(mebibytes / (between - began)),
        "read_mib_s": round(mebibytes / (done - between)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--endpoint")
    parser.add_argument("--bucket")
    parser.add_argument("--plain", action="store_true")
    chosen = parser.parse_args()
    backend = LocalFiles(chosen.directory) if chosen.directory else ObjectStore(s3_store(chosen.endpoint, chosen.bucket))
    store = BlobStore(backend, None if chosen.plain else KeyRing([os.urandom(32)]), encrypt=not chosen.plain)
    sys.stdout.write(json.dumps(asyncio.run(measure(store, chosen.mebibytes))) + "\n")


if __name__ == "__main__":
    main()
