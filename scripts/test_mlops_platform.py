"""Validate a running platform over HTTP: `python3 scripts/test_mlops_platform.py [--comprehensive] [--only SERVICE]`.

Needs nothing but Python. Addresses and project come from MLOPS_*_URL and MLOPS_PROJECT, else from client.json under
MLOPS_HOME; the key comes from MLOPS_API_KEY (or MLOPS_API_KEY_FILE), else from secrets/api_key under MLOPS_HOME.
The exit code is 0 when every check passed, 1 when one failed, 2 when the command is wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

SERVICES = {
    "model-registry": ("registry", "MLOPS_MODEL_REGISTRY_URL", 8000),
    "feature-store": ("features", "MLOPS_FEATURE_STORE_URL", 8002),
    "experiment-tracking": ("tracking", "MLOPS_EXPERIMENT_TRACKING_URL", 8003),
    "pipeline-orchestrator": ("pipelines", "MLOPS_PIPELINE_ORCHESTRATOR_URL", 8004),
    "ab-testing": ("ab_testing", "MLOPS_AB_TESTING_URL", 8090),
}
TIMEOUT_SECONDS = 30
# The requests of the documentation, byte for byte.
MODEL = (
    '{"name":"my-classifier-v1","version":"1.0.0","framework":"scikit-learn",'
    '"metrics":{"accuracy":0.95,"f1_score":0.92},"tags":["production","healthcare"]}'
)
EXPERIMENT = '{"name":"model-optimization-2024","description":"Hyperparameter tuning for classifier performance"}'
RUN = '{"run_name":"lstm_dropout_0.3","parameters":{"learning_rate":0.001,"batch_size":32}}'
METRICS = '{"accuracy":0.95,"precision":0.92,"recall":0.98,"step":100}'
FEATURE_SET = (
    '{"name":"user_features","description":"...","features":'
    '[{"name":"age","type":"int"},{"name":"avg_session_duration","type":"float"}]}'
)
AB_TEST = (
    '{"name":"model_v2_test","variants":[{"name":"control","weight":0.5,"model_version":"v1.0"},'
    '{"name":"treatment","weight":0.5,"model_version":"v2.0"}]}'
)


class Failed(Exception):
    """A check did not hold. The message says what was seen."""


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise Failed(f"the answer is not JSON: {self.content[:80]!r}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Service:
    """One service at its address."""

    def __init__(self, url: str, key: str | None, project: str | None) -> None:
        self.url, self.key = url, key
        self._named = {"X-MLOps-Project": project} if project else {}
        # No proxy and no redirect: the key goes to this address and nowhere else.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def send(self, method: str, path: str, body: Any = None, *, expect: Any = (200, 201), **headers: str) -> Answer:
        """Send a request and expect one of some status codes. A text body goes as it is."""
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        sent = self._named | ({"Content-Type": "application/json"} if body is not None else {})
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        if self.key and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {self.key}"
        try:
            request = urllib.request.Request(
                self.url + path, data=content if body is not None else None, method=method, headers=sent
            )
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                answer = Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            answer = Answer(error.code, error.headers, error.read())
        except OSError as error:
            raise Failed(f"nothing answers at {self.url}: {getattr(error, 'reason', error)}") from error
        except (http.client.HTTPException, ValueError) as error:
            raise Failed(f"{self.url} is not the address of a service: {error!r}") from error
        wanted = (expect,) if isinstance(expect, int) else expect
        if answer.status not in wanted:
            seen = answer.content[:300].decode(errors="replace")
            raise Failed(f"{method} {path} answered {answer.status} and not {wanted}: {seen}")
        return answer


class Report:
    """Runs checks and says how each went."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def section(self, title: str) -> None:
        print(f"\n{title}")

    def check(self, what: str, function: Callable[[], Any]) -> Any:
        """Run one check; what it returns, or None when it failed."""
        begun = time.monotonic()
        try:
            found = function()
        except (Failed, KeyError, IndexError, TypeError, AttributeError) as error:
            self.failed += 1
            why = error if isinstance(error, Failed) else f"the answer lacks what it should hold: {error!r}"
            print(f"  FAIL  {what}\n        {why}")
            return None
        self.passed += 1
        print(f"  ok    {what} ({(time.monotonic() - begun) * 1000:.0f} ms)")
        return found if found is not None else True


