"""What the machine does while a run goes on, sampled by a thread: `system/cpu_percent` and its siblings.

psutil is used when it is there, and `/proc` otherwise; graphics cards are read when pynvml is there and finds any. A
reading that fails is left out, and nothing of this is raised into the training.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

Reading = dict[str, float]


class SystemMetrics:
    """Samples until it is stopped. `record` takes metrics by name, and may be called from another thread."""

    def __init__(self, record: Callable[[Mapping[str, float]], None], *, interval_seconds: float = 10.0) -> None:
        if interval_seconds <= 0:
            raise ValueError(f"An interval is longer than 0 seconds; {interval_seconds} was given.")
        self._record = record
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="mlops-system-metrics", daemon=True)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # No thread is to be had: the run goes on without these.
            return

    def stop(self) -> None:
        """End the thread, and wait for it; in a forked process there is none."""
        self._stop.set()
        if os.getpid() == self._pid and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    def _run(self) -> None:
        sampler = Sampler()
        while not self._stop.wait(self._interval):
            try:
                self._record({f"system/{name}": value for name, value in sampler.sample().items()})
            except Exception:  # noqa: BLE001  # the edge to the training, which no trouble of ours may end
                return


class Sampler:
    """One machine and this process. Rates are those since the last sample."""

    def __init__(self) -> None:
        self._machine = _Psutil() if _has_psutil() else _Proc()
        self._cards = _Cards()
        self._last: tuple[float, Reading] = (time.monotonic(), self._counters())

    def sample(self) -> Reading:
        """What can be read, by name."""
        now, counters = time.monotonic(), self._counters()
        then, before = self._last
        self._last = (now, counters)
        elapsed = max(now - then, 1e-6)
        rates = {
            f"{name}_per_second": max(0.0, counters[name] - before[name]) / elapsed for name in counters if name in before
        }
        found: Reading = {}
        for read in (self._machine.gauges, _disk, self._cards.gauges):
            found |= _or_nothing(read)
        return found | rates

    def _counters(self) -> Reading:
        return _or_nothing(self._machine.counters)


class _Psutil:
    def __init__(self) -> None:
        import psutil

        self._psutil: Any = psutil
        self._process = psutil.Process()
        # The first answer of these is of no time at all.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def gauges(self) -> Reading:
        memory = self._psutil.virtual_memory()
        return {
            "cpu_percent": self._psutil.cpu_percent(),
            "process_cpu_percent": self._process.cpu_percent(),
            "memory_percent": memory.percent,
            "memory_used_bytes": memory.total - memory.available,
            "process_memory_bytes": self._process.memory_info().rss,
        }

    def counters(self) -> Reading:
        network, disk = self._psutil.net_io_counters(), self._psutil.disk_io_counters()
        found: Reading = {}
        if network is not None:
            found |= {"network_sent_bytes": network.bytes_sent, "network_received_bytes": network.bytes_recv}
        if disk is not None:
            found |= {"disk_read_bytes": disk.read_bytes, "disk_written_bytes": disk.write_bytes}
        return found


class _Proc:
    """The same from the files of Linux; elsewhere nothing."""

    def __init__(self) -> None:
        self._times = self._cpu()

    def gauges(self) -> Reading:
        before, self._times = self._times, self._cpu()
        found: Reading = {}
        if before is not None and self._times is not None:
            busy, total, own, wall = (new - old for new, old in zip(self._times, before, strict=True))
            found["cpu_percent"] = 100.0 * busy / total if total > 0 else 0.0
            found["process_cpu_percent"] = 100.0 * own / wall if wall > 0 else 0.0
        memory = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
        total_bytes, free = (int(memory[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        found |= {"memory_percent": 100.0 * (total_bytes - free) / total_bytes, "memory_used_bytes": total_bytes - free}
        found["process_memory_bytes"] = int((PROC / "self" / "statm").read_text().split()[1]) * PAGE_BYTES
        return found

    def counters(self) -> Reading:
        received = sent = read = written = 0
        for line in (PROC / "net" / "dev").read_text().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() != "lo":
                values = numbers.split()
                received, sent = received + int(values[0]), sent + int(values[8])
        for line in (PROC / "diskstats").read_text().splitlines():
            values = line.split()
            # Whole disks only: what a partition does is counted with its disk.
            if len(values) > 9 and (Path("/sys/block") / values[2]).exists():
                read, written = read + int(values[5]) * 512, written + int(values[9]) * 512
        return {
            "network_sent_bytes": sent,
            "network_received_bytes": received,
            "disk_read_bytes": read,
            "disk_written_bytes": written,
        }

    @staticmethod
    def _cpu() -> tuple[float, float, float, float] | None:
        try:
            times = [int(text) for text in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
            own = (PROC / "self" / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError, IndexError):
            return None
        idle = times[3] + times[4]
        return float(sum(times) - idle), float(sum(times)), (int(own[11]) + int(own[12])) / TICKS, time.monotonic()


class _Cards:
    """Graphics cards, when there are any and their library is installed."""

    def __init__(self) -> None:
        self._library: Any = None
        self._cards: list[Any] = []
        try:
            pynvml = import_module("pynvml")
            pynvml.nvmlInit()
            self._cards = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
            self._library = pynvml
        except Exception:  # noqa: BLE001  # no library, no driver, no card: its errors have no base that is there without it
            self._cards = []

    def gauges(self) -> Reading:
        found: Reading = {}
        for number, card in enumerate(self._cards):
            use, memory = self._library.nvmlDeviceGetUtilizationRates(card), self._library.nvmlDeviceGetMemoryInfo(card)
            found |= {
                f"gpu_{number}_percent": float(use.gpu),
                f"gpu_{number}_memory_used_bytes": float(memory.used),
                f"gpu_{number}_memory_percent": 100.0 * memory.used / memory.total,
            }
        return found


def _disk() -> Reading:
    usage = shutil.disk_usage(Path.cwd())
    return {"disk_percent": 100.0 * usage.used / usage.total, "disk_free_bytes": float(usage.free)}


def _or_nothing(read: Callable[[], Reading]) -> Reading:
    try:
        return {name: float(value) for name, value in read().items()}
    except Exception:  # noqa: BLE001  # each library and each system has errors of its own, and a gap is no reason to stop
        return {}


def _has_psutil() -> bool:
    try:
        import psutil  # noqa: F401  # only whether it is there
    except ImportError:
        return False
    return True
