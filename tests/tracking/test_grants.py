"""Grants for some names: runs are addressed by id, so that no route can declare the name; each has to look it up."""

import json
import re
from typing import Any

import pytest
from fastapi.routing import APIRoute

from mlops_platform.core.auth.directory import Directory
from mlops_platform.core.http.app import routes_of
from mlops_platform.core.identity import PrincipalKind, Role
from mlops_platform.tracking.app import SERVICE as TRACKING
from tests.conftest import Caller, Platform
from tests.factories.archives import NO_POINTS, a_model, a_record
from tests.factories.sweeps import GRID, LOSS, a_sweep, a_trial
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"
RUN = "/api/runs/{run_id}"
LONG = "/api/experiments/{experiment_id}/runs/{run_id}"
EXPERIMENT = "/api/experiments/{experiment_id}"

_ON_RUN: dict[tuple[str, str], Any] = {
    ("GET", ""): None,
    ("PATCH", ""): {"notes": "mine"},
    ("DELETE", ""): None,
    ("POST", "/restore"): None,
    ("POST", "/params"): {"parameters": {"lr": 1}},
    ("POST", "/tags"): {"tags": {"a": "b"}},
    ("PATCH", "/params"): {"key": "seed", "value": 2, "reason": "it was read wrongly"},
    ("GET", "/inputs"): None,
    ("POST", "/inputs"): {"inputs": ["urn:mlops:PROJECT:model:m"]},
    ("GET", "/models"): None,
    ("POST", "/models"): {"name": "mine"},
    ("GET", "/children"): None,
    ("GET", "/heartbeat"): None,
    ("POST", "/heartbeat"): {"writer": "w"},
    ("POST", "/resume"): {"writer": "w", "take_over": True},
    ("POST", "/move"): {"experiment_id": "EXPERIMENT"},
    ("POST", "/copy"): {"experiment_id": "EXPERIMENT"},
    ("POST", "/purge"): None,
    ("GET", "/comments"): None,
    ("POST", "/comments"): {"text": "mine"},
    ("PATCH", "/comments/{comment_id}"): {"text": "mine"},
    ("DELETE", "/comments/{comment_id}"): None,
    ("POST", "/metrics"): {"loss": 2},
    ("POST", "/metrics/truncate"): {"from_step": 0},
    ("GET", "/metrics"): None,
    ("GET", "/metric-points"): None,
    ("GET", "/metrics/{key}"): None,
    ("PUT", "/artifacts/{path}"): b"content",
    ("GET", "/artifacts"): None,
    ("GET", "/artifacts/{path}"): None,
    ("DELETE", "/artifacts/{path}"): None,
    ("GET", "/artifact-previews/{path}"): None,
    ("GET", "/artifact-images/{path}"): None,
    ("POST", "/artifact-uploads"): {"path": "b.txt", "sha256": "0" * 64, "size": 1},
    ("GET", "/artifact-uploads/{upload_id}"): None,
    ("DELETE", "/artifact-uploads/{upload_id}"): None,
    ("PUT", "/artifact-uploads/{upload_id}/parts/{number}"): b"x",
    ("POST", "/artifact-uploads/{upload_id}/finish"): None,
}
_ON_EXPERIMENT: dict[tuple[str, str], Any] = {
    ("GET", ""): None,
    ("PATCH", ""): {"description": "mine"},
    ("DELETE", ""): None,
    ("POST", "/restore"): None,
    ("GET", "/runs"): None,
    ("POST", "/runs"): {},
    ("POST", "/archive"): None,
    ("POST", "/purge"): {"preview": False, "confirm": "blue/1"},
    ("PUT", "/baseline"): {"run_id": "RUN"},
    ("DELETE", "/baseline"): None,
    ("GET", "/views"): None,
    ("POST", "/views"): {"name": "mine"},
    ("GET", "/metric-goals"): None,
    ("PUT", "/metrics/{key}/goal"): {"goal": "minimize"},
    ("DELETE", "/metrics/{key}/goal"): None,
    ("GET", "/export"): None,
    ("GET", "/export/runs"): None,
    ("GET", "/export/models"): None,
    ("GET", "/export/artifacts"): None,
    ("GET", "/export/points"): None,
    ("POST", "/import/runs"): {"runs": [a_record()]},
    ("POST", "/import/models"): {"models": [a_model()]},
    ("POST", "/import/points"): NO_POINTS,
    ("POST", "/import/finish"): {"experiment": True},
}
ROUTES = {(method, form + suffix): body for form in (RUN, LONG) for (method, suffix), body in _ON_RUN.items()}
ROUTES |= {(method, EXPERIMENT + suffix): body for (method, suffix), body in _ON_EXPERIMENT.items()}
NAMELESS = {
    ("GET", "/api/experiments"),
    ("POST", "/api/experiments"),
    ("GET", "/api/experiments/folders"),
    ("GET", "/api/runs"),
    ("POST", "/api/runs/search"),
    ("POST", "/api/runs/bulk"),
    ("POST", "/api/experiments/import"),
}
QUERIES = {
    "/metric-points": "?key=loss",
    "/export/points": "?run_id=" + "1" * 32,
    "/export/artifacts": "?owner_id=" + "1" * 32,
}


