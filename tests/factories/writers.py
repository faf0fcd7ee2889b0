"""Concurrent writers that note what the platform acknowledged, and the comparison with what it holds afterwards."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from pyarrow import parquet

from mlops_platform.sdk import Platform
from mlops_platform.sdk.errors import MlopsError
from mlops_platform.sdk.settings import Service
from tests.factories.running import RunningPlatform, eventually

FEATURE_SET = "durable"
TEST = "durable"
MODEL = "durable"
BATCH = 3
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Log:
    """What one writer tried, and what of it was acknowledged."""

    tried: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    refused: list[Exception] = field(default_factory=list)


class Writers:
    """One thread for each kind of write. Each item is a batch, so that half of one would be seen."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._platform = platform
        with platform.client() as client:
            client.features.create_set(FEATURE_SET, {"number": "int"}, entity="unit")
            client.ab.create(
                TEST,
                [{"name": name, "weight": 0.5, "model_version": name} for name in ("control", "treatment")],
                metrics=[{"name": "bought", "kind": "proportion", "is_primary": True}],
            )
            run = client.tracking.start_run("durable")
            self.run_id, self._metrics = run.id, f"/api/experiments/{run.experiment_id}/runs/{run.id}/metrics"
        self.logs = {name: Log() for name in ("metrics", "versions", "rows", "outcomes")}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(name,), daemon=True) for name in self.logs]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, each: int) -> None:
        """Until every writer has so many more acknowledgements."""
        goals = {name: len(log.acknowledged) + each for name, log in self.logs.items()}
        eventually(
            lambda: all(len(self.logs[name].acknowledged) >= goal for name, goal in goals.items()),
            seconds=30,
            what=f"{each} more of each kind are acknowledged ({self.logs})",
        )

    def _write(self, name: str) -> None:
        log, number = self.logs[name], 0
        with self._platform.client(retries=1) as client:
            write = self._write_one(name, client)
            while not self._stop.is_set():
                number += 1
                log.tried.append(number)
                try:
                    write(number)
                except MlopsError as error:
                    log.refused.append(error)
                    self._stop.wait(0.05)
                else:
                    log.acknowledged.append(number)

    def _write_one(self, name: str, client: Platform) -> Callable[[int], object]:
        def metrics(number: int) -> object:
            # The recorder of the SDK would keep what is refused, and send it again: here each request stands alone.
            body = [{"step": number, **{f"metric-{part}": number for part in range(BATCH)}}]
            return client.tracking._client.request("POST", self._metrics, json=body)

        writes: dict[str, Callable[[int], object]] = {
            "metrics": metrics,
            "versions": lambda number: client.registry.create_version(MODEL, str(number), metrics={"number": number}),
            "rows": lambda number: client.features.ingest(FEATURE_SET, rows(number)),
            "outcomes": lambda number: client.ab.outcomes(TEST, outcomes(number)),
        }
        return writes[name]

    def check(self, platform: RunningPlatform) -> None:
        """Nothing acknowledged is lost, nothing is there that was not sent, and nothing is there by half."""
        with platform.client() as client:
            self._check("versions", self._stored_versions(client))
            self._check("metrics", self._stored_metrics(client))
            self._check("rows", self._stored_rows(client))
            self._check_outcomes(client)
            assert client.admin.verify_audit().is_intact

    def _check(self, name: str, stored: set[int]) -> None:
        log = self.logs[name]
        assert set(log.acknowledged) <= stored, f"{name} lost: {sorted(set(log.acknowledged) - stored)}"
        assert stored <= set(log.tried)

    def _stored_versions(self, client: Platform) -> set[int]:
        versions = list(client.registry.versions(MODEL))
        assert all(version.metrics == {"number": int(version.version)} for version in versions)
        audited = [item.resource.rpartition("/")[2] for item in client.admin.audit(action="model_version.created")]
        assert sorted(audited) == sorted(version.version for version in versions)
        return {int(version.version) for version in versions}

    def _stored_metrics(self, client: Platform) -> set[int]:
        stored = [
            [(point.step, point.value) for point in client.tracking.history(self.run_id, f"metric-{part}")]
            for part in range(BATCH)
        ]
        assert all(points == stored[0] for points in stored)
        assert all(step == value for step, value in stored[0])
        return {step for step, _ in stored[0]}

    def _stored_rows(self, client: Platform) -> set[int]:
        """As a training set sees them, which is also what the online store must serve."""
        tried = self.logs["rows"].tried
        labels = [
            {"unit": row["unit"], "event_timestamp": row["event_timestamp"] + timedelta(seconds=1)}
            for number in tried
            for row in rows(number)
        ]
        table = parquet.read_table(client.features.training_data(client.features.training_set(labels, ["durable:number"])))
        offline = dict(zip(table.column("unit").to_pylist(), table.column("number").to_pylist(), strict=True))
        counts = {number: sum(offline[row["unit"]] == number for row in rows(number)) for number in tried}
        assert set(counts.values()) <= {0, BATCH}
        stored = {number for number, count in counts.items() if count}
        # An ingest whose online write was cut off is repaired after some seconds.
        eventually(lambda: self._served(client, tried) == stored, seconds=30, what="online rows are the offline rows")
        return stored

    def _served(self, client: Platform, tried: list[int]) -> set[int]:
        units = [row["unit"] for number in tried for row in rows(number)]
        vectors = [
            vector
            for start in range(0, len(units), 1000)
            for vector in client.features.serve_many(units[start : start + 1000], ["durable:number"])
        ]
        return {value for vector in vectors if (value := vector.values["durable:number"]) is not None}

    def _check_outcomes(self, client: Platform) -> None:
        """Sent again, what was kept is a duplicate: exactly the acknowledged ones must all be."""
        for number in self.logs["outcomes"].tried:
            again = client.ab.outcomes(TEST, outcomes(number))
            assert (again.duplicates, again.recorded) in {(BATCH, 0), (0, BATCH)}
            if number in self.logs["outcomes"].acknowledged:
                assert again.duplicates == BATCH, f"outcomes {number} are lost"


def rows(number: int) -> list[dict[str, Any]]:
    moment = _FIRST + timedelta(seconds=number)
    return [{"unit": f"unit-{number}-{part}", "event_timestamp": moment, "number": number} for part in range(BATCH)]


def outcomes(number: int) -> list[dict[str, Any]]:
    return [
        {"unit_id": f"unit-{number}-{part}", "metric": "bought", "value": True, "outcome_id": f"{number}-{part}"}
        for part in range(BATCH)
    ]


def is_ready(platform: RunningPlatform) -> bool:
    """Whether every service says that it is ready."""
    try:
        return all(httpx2.get(f"{platform.url(service)}/ready", timeout=5).status_code == 200 for service in Service)
    except httpx2.HTTPError:
        return False
