"""Our tracking service, over its native API."""

from typing import Any
from urllib.parse import urlencode

from benchmarks.processes import Running
from benchmarks.tracking.target import KEYS, NOW_MS, Target


class Ours(Target):
    """`mlops up`, asked on the tracking port."""

    name = "ours"

    def __init__(self, running: Running) -> None:
        super().__init__()
        self.running = running
        self.port = running.ports["tracking"]

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.running.key}"}

    def create_experiment(self, name: str) -> str:
        return str(self.ask("POST", "/api/experiments", {"name": name})["id"])

    def create_run(self, experiment: str) -> str:
        return str(self.ask("POST", f"/api/experiments/{experiment}/runs", {"run_name": "bench"})["id"])

    def metric(self, run: str, step: int) -> tuple[str, Any]:
        return f"/api/runs/{run}/metrics", {"loss": 0.5, "step": step, "timestamp": NOW_MS}

    def batch(self, run: str, first: int, points: int, keys: int) -> tuple[str, Any]:
        names = [f"k{n}" for n in range(keys)] if keys > 1 else ["loss"]
        rows = [
            {**dict.fromkeys(names, (first + n) / 7), "step": first + n, "timestamp": NOW_MS + first + n}
            for n in range(points // keys)
        ]
        return f"/api/runs/{run}/metrics", rows

    def read_all(self, run: str, key: str) -> int:
        found, token = 0, None
        while True:
            query = urlencode({"page_size": 10_000, **({"page_token": token} if token else {})})
            page = self.ask("GET", f"/api/runs/{run}/metrics/{key}?{query}")
            found += len(page["items"])
            if (token := page["next_page_token"]) is None:
                return found

    def series(self, runs: list[str], points: int) -> int:
        body = {"runs": runs, "keys": ["loss"], "max_points": points}
        return sum(len(item["x"]) for item in self.ask("POST", "/api/series", body)["items"])

    def search(self, experiment: str, token: str | None) -> tuple[int, str | None]:
        body = {
            "experiment_ids": [experiment],
            "filter": self.filter,
            "order_by": [f"metrics.{KEYS[1]} DESC"],
            "page_size": 100,
            "page_token": token,
        }
        page = self.ask("POST", "/api/runs/search", body)
        return len(page["items"]), page["next_page_token"]

    def count(self, experiment: str) -> int:
        return int(self.ask("GET", f"/api/experiments/{experiment}")["run_count"])

    def upload(self, run: str, content: bytes) -> None:
        self.call("PUT", f"/api/runs/{run}/artifacts/model.bin", raw=content)

    def download(self, run: str) -> int:
        return len(self.call("GET", f"/api/runs/{run}/artifacts/model.bin"))