class Hidden:
    """A run with everything, in an experiment that is not the caller's."""

    def __init__(self, owner: Caller, experiment_id: str, run_id: str, comment_id: str, upload_id: str) -> None:
        self.owner, self.experiment_id, self.run_id = owner, experiment_id, run_id
        self.comment_id, self.upload_id = comment_id, upload_id

    async def ask(self, caller: Caller, method: str, route: str) -> int:
        body = ROUTES[method, route]
        places = {
            "experiment_id": self.experiment_id, "run_id": self.run_id, "key": "loss", "path": "a.txt",
            "comment_id": self.comment_id, "upload_id": self.upload_id, "number": "1",
        }  # fmt: skip
        url = re.sub(r"{(\w+)}", lambda found: places[found[1]], route)
        url += next((query for ending, query in QUERIES.items() if route.endswith(ending)), "")
        names = {"PROJECT": self.owner.project, "EXPERIMENT": self.experiment_id, "RUN": self.run_id}
        text = re.sub("|".join(names), lambda found: names[found[0]], json.dumps(None if isinstance(body, bytes) else body))
        options: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": json.loads(text)}
        return (await caller.http.request(method, url, **({} if body is None else options))).status_code

    async def everything(self) -> list[Any]:
        on_experiment = [EXPERIMENT + suffix for suffix in ("", "/runs", "/metric-goals", "/views")]
        urls = [*on_experiment, *(RUN + suffix for suffix in ("/metrics", "/artifacts", "/comments"))]
        asked = [url.format(experiment_id=self.experiment_id, run_id=self.run_id) for url in urls]
        asked.append(f"/api/runs/{self.run_id}/artifact-uploads/{self.upload_id}")
        return [(await self.owner.http.get(url)).json() for url in asked]


@pytest.fixture
async def hidden(platform: Platform) -> Hidden:
    owner = await platform.caller(SERVICE)
    experiment_id = await an_experiment(owner, "blue/1")
    run_id = await a_run(owner, experiment_id, {"loss": 1}, parameters={"seed": 1})
    assert (await owner.http.put(f"/api/runs/{run_id}/artifacts/a.txt", content=b"secret")).status_code == 200
    comment = await owner.http.post(f"/api/runs/{run_id}/comments", json={"text": "secret"})
    body = {"path": "c.txt", "sha256": "0" * 64, "size": 1}
    upload = await owner.http.post(f"/api/runs/{run_id}/artifact-uploads", json=body)
    return Hidden(owner, experiment_id, run_id, comment.json()["id"], upload.json()["id"])


