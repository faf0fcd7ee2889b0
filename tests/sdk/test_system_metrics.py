"""What the machine does is recorded while a run goes on, with psutil and without it."""

import sys
import threading
import time
import types

import pytest

from mlops_platform.sdk.system_metrics import Sampler, SystemMetrics

EVERYWHERE = {
    "cpu_percent", "process_cpu_percent", "memory_percent", "memory_used_bytes", "process_memory_bytes", "disk_percent",
    "disk_free_bytes", "network_sent_bytes_per_second", "network_received_bytes_per_second",
}  # fmt: skip


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("has_psutil", [True, False])
def test_a_sample_has_processor_memory_disk_and_network(monkeypatch, has_psutil):
    if not has_psutil:
        monkeypatch.setitem(sys.modules, "psutil", None)
    sampler = Sampler()
    burn(0.1)
    found = sampler.sample()
    assert set(found) >= EVERYWHERE
    assert 0 <= found["cpu_percent"] <= 100
    assert found["process_cpu_percent"] > 5
    assert 0 < found["memory_percent"] < 100
    assert found["process_memory_bytes"] > 1_000_000
    assert found["network_sent_bytes_per_second"] >= 0


def test_both_ways_agree_on_the_memory(monkeypatch):
    with_it = Sampler().sample()
    monkeypatch.setitem(sys.modules, "psutil", None)
    without = Sampler().sample()
    assert without["process_memory_bytes"] == pytest.approx(with_it["process_memory_bytes"], rel=0.2)
    assert without["memory_used_bytes"] == pytest.approx(with_it["memory_used_bytes"], rel=0.5)


def test_graphics_cards_are_read_when_there_are_any(monkeypatch):
    library = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUtilizationRates=lambda card: types.SimpleNamespace(gpu=50 + card),
        nvmlDeviceGetMemoryInfo=lambda card: types.SimpleNamespace(used=1, total=4),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found = Sampler().sample()
    assert (found["gpu_0_percent"], found["gpu_1_percent"], found["gpu_1_memory_percent"]) == (50, 51, 25)


def test_a_driver_that_is_broken_leaves_the_rest(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", types.SimpleNamespace(nvmlInit=lambda: 1 / 0))
    assert "memory_percent" in Sampler().sample()


def test_samples_come_under_their_own_folder_until_it_is_stopped():
    seen, arrived = [], threading.Event()

    def record(metrics):
        seen.append(dict(metrics))
        arrived.set()

    watch = SystemMetrics(record, interval_seconds=0.02)
    watch.start()
    assert arrived.wait(30)
    watch.stop()
    count = len(seen)
    assert not watch._thread.is_alive()
    assert all(key.startswith("system/") for key in seen[0])
    assert len(seen) == count


def test_a_record_that_fails_ends_the_samples_and_nothing_else():
    def record(metrics):
        raise RuntimeError("broken on purpose")

    watch = SystemMetrics(record, interval_seconds=0.01)
    watch.start()
    watch._thread.join(30)
    assert not watch._thread.is_alive()
    watch.stop()


@pytest.mark.parametrize("interval", [0, -1.0])
def test_an_interval_of_nothing_is_refused(interval):
    with pytest.raises(ValueError, match="longer than 0"):
        SystemMetrics(lambda metrics: None, interval_seconds=interval)