def hold(condition: bool, seen: Any) -> None:  # noqa: FBT001  # reads as a sentence
    """Fail with what was seen unless the condition holds."""
    if not condition:
        raise Failed(f"saw {seen!r}")


def unique(name: str) -> str:
    """A name that nothing has yet."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def check_common(report: Report, service: Service) -> bool:
    """What every service answers. False when there is no service to check further."""
    alive = report.check(
        "GET /health and /health/", lambda: [service.send("GET", path) for path in ("/health", "/health/")]
    )
    if not alive:
        return False
    report.check("GET /ready: every dependency answers", lambda: service.send("GET", "/ready"))
    report.check("GET /docs and /openapi.json", lambda: [service.send("GET", path) for path in ("/docs", "/openapi.json")])
    whoami = "/api/platform/whoami"
    report.check(
        "a wrong key is refused with a problem document",
        lambda: hold("code" in service.send("GET", whoami, expect=401, Authorization="Bearer mlops_user_wrong").json, 401),
    )
    return bool(report.check("our key is accepted", lambda: service.send("GET", whoami)))


def check_model_registry(report: Report, service: Service, *, comprehensive: bool) -> None:
    report.check("POST /api/models as documented", lambda: service.send("POST", "/api/models", MODEL, expect=(201, 409)))
    version = "/api/models/my-classifier-v1/versions/1.0.0"
    report.check(
        f"GET {version}", lambda: hold(service.send("GET", version).json["framework"] == "scikit-learn", "framework")
    )
    report.check(
        "GET /api/models?tags=production lists it",
        lambda: hold("my-classifier-v1" in names(service, "/api/models?tags=production"), "not listed"),
    )
    report.check("the same version again is a conflict", lambda: service.send("POST", "/api/models", MODEL, expect=409))
    report.check(
        "a name that leaves its place is refused", lambda: service.send("POST", "/api/models", {"name": "../x"}, expect=422)
    )
    if comprehensive:
        check_model_files(report, service)


def check_model_files(report: Report, service: Service) -> None:
    name, content = unique("validation"), os.urandom(300_000)
    made = report.check(
        "a version without a number gets one", lambda: service.send("POST", "/api/models", {"name": name}).json
    )
    if not made:
        return
    path = f"/api/models/{name}/versions/{made['version']}"
    report.check("a pending version cannot be downloaded", lambda: service.send("GET", f"{path}/download", expect=409))
    octets = {"Content_Type": "application/octet-stream"}
    report.check(
        "a file is uploaded", lambda: service.send("PUT", f"{path}/artifacts/model/weights.bin", content, **octets)
    )
    report.check(
        "finalize makes it ready",
        lambda: hold(service.send("POST", f"{path}/finalize").json["status"] == "ready", "not ready"),
    )
    report.check(
        "a ready version does not change",
        lambda: service.send("PUT", f"{path}/artifacts/other.bin", content, expect=409, **octets),
    )
    report.check(
        "what is downloaded is what was uploaded",
        lambda: hold(service.send("GET", f"{path}/download").content == content, "other bytes"),
    )
    report.check(
        "an alias points at it",
        lambda: service.send("PUT", f"/api/models/{name}/aliases/champion", {"version": made["version"]}),
    )
    report.check("an alias leads to its version", lambda: service.send("GET", f"/api/models/{name}/aliases/champion"))
    report.check("an aliased version cannot be deleted", lambda: service.send("DELETE", path, expect=409))
    report.check(
        "the alias is taken away", lambda: service.send("DELETE", f"/api/models/{name}/aliases/champion", expect=204)
    )
    report.check("the model is deleted", lambda: service.send("DELETE", f"/api/models/{name}", expect=204))
    report.check("and is then not found", lambda: service.send("GET", f"/api/models/{name}", expect=404))


def check_experiment_tracking(report: Report, service: Service, *, comprehensive: bool) -> None:
    experiment = report.check("POST /api/experiments as documented", lambda: documented_experiment(service))
    if not experiment:
        return
    runs = f"/api/experiments/{experiment['id']}/runs"
    run = report.check("POST .../runs as documented", lambda: service.send("POST", runs, RUN).json)
    if not run:
        return
    metrics = f"{runs}/{run['id']}/metrics"
    report.check("POST .../metrics as documented", lambda: service.send("POST", metrics, METRICS))
    report.check(
        "the run has its metrics",
        lambda: hold(service.send("GET", f"/api/runs/{run['id']}").json["metrics"]["recall"] == 0.98, "recall"),
    )
    report.check(
        "the same metrics again change nothing",
        lambda: hold(service.send("POST", metrics, METRICS).json["stored"] == 0, "stored twice"),
    )
    if comprehensive:
        check_runs(report, service, run["id"])
    report.check("the run is finished", lambda: service.send("PATCH", f"/api/runs/{run['id']}", {"status": "FINISHED"}))


def documented_experiment(service: Service) -> Any:
    """The documented experiment, made now or earlier."""
    answer = service.send("POST", "/api/experiments", EXPERIMENT, expect=(201, 409))
    if answer.status == 201:
        return answer.json
    return service.send("GET", "/api/experiments?name=model-optimization-2024").json["items"][0]


def check_runs(report: Report, service: Service, run_id: str) -> None:
    path, content = f"/api/runs/{run_id}", os.urandom(100_000)
    batch: list[dict[str, Any]] = [
        {"loss": 1 / (step + 1), "step": step, "timestamp": 1_700_000_000_000 + step} for step in range(200)
    ]
    batch.append({"loss": "NaN", "step": 200, "timestamp": 1_700_000_000_200})
    report.check(
        "a batch of 201 points, one of them NaN",
        lambda: hold(service.send("POST", f"{path}/metrics", batch).json["stored"] == 201, "count"),
    )
    report.check(
        "the history of a metric has every point",
        lambda: hold(len(service.send("GET", f"{path}/metrics/loss?page_size=1000").json["items"]) == 201, "count"),
    )
    search = {"filter": "metrics.accuracy > 0.9", "order_by": ["metrics.accuracy DESC"]}
    report.check(
        "the run is found by its metric",
        lambda: hold(run_id in [run["id"] for run in pages(service, "/api/runs/search", search)], "not found"),
    )
    report.check(
        "a filter that is wrong is explained",
        lambda: service.send("POST", "/api/runs/search", {"filter": "metrics."}, expect=(400, 422)),
    )
    report.check(
        "a file is uploaded",
        lambda: service.send("PUT", f"{path}/artifacts/model/w.bin", content, Content_Type="application/octet-stream"),
    )
    report.check(
        "what is downloaded is what was uploaded",
        lambda: hold(service.send("GET", f"{path}/artifacts/model/w.bin").content == content, "other bytes"),
    )
    report.check(
        "a parameter never changes",
        lambda: service.send("POST", f"{path}/params", {"parameters": {"batch_size": 64}}, expect=409),
    )


def check_feature_store(report: Report, service: Service, *, comprehensive: bool) -> None:
    report.check(
        "POST /api/feature-sets as documented",
        lambda: service.send("POST", "/api/feature-sets", FEATURE_SET, expect=(201, 409)),
    )
    entity = report.check(
        "which column holds the entity", lambda: service.send("GET", "/api/feature-sets/user_features").json["entity"]
    )
    if not entity:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {entity: "user_123", "event_timestamp": now, "age": 33, "avg_session_duration": 12.5}
    report.check("rows are ingested", lambda: service.send("POST", "/api/feature-sets/user_features/rows", {"rows": [row]}))
    serve = "/api/features/serve?entities=user_123&features=age,avg_session_duration"
    values = report.check(f"GET {serve}", lambda: service.send("GET", serve).json["vectors"][0]["values"])
    if values:
        report.check(
            "the values served are the ones ingested",
            lambda: hold(values == {"age": 33, "avg_session_duration": 12.5}, values),
        )
    if comprehensive:
        check_point_in_time(report, service)


def check_point_in_time(report: Report, service: Service) -> None:
    name, feature = unique("validation"), f"f{uuid.uuid4().hex[:12]}"
    body = {"name": name, "entity": "id", "features": [{"name": feature, "type": "float"}]}
    if not report.check("a feature set of its own", lambda: service.send("POST", "/api/feature-sets", body)):
        return
    rows = [{"id": "a", "event_timestamp": f"2024-01-0{day}T00:00:00Z", feature: float(day)} for day in (1, 2, 3)]
    report.check(
        "three values over three days", lambda: service.send("POST", f"/api/feature-sets/{name}/rows", {"rows": rows})
    )
    labels = [{"id": "a", "event_timestamp": "2024-01-02T12:00:00Z", "label": 1}]
    asked = {"rows": labels, "features": [f"{name}:{feature}"]}
    made = report.check(
        "a training set as of the second day", lambda: service.send("POST", "/api/training-sets", asked).json
    )
    if made:
        same = {**asked, "known_until": made["known_until"]}
        report.check(
            "the same question has the same digest",
            lambda: hold(
                service.send("POST", "/api/training-sets", same).json["digest"] == made["digest"], "another digest"
            ),
        )
    serve = f"/api/features/serve?entities=a,nobody&features={name}:{feature}"
    report.check(
        "who is not there is missing, and not an error",
        lambda: hold("missing" in json.dumps(service.send("GET", serve).json["vectors"][1]["statuses"]), "not missing"),
    )
    report.check(
        "the feature set is deleted", lambda: service.send("DELETE", f"/api/feature-sets/{name}", expect=(200, 204))
    )


def check_pipeline_orchestrator(report: Report, service: Service, *, comprehensive: bool) -> None:
    name = unique("validation")
    tasks: list[dict[str, Any]] = [
        {"name": "first", "entry_point": "validation.tasks:first"},
        {"name": "second", "entry_point": "validation.tasks:second", "depends_on": ["first"]},
    ]
    document = {"name": name, "tasks": tasks}
    if not report.check("POST /api/pipelines", lambda: service.send("POST", "/api/pipelines", document)):
        return
    report.check("it is listed", lambda: hold(name in names(service, "/api/pipelines"), "not listed"))
    report.check(
        "the same document is the same version",
        lambda: hold(service.send("POST", "/api/pipelines", document).json["version"] == 1, "another version"),
    )
    circle = {"name": unique("validation"), "tasks": [{**tasks[0], "depends_on": ["second"]}, tasks[1]]}
    report.check(
        "tasks that wait for each other are refused", lambda: service.send("POST", "/api/pipelines", circle, expect=422)
    )
    if comprehensive:
        schedule = {"cron": "30 2 * * *", "time_zone": "Europe/Paris"}
        path = f"/api/pipelines/{name}"
        report.check(
            "it runs by itself every night",
            lambda: hold(bool(service.send("PUT", f"{path}/schedule", schedule).json["next_at"]), "no time"),
        )
        report.check(
            "a schedule that is none is refused",
            lambda: service.send("PUT", f"{path}/schedule", {"cron": "soon"}, expect=422),
        )
        report.check("the schedule is removed", lambda: service.send("DELETE", f"{path}/schedule", expect=(200, 204)))
        run = report.check("a run is started", lambda: service.send("POST", f"{path}/runs", {}).json)
        if run:
            report.check(
                "the run is cancelled",
                lambda: service.send("POST", f"/api/pipeline-runs/{run['id']}/cancel", expect=(200, 409)),
            )
    report.check("the pipeline is deleted", lambda: service.send("DELETE", f"/api/pipelines/{name}", expect=204))


def check_ab_testing(report: Report, service: Service, *, comprehensive: bool) -> None:
    report.check(
        "POST /api/experiments as documented", lambda: service.send("POST", "/api/experiments", AB_TEST, expect=(201, 409))
    )
    route = "/api/route?user_id=user_123&experiment=model_v2_test"
    first = report.check(f"GET {route}", lambda: service.send("GET", route).json)
    if first:
        report.check(
            "the same user gets the same variant",
            lambda: hold(service.send("GET", route).json["variant"] == first["variant"], "another variant"),
        )
    if comprehensive:
        check_results(report, service)


def check_results(report: Report, service: Service) -> None:
    name = unique("validation")
    body = {**json.loads(AB_TEST), "name": name, "metrics": [{"name": "converted"}]}
    if not report.check("a test of its own", lambda: service.send("POST", "/api/experiments", body)):
        return
    path = f"/api/experiments/{name}"
    users = [f"user_{number}" for number in range(200)]
    routed = report.check(
        "200 users are routed to both variants",
        lambda: {
            user: service.send("GET", f"/api/route?user_id={user}&experiment={name}").json["variant"] for user in users
        },
    )
    if routed:
        report.check(
            "both variants have users", lambda: hold(set(routed.values()) == {"control", "treatment"}, set(routed.values()))
        )
        outcomes = [
            {"unit_id": user, "metric": "converted", "value": number % 3 == 0, "outcome_id": user}
            for number, user in enumerate(users)
        ]
        report.check(
            "their outcomes are recorded once",
            lambda: hold(service.send("POST", f"{path}/outcomes", outcomes).json["recorded"] == 200, "count"),
        )
        report.check(
            "and not again", lambda: hold(service.send("POST", f"{path}/outcomes", outcomes).json["recorded"] == 0, "count")
        )
    report.check(
        "GET .../results", lambda: hold(service.send("GET", f"{path}/results").json["control"] == "control", "control")
    )
    report.check("the test is stopped", lambda: service.send("POST", f"{path}/stop", {"winner": "treatment"}))
    report.check(
        "from then on all users get the winner's version",
        lambda: hold(
            service.send("GET", f"/api/route?user_id=anyone&experiment={name}").json["model_version"] == "v2.0",
            "another version",
        ),
    )


CHECKS: dict[str, Callable[..., None]] = {
    "model-registry": check_model_registry,
    "feature-store": check_feature_store,
    "experiment-tracking": check_experiment_tracking,
    "pipeline-orchestrator": check_pipeline_orchestrator,
    "ab-testing": check_ab_testing,
}


def pages(service: Service, path: str, search: dict[str, Any] | None = None) -> list[Any]:
    """All items of a list, or of a search."""
    items: list[Any] = []
    token: str | None = None
    while True:
        if search is not None:
            page = service.send("POST", path, {**search, **({"page_token": token} if token else {})}).json
        else:
            joint = "&" if "?" in path else "?"
            page = service.send("GET", f"{path}{joint}page_token={quote(token)}" if token else path).json
        items += page["items"]
        token = page.get("next_page_token")
        if not token:
            return items


def names(service: Service, path: str) -> list[str]:
    """The names in a list."""
    return [item["name"] for item in pages(service, path)]


def find(home: Path) -> tuple[dict[str, str], dict[str, str], str | None]:
    """Addresses, keys by address, and project: from the environment, else from what `mlops up` left."""
    try:
        left = json.loads((home / "client.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        left = {}
    if not isinstance(left, dict):
        left = {}
    known, project = left.get("urls", {}), os.environ.get("MLOPS_PROJECT")
    urls = {
        name: (os.environ.get(variable) or known.get(short) or f"http://127.0.0.1:{port}").rstrip("/")
        for name, (short, variable, port) in SERVICES.items()
    }
    given = os.environ.get("MLOPS_API_KEY_FILE") or os.environ.get("MLOPS_SERVICE_TOKEN_FILE")
    key = os.environ.get("MLOPS_API_KEY") or os.environ.get("MLOPS_SERVICE_TOKEN") or (given and read_key(Path(given)))
    if key:
        return urls, dict.fromkeys(urls.values(), key), project
    key, project = read_key(home / "secrets" / "api_key"), project or left.get("project")
    ours = {url for url in urls.values() if url in known.values() or is_loopback(url)}
    # The key of this machine goes to this machine's platform, and not to wherever a mistyped address leads.
    return urls, dict.fromkeys(ours, key) if key else {}, project


def read_key(path: Path) -> str | None:
    """The key in a file, if there is one."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    try:
        return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
    except ValueError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Validate a running platform over HTTP.")
    parser.add_argument("--comprehensive", action="store_true", help="also files, training sets, results, schedules")
    parser.add_argument("--only", action="append", choices=list(SERVICES), help="check this service; again for more")
    arguments = parser.parse_args()
    urls, keys, project = find(Path(os.environ.get("MLOPS_HOME") or Path.home() / ".mlops"))
    if not keys:
        print("No API key: set MLOPS_API_KEY, or MLOPS_HOME to where 'mlops up' keeps its data.", file=sys.stderr)
    report = Report()
    for name in arguments.only or SERVICES:
        service = Service(urls[name], keys.get(urls[name]), project)
        report.section(f"{name} at {service.url}")
        if check_common(report, service):
            CHECKS[name](report, service, comprehensive=arguments.comprehensive)
    print(f"\n{report.passed} passed, {report.failed} failed.")
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