def test_every_route_of_the_service_is_asked_below():
    served = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in routes_of(TRACKING)
        if isinstance(route, APIRoute) and route.path.startswith(("/api/runs", "/api/experiments"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == set(ROUTES) | NAMELESS


@pytest.mark.parametrize(("method", "route"), sorted(ROUTES))
async def test_what_a_grant_does_not_name_is_not_there(platform, hidden, method, route):
    before = await hidden.everything()
    limited = await platform.caller(SERVICE, Role.ADMIN, project=hidden.owner.project, pattern="red/*")
    assert await hidden.ask(limited, method, route) == 404
    assert await hidden.everything() == before


@pytest.mark.parametrize(("method", "route"), sorted(route for route in ROUTES if route[0] != "GET"))
async def test_who_may_only_read_a_name_may_not_change_it(platform, hidden, method, route):
    before = await hidden.everything()
    reader = await platform.caller(SERVICE, Role.VIEWER, project=hidden.owner.project)
    async with platform.runtime.database.write() as session:
        access = Directory(session, platform.runtime.auth_keys, platform.runtime.clock.now())
        principal_id = await access.ensure_principal(reader.principal, PrincipalKind.USER)
        await access.grant(principal_id, hidden.owner.project, Role.ADMIN, pattern="red/*")
    assert await hidden.ask(reader, method, route) == 403
    assert await hidden.everything() == before


async def test_what_names_no_experiment_shows_and_changes_none_that_a_grant_does_not_name(platform, hidden):
    before = await hidden.everything()
    limited = await platform.caller(SERVICE, Role.ADMIN, project=hidden.owner.project, pattern="red/*")
    assert (await limited.http.get("/api/experiments/folders")).json()["items"] == []
    changed = await limited.http.post("/api/runs/bulk", json={"action": "delete", "run_ids": [hidden.run_id]})
    assert changed.status_code == 404
    searched = {"action": "delete", "search": {"experiment_ids": [hidden.experiment_id]}}
    assert (await limited.http.post("/api/runs/bulk", json=searched)).json().get("run_ids", []) == []
    assert (await limited.http.post("/api/compare", json={"run_ids": [hidden.run_id]})).status_code == 404
    assert await hidden.everything() == before


async def test_a_view_of_an_experiment_that_a_grant_does_not_name_is_not_there(platform, hidden):
    made = await hidden.owner.http.post(f"/api/experiments/{hidden.experiment_id}/views", json={"name": "secret"})
    limited = await platform.caller(SERVICE, Role.ADMIN, project=hidden.owner.project, pattern="red/*")
    url = f"/api/views/{made.json()['id']}"
    for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
        assert (await limited.http.request(method, url, **({"json": body} if body else {}))).status_code == 404
    assert (await hidden.owner.http.get(url)).json()["name"] == "secret"


_ON_SWEEP: dict[tuple[str, str], Any] = {
    ("GET", ""): None,
    ("GET", "/trials"): None,
    ("GET", "/best"): None,
    ("GET", "/history"): None,
    ("GET", "/importance"): None,
    ("GET", "/trials/{run_id}/prune"): None,
    ("POST", "/ask"): {},
    ("POST", "/tell"): {"run_id": "TRIAL", "values": [1]},
    ("POST", "/stop"): {},
    ("POST", "/resume"): {},
}


def test_every_route_of_sweeps_is_asked_below():
    prefix = "/api/sweeps/{sweep_id}"
    served = {
        (method, route.path.removeprefix(prefix))
        for route in routes_of(TRACKING)
        if isinstance(route, APIRoute) and route.path.startswith(prefix)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == set(_ON_SWEEP)


async def test_a_sweep_of_an_experiment_that_a_grant_does_not_name_is_not_there(platform, hidden):
    sweep_id = await a_sweep(hidden.owner, hidden.experiment_id)
    trial = await a_trial(hidden.owner, sweep_id)
    before = (await hidden.owner.http.get(f"/api/sweeps/{sweep_id}")).json()
    limited = await platform.caller(SERVICE, Role.ADMIN, project=hidden.owner.project, pattern="red/*")
    for (method, suffix), body in _ON_SWEEP.items():
        url = f"/api/sweeps/{sweep_id}{suffix}".format(run_id=trial["run_id"])
        sent = None if body is None else {key: trial["run_id"] if it == "TRIAL" else it for key, it in body.items()}
        response = await limited.http.request(method, url, **({} if sent is None else {"json": sent}))
        assert response.status_code == 404, (method, suffix, response.text)
    assert (await limited.http.get("/api/sweeps")).json()["items"] == []
    new = {"experiment_id": hidden.experiment_id, "method": "grid", "parameters": GRID, "objectives": LOSS}
    assert (await limited.http.post("/api/sweeps", json=new)).status_code == 404
    assert (await hidden.owner.http.get(f"/api/sweeps/{sweep_id}")).json() == before


async def test_who_may_only_read_an_experiment_may_not_work_on_its_sweeps(platform, hidden):
    sweep_id = await a_sweep(hidden.owner, hidden.experiment_id)
    trial = await a_trial(hidden.owner, sweep_id)
    before = (await hidden.owner.http.get(f"/api/sweeps/{sweep_id}")).json()
    reader = await platform.caller(SERVICE, Role.VIEWER, project=hidden.owner.project)
    async with platform.runtime.database.write() as session:
        access = Directory(session, platform.runtime.auth_keys, platform.runtime.clock.now())
        principal_id = await access.ensure_principal(reader.principal, PrincipalKind.USER)
        await access.grant(principal_id, hidden.owner.project, Role.ADMIN, pattern="red/*")
    for (_, suffix), body in _ON_SWEEP.items():
        if body is not None:
            sent = {key: trial["run_id"] if it == "TRIAL" else it for key, it in body.items()}
            response = await reader.http.post(f"/api/sweeps/{sweep_id}{suffix}", json=sent)
            assert response.status_code == 403, (suffix, response.text)
    assert (await hidden.owner.http.get(f"/api/sweeps/{sweep_id}")).json() == before


async def test_series_leave_out_what_a_grant_does_not_name(platform, hidden):
    limited = await platform.caller(SERVICE, Role.ADMIN, project=hidden.owner.project, pattern="red/*")
    body = {"runs": [hidden.run_id], "keys": ["loss"]}
    assert (await limited.http.post("/api/series", json=body)).json() == {"items": []}
    assert len((await hidden.owner.http.post("/api/series", json=body)).json()["items"]) == 1
