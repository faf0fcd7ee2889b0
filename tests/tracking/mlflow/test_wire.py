"""MLflow's wire, byte for byte where clients look."""

import base64
import dataclasses
import itertools
import re
import types
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlops_platform.core.auth.tokens import read_token, read_upload_token
from mlops_platform.core.clock import FixedClock
from mlops_platform.core.identity import Role
from mlops_platform.core.settings import Mode
from mlops_platform.tracking.service.uploads import forget_old
from tests.factories.tracking import a_run, an_experiment

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts"
NO_RUN = "0" * 32


async def post(caller, path, status=200, /, **body):
    response = await caller.http.post(f"{API}/{path}", json=body)
    assert response.status_code == status, response.text
    return response.json()


async def get(caller, path, status=200, /, **query):
    response = await caller.http.get(f"{API}/{path}", params=query)
    assert response.status_code == status, response.text
    return response.json()


async def a_new_run(caller, **fields):
    return (await post(caller, "runs/create", experiment_id="0", **fields))["run"]["info"]["run_id"]


class TestErrors:
    async def test_they_have_mlflows_form_and_nothing_else(self, caller):
        body = await get(caller, "experiments/get", 404, experiment_id="77")
        assert body == {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No Experiment with id=77 exists"}

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", f"{API}/nonsense", 404, "ENDPOINT_NOT_FOUND"),
            ("GET", "/ajax-api/2.0/mlflow/nonsense", 404, "ENDPOINT_NOT_FOUND"),
            ("GET", "/api/3.0/mlflow/traces", 404, "ENDPOINT_NOT_FOUND"),
            ("GET", f"{API}/registered-models/get", 404, "ENDPOINT_NOT_FOUND"),
            ("DELETE", f"{API}/runs/create", 405, "BAD_REQUEST"),
            ("GET", f"{API}/runs/get", 400, "INVALID_PARAMETER_VALUE"),
        ],
    )
    async def test_an_unknown_path_or_method_or_a_missing_field_has_its_code(self, caller, method, path, status, code):
        response = await caller.http.request(method, path)
        assert (response.status_code, response.json()["error_code"]) == (status, code)
        assert set(response.json()) == {"error_code", "message"}

    async def test_other_paths_go_on_with_problems(self, caller):
        response = await caller.http.get("/api/nonsense")
        assert response.headers["content-type"] == "application/problem+json"

    async def test_a_missing_or_wrong_credential_is_mlflows_401(self, platform):
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            response = await platform.client("experiment-tracking").get(f"{API}/runs/get", headers=headers)
            assert response.status_code == 401
            assert response.json()["error_code"] == "UNAUTHENTICATED"

    async def test_the_password_of_a_login_may_be_the_key(self, platform, caller):
        login = base64.b64encode(f"anyone:{caller.key}".encode()).decode()
        client = platform.client("experiment-tracking")
        response = await client.get(
            f"{API}/experiments/get", params={"experiment_id": "0"}, headers={"Authorization": f"Basic {login}"}
        )
        assert response.status_code == 200

    async def test_the_workspace_is_the_project(self, caller):
        response = await caller.http.get(
            f"{API}/experiments/get", params={"experiment_id": "0"}, headers={"X-MLFLOW-WORKSPACE": "no-such-project"}
        )
        assert response.status_code == 400
        assert response.json()["error_code"] == "BAD_REQUEST"

    @pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff", b'{"run_id": NaN}'])
    async def test_a_body_that_is_no_json_object_is_400(self, caller, body):
        response = await caller.http.post(f"{API}/runs/create", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 400
        assert response.json()["error_code"] == "BAD_REQUEST"

    async def test_a_body_of_another_type_is_400(self, caller):
        response = await caller.http.post(f"{API}/runs/create", content=b"a=b")
        assert response.json()["error_code"] == "INVALID_PARAMETER_VALUE"
        assert "Content-Type must be one of ['application/json']" in response.json()["message"]

    @pytest.mark.parametrize("path", ["runs/log-batch", "runs/log-metric"])
    async def test_a_body_that_is_too_large_is_refused(self, caller, path):
        response = await caller.http.post(f"{API}/{path}", json={"key": "x" * 1_100_000})
        assert response.status_code in {400, 413}
        assert response.json()["error_code"] == "INVALID_PARAMETER_VALUE"

    async def test_a_required_field_that_is_missing_is_named_as_mlflow_names_it(self, caller):
        body = await post(caller, "runs/log-metric", 400, run_id=NO_RUN)
        assert body["message"].startswith("Missing value for required parameter 'key'.")

    async def test_a_viewer_reads_and_does_not_write(self, platform, caller):
        run_id = await a_new_run(caller)
        viewer = await platform.caller("experiment-tracking", Role.VIEWER, project=caller.project)
        await get(viewer, "runs/get", run_id=run_id)
        body = await post(viewer, "runs/log-metric", 403, run_id=run_id, key="a", value=1, timestamp=1)
        assert body["error_code"] == "PERMISSION_DENIED"

    async def test_another_project_sees_nothing(self, platform, caller):
        run_id = await a_new_run(caller)
        other = await platform.caller("experiment-tracking")
        await get(other, "runs/get", 404, run_id=run_id)
        await post(other, "runs/log-metric", 404, run_id=run_id, key="a", value=1, timestamp=1)
        await post(other, "runs/log-batch", 404, run_id=run_id, params=[{"key": "a", "value": "b"}])
        await post(other, "runs/log-inputs", 404, run_id=run_id)
        response = await other.http.get(f"{PROXY}/artifacts/0/{run_id}/artifacts/a")
        assert response.status_code == 404

    async def test_a_grant_for_some_names_reaches_only_those(self, platform, caller):
        mine = await post(caller, "experiments/create", name="mine")
        other = await post(caller, "experiments/create", name="other")
        run = await post(caller, "runs/create", **other)
        limited = await platform.caller("experiment-tracking", Role.CONTRIBUTOR, project=caller.project, pattern="mine*")
        await post(limited, "runs/create", **mine)
        await post(limited, "runs/create", 404, **other)
        run_id = run["run"]["info"]["run_id"]
        await post(limited, "runs/log-metric", 404, run_id=run_id, key="a", value=1, timestamp=1)
        found = await post(limited, "experiments/search", max_results=10)
        assert [it["name"] for it in found["experiments"]] == ["mine"]
        await post(limited, "experiments/create", 403, name="theirs")


class TestExperiments:
    async def test_ids_are_small_integers_that_the_native_api_shows_as_numbers(self, caller):
        native = await an_experiment(caller, "native")
        made = await post(caller, "experiments/create", name="wire")
        assert made == {"experiment_id": "2"}
        assert (await caller.http.get(f"/api/experiments/{native}")).json()["number"] == 1
        listed = (await caller.http.get("/api/experiments")).json()["items"]
        assert {it["name"]: it["number"] for it in listed} == {"Default": 0, "native": 1, "wire": 2}

    async def test_an_experiment_that_is_called_default_is_number_0(self, caller):
        native = await an_experiment(caller, "Default")
        found = await get(caller, "experiments/get", experiment_id="0")
        assert (await caller.http.get(f"/api/experiments/{native}")).json()["number"] == 0
        assert found["experiment"]["name"] == "Default"

    async def test_a_description_is_mlflows_note(self, caller):
        await an_experiment(caller, "described", description="what it is for")
        found = await get(caller, "experiments/get-by-name", experiment_name="described")
        assert found["experiment"]["tags"] == [{"key": "mlflow.note.content", "value": "what it is for"}]

    async def test_an_artifact_location_of_the_clients_own_is_kept(self, caller):
        made = await post(caller, "experiments/create", name="own", artifact_location="s3://bucket/of/mine")
        run = await post(caller, "runs/create", **made)
        run_id = run["run"]["info"]["run_id"]
        assert run["run"]["info"]["artifact_uri"] == f"s3://bucket/of/mine/{run_id}/artifacts"

    @pytest.mark.parametrize("name", ["", " ", "x" * 501, "a\nb"])
    async def test_a_name_that_cannot_be_is_refused(self, caller, name):
        await post(caller, "experiments/create", 400, name=name)

    async def test_unknown_fields_are_ignored_and_absent_ones_left_out(self, caller):
        made = await post(caller, "experiments/create", name="a", surprise={"b": 1})
        assert made == {"experiment_id": "1"}
        run = (await post(caller, "runs/create", experiment_id="1", surprise=1))["run"]
        assert "end_time" not in run["info"]
        assert "metrics" not in run["data"]
        assert run["info"]["run_uuid"] == run["info"]["run_id"]
        assert isinstance(run["info"]["start_time"], int)

    async def test_search_reads_repeated_keys_of_a_query(self, caller):
        for name in ("a", "b"):
            await post(caller, "experiments/create", name=name)
        query = [("max_results", "5"), ("order_by", "tags.x"), ("order_by", "name DESC")]
        response = await caller.http.get("/ajax-api/2.0/mlflow/experiments/search", params=query)
        assert [it["name"] for it in response.json()["experiments"]] == ["b", "a", "Default"]


class TestLogging:
    @pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
    async def test_what_json_has_no_number_for_is_a_text_both_ways(self, caller, value):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", run_id=run_id, key="m", value=value, timestamp=1)
        metric = {"key": "m", "value": value, "timestamp": 1, "step": 0}
        assert (await get(caller, "runs/get", run_id=run_id))["run"]["data"]["metrics"] == [metric]
        history = await get(caller, "metrics/get-history", run_id=run_id, metric_key="m")
        assert history == {"metrics": [metric]}

    @pytest.mark.parametrize("value", [True, "text", None, [1], {}])
    async def test_what_is_no_number_is_no_metric(self, caller, value):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", 400, run_id=run_id, key="m", value=value, timestamp=1)

    @pytest.mark.parametrize("key", ["../a", "a//b", "a/", "/a", "a\\b", "ä?", ".", "x" * 251])
    async def test_a_key_that_is_no_plain_path_is_refused(self, caller, key):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", 400, run_id=run_id, key=key, value=1, timestamp=1)
        await post(caller, "runs/log-parameter", 400, run_id=run_id, key=key, value="1")
        await post(caller, "runs/set-tag", 400, run_id=run_id, key=key, value="1")
        await post(caller, "runs/log-batch", 400, run_id=run_id, tags=[{"key": key, "value": "1"}])

    @pytest.mark.parametrize("timestamp", [-1, "soon", 2**60, 1.5])
    async def test_a_time_that_cannot_be_is_refused(self, caller, timestamp):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", 400, run_id=run_id, key="m", value=1, timestamp=timestamp)

    async def test_digits_in_a_text_are_integers(self, caller):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", run_id=run_id, key="m", value=1, timestamp="1700000000000", step="-3")
        history = await get(caller, "metrics/get-history", run_id=run_id, metric_key="m")
        assert history["metrics"] == [{"key": "m", "value": 1.0, "timestamp": 1700000000000, "step": -3}]

    @pytest.mark.parametrize(
        ("kind", "number"), [("metrics", 1001), ("params", 101), ("tags", 101)], ids=["metrics", "params", "tags"]
    )
    async def test_a_batch_has_limits(self, caller, kind, number):
        run_id = await a_new_run(caller)
        items = [{"key": f"k{n}", "value": "1", "timestamp": 1} for n in range(number)]
        body = await post(caller, "runs/log-batch", 400, run_id=run_id, **{kind: items})
        assert body["message"].startswith(f"A batch logging request can contain at most {number - 1} {kind}.")

    async def test_a_batch_with_a_changed_parameter_keeps_nothing(self, caller):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-parameter", run_id=run_id, key="depth", value="3")
        body = await post(
            caller,
            "runs/log-batch",
            400,
            run_id=run_id,
            params=[{"key": "other", "value": "1"}, {"key": "depth", "value": "5"}],
            tags=[{"key": "t", "value": "1"}],
            metrics=[{"key": "m", "value": 1, "timestamp": 1}],
        )
        assert body["message"] == (
            "Changing param values is not allowed. Param with key='depth' was already logged with value='3' for run ID="
            f"'{run_id}'. Attempted logging new value '5'."
        )
        data = (await get(caller, "runs/get", run_id=run_id))["run"]["data"]
        assert data["params"] == [{"key": "depth", "value": "3"}]
        assert "metrics" not in data
        assert [tag["key"] for tag in data["tags"]] == ["mlflow.runName"]

    async def test_a_key_twice_in_one_batch_is_refused(self, caller):
        run_id = await a_new_run(caller)
        twice = [{"key": "a", "value": "1"}, {"key": "a", "value": "1"}]
        body = await post(caller, "runs/log-batch", 400, run_id=run_id, params=twice)
        assert "Duplicate parameter keys have been submitted: ['a']" in body["message"]

    async def test_an_empty_batch_still_wants_a_run(self, caller):
        await post(caller, "runs/log-batch", run_id=await a_new_run(caller))
        await post(caller, "runs/log-batch", 404, run_id=NO_RUN)

    async def test_parameters_keep_their_text_and_are_numbers_natively(self, caller):
        run_id = await a_new_run(caller)
        params = {"a": "0.010", "b": "1e-3", "c": "007", "d": "True", "e": "nan", "f": "-5", "g": ""}
        await post(caller, "runs/log-batch", run_id=run_id, params=[{"key": k, "value": v} for k, v in params.items()])
        data = (await get(caller, "runs/get", run_id=run_id))["run"]["data"]
        assert {it["key"]: it["value"] for it in data["params"]} == params
        native = (await caller.http.get(f"/api/runs/{run_id}")).json()["parameters"]
        assert native == {"a": 0.01, "b": 0.001, "c": "007", "d": "True", "e": "nan", "f": -5, "g": ""}

    async def test_a_native_run_is_seen_with_mlflows_tags(self, caller):
        parent = await a_run(caller, run_name="parent", notes="a note", parameters={"lr": 0.1, "deep": {"n": True}})
        experiment = (await caller.http.get(f"/api/runs/{parent}")).json()["experiment_id"]
        child = await a_run(caller, experiment, parent_run_id=parent, metrics={"loss": 0.5})
        run = (await get(caller, "runs/get", run_id=parent))["run"]
        assert {it["key"]: it["value"] for it in run["data"]["tags"]} == {
            "mlflow.runName": "parent",
            "mlflow.note.content": "a note",
        }
        assert {it["key"]: it["value"] for it in run["data"]["params"]} == {"lr": "0.1", "deep.n": "true"}
        found = await post(caller, "runs/search", experiment_ids=["1"], filter=f"tags.mlflow.parentRunId = '{parent}'")
        assert [it["info"]["run_id"] for it in found["runs"]] == [child]


class TestHistory:
    async def logged(self, caller, number):
        run_id = await a_new_run(caller)
        metrics = [{"key": "m", "value": n / 2, "timestamp": n, "step": n} for n in range(number)]
        for start in range(0, number, 1000):
            await post(caller, "runs/log-batch", run_id=run_id, metrics=metrics[start : start + 1000])
        return run_id

    async def test_pages_follow_each_other_and_the_last_has_no_token(self, caller):
        run_id = await self.logged(caller, 10)
        steps, token, pages = [], None, 0
        while pages == 0 or token:
            query = {"run_id": run_id, "metric_key": "m", "max_results": 5} | ({"page_token": token} if token else {})
            page = await get(caller, "metrics/get-history", **query)
            steps += [it["step"] for it in page["metrics"]]
            token, pages = page.get("next_page_token"), pages + 1
        assert (steps, pages) == (list(range(10)), 2)
        await get(caller, "metrics/get-history", 400, run_id=run_id, metric_key="m", max_results=0)
        await get(caller, "metrics/get-history", 400, run_id=run_id, metric_key="m", page_token="x")
        assert await get(caller, "metrics/get-history", run_id=run_id, metric_key="never") == {}

    @pytest.mark.parametrize(("number", "most"), [(1000, 10), (1000, 320), (10, 320), (2, 1), (7, 2), (0, 5)])
    async def test_a_chart_gets_as_many_points_as_it_asks_for_and_both_ends(self, caller, number, most):
        run_id = await self.logged(caller, number)
        response = await caller.http.get(
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval",
            params={"run_ids": [run_id], "metric_key": "m", "max_results": most},
        )
        steps = [it["step"] for it in response.json().get("metrics", [])]
        assert len(steps) == min(most, number)
        assert steps == sorted(set(steps))
        if number and most > 1:
            assert (steps[0], steps[-1]) == (0, number - 1)
            gaps = {later - earlier for earlier, later in itertools.pairwise(steps)}
            assert max(gaps) - min(gaps) <= 1

    async def test_a_chart_may_ask_for_an_interval_of_several_runs(self, caller):
        runs = [await self.logged(caller, 20) for _ in range(2)]
        found = await get(
            caller, "metrics/get-history-bulk-interval", run_ids=runs, metric_key="m", start_step=5, end_step=7
        )
        assert {(it["run_id"], it["step"]) for it in found["metrics"]} == {(run, n) for run in runs for n in (5, 6, 7)}
        only_start = {"run_ids": runs, "metric_key": "m", "start_step": 5}
        await get(caller, "metrics/get-history-bulk-interval", 400, **only_start)
        await get(caller, "metrics/get-history-bulk-interval", 400, **only_start, end_step=4)
        await get(caller, "metrics/get-history-bulk-interval", 400, run_ids=[NO_RUN] * 101, metric_key="m")
        await get(caller, "metrics/get-history-bulk-interval", 404, run_ids=[NO_RUN], metric_key="m")
        bulk = await caller.http.get(
            "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
            params={"run_id": runs, "metric_key": "m", "max_results": 25},
        )
        assert [it["run_id"] for it in bulk.json()["metrics"]] == [min(runs)] * 20 + [max(runs)] * 5


class TestArtifacts:
    @pytest.mark.parametrize(
        "path",
        [
            "../x",
            "a/../../x",
            "%2e%2e/x",
            "%252e%252e/x",
            "a/%2e%2e/%2e%2e/x",
            "/etc/passwd",
            "//x",
            "c:/x",
            "a\\..\\x",
            "file:///x",
        ],
    )
    async def test_a_path_that_leads_elsewhere_is_400(self, caller, path):
        run_id = await a_new_run(caller)
        for method in ("GET", "PUT", "DELETE"):
            response = await caller.http.request(method, f"{PROXY}/artifacts/{path}", content=b"x")
            assert response.status_code in {400, 404, 405}, (method, response.text)
            whole = f"{PROXY}/artifacts/0/{run_id}/artifacts/{path.replace('%', '%25')}"
            response = await caller.http.request(method, whole, content=b"x")
            assert response.status_code in {200, 400, 404}, (method, response.text)
        listed = await caller.http.get(f"{PROXY}/artifacts", params={"path": path})
        assert listed.status_code == 400
        assert listed.json() == {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid path"}
        await get(caller, "artifacts/list", 400, run_id=run_id, path=path)
        assert await get(caller, "artifacts/list", run_id=run_id) == {"root_uri": f"mlflow-artifacts:/0/{run_id}/artifacts"}

    async def test_a_run_is_reached_through_its_own_experiment_only(self, caller):
        run_id = await a_new_run(caller)
        await post(caller, "experiments/create", name="other")
        response = await caller.http.put(f"{PROXY}/artifacts/1/{run_id}/artifacts/a", content=b"x")
        assert response.status_code == 404
        response = await caller.http.put(f"{PROXY}/artifacts/0/{run_id}/artifacts/a", content=b"x")
        assert (response.status_code, response.json()) == (200, {})
        got = await caller.http.get(f"{PROXY}/artifacts/0/{run_id}/artifacts/a", headers={"Range": "bytes=0-0"})
        assert (got.status_code, got.content) == (206, b"x")
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["content-disposition"].startswith("attachment")

    async def test_nothing_is_listed_where_nothing_is(self, caller):
        run_id = await a_new_run(caller)
        for path in ("", "nowhere", "0", f"0/{run_id}", f"0/{run_id}/artifacts/none"):
            response = await caller.http.get(f"{PROXY}/artifacts", params={"path": path})
            assert (response.status_code, response.json()) == (200, {}), path

    async def test_a_deleted_run_takes_no_files(self, caller):
        run_id = await a_new_run(caller)
        await post(caller, "runs/delete", run_id=run_id)
        response = await caller.http.put(f"{PROXY}/artifacts/0/{run_id}/artifacts/a", content=b"x")
        assert response.status_code == 400
        assert "must be in the 'active' state" in response.json()["message"]


class TestMultipart:
    async def begun(self, caller, parts=2):
        run_id = await a_new_run(caller)
        folder = f"0/{run_id}/artifacts/data"
        response = await caller.http.post(
            f"{PROXY}/mpu/create/{folder}", json={"path": "/home/me/large.bin", "num_parts": parts}
        )
        assert response.status_code == 200, response.text
        return folder, response.json()

    async def sent(self, caller, credential, content):
        response = await caller.http.put(credential["url"].replace("http://localhost", ""), content=content)
        assert response.status_code == 200, response.text
        return {"part_number": credential["part_number"], "etag": response.headers["etag"], "url": credential["url"]}

    async def test_parts_in_any_order_become_one_file(self, caller):
        folder, upload = await self.begun(caller)
        second, first = [
            await self.sent(caller, each, content)
            for each, content in ((upload["credentials"][1], b"second"), (upload["credentials"][0], b"first "))
        ]
        body = {"path": "/home/me/large.bin", "upload_id": upload["upload_id"], "parts": [first, second]}
        missing = await caller.http.get(f"{PROXY}/artifacts/{folder}/large.bin")
        assert missing.status_code == 404
        done = await caller.http.post(f"{PROXY}/mpu/complete/{folder}", json=body)
        assert (done.status_code, done.json()) == (200, {})
        assert (await caller.http.get(f"{PROXY}/artifacts/{folder}/large.bin")).content == b"first second"
        again = await caller.http.post(f"{PROXY}/mpu/complete/{folder}", json=body, headers={"Idempotency-Key": "a"})
        assert (again.status_code, again.json()) == (200, {})

    async def test_a_part_goes_with_a_token_that_opens_nothing_else(self, platform, caller):
        folder, upload = await self.begun(caller)
        _, other = await self.begun(caller)
        (headers,) = {tuple(each["headers"].items()) for each in upload["credentials"]}
        assert caller.key not in str(upload)
        bearer = platform.client("experiment-tracking")
        bearer.headers.update(dict(headers))
        await self.sent(types.SimpleNamespace(http=bearer), upload["credentials"][0], b"first ")
        refused: list[tuple[str, str, dict[str, Any], int]] = [
            ("PUT", f"{PROXY}/mpu/part/{other['upload_id']}/1", {"content": b"x"}, 404),
            ("PUT", f"{PROXY}/artifacts/{folder}/other.bin", {"content": b"x"}, 403),
            ("GET", f"{PROXY}/artifacts?path={folder}", {}, 403),
            ("POST", f"{PROXY}/mpu/complete/{folder}", {"json": {"path": "large.bin"}}, 403),
            ("POST", f"{PROXY}/mpu/create/{folder}", {"json": {"path": "large.bin"}}, 403),
            ("GET", "/api/experiments", {}, 403),
            ("POST", "/api/experiments", {"json": {"name": "mine"}}, 403),
            ("GET", "/api/platform/keys", {}, 403),
        ]
        for method, path, options, status in refused:
            response = await bearer.request(method, path, **options)
            assert response.status_code == status, (method, path, response.text)

    async def test_a_token_for_parts_ends_with_the_key_that_it_was_made_for(self, platform, caller):
        _, upload = await self.begun(caller)
        bearer = platform.client("experiment-tracking")
        bearer.headers.update(upload["credentials"][0]["headers"])
        path = f"{PROXY}/mpu/part/{upload['upload_id']}/1"
        assert (await bearer.put(path, content=b"x")).status_code == 200
        keys = (await caller.http.get("/api/platform/keys")).json()["items"]
        revoked = await caller.http.delete(f"/api/platform/keys/{keys[0]['id']}")
        assert revoked.status_code in {200, 204}, revoked.text
        assert (await bearer.put(path, content=b"x")).status_code == 401

    async def test_a_token_for_parts_does_not_outlive_its_time(self, platform, caller):
        _, upload = await self.begun(caller)
        token = upload["credentials"][0]["headers"]["Authorization"].removeprefix("Bearer ")
        key, now = platform.runtime.auth_keys.upload, datetime.now(UTC)
        claims = read_upload_token(key, token, now)
        assert claims is not None
        assert claims.upload_id == upload["upload_id"]
        assert read_upload_token(key, token, now + timedelta(minutes=13)) is None
        assert read_upload_token(platform.runtime.auth_keys.token, token, now) is None
        assert read_token(key, token, now) is None

    async def test_a_part_that_is_missing_or_another_is_refused(self, caller):
        folder, upload = await self.begun(caller)
        first = await self.sent(caller, upload["credentials"][0], b"first ")
        for parts in ([first], [first, {**first, "part_number": 2}], [], [{**first, "etag": "other"}]):
            body = {"path": "large.bin", "upload_id": upload["upload_id"], "parts": parts}
            response = await caller.http.post(f"{PROXY}/mpu/complete/{folder}", json=body)
            assert response.status_code == 400, parts
        response = await caller.http.put(f"{PROXY}/mpu/part/{upload['upload_id']}/3", content=b"x")
        assert response.status_code == 400

    async def test_an_upload_that_is_given_up_is_forgotten(self, caller):
        folder, upload = await self.begun(caller)
        await self.sent(caller, upload["credentials"][0], b"first ")
        body = {"path": "large.bin", "upload_id": upload["upload_id"]}
        for _ in range(2):
            response = await caller.http.post(f"{PROXY}/mpu/abort/{folder}", json=body)
            assert (response.status_code, response.json()) == (200, {})
        response = await caller.http.put(f"{PROXY}/mpu/part/{upload['upload_id']}/1", content=b"x")
        assert response.status_code == 404

    async def test_nobody_else_sends_parts_of_it(self, platform, caller):
        folder, upload = await self.begun(caller)
        other = await platform.caller("experiment-tracking")
        viewer = await platform.caller("experiment-tracking", Role.VIEWER, project=caller.project)
        for stranger, status in ((other, 404), (viewer, 403)):
            path = f"{PROXY}/mpu/part/{upload['upload_id']}/1"
            assert (await stranger.http.put(path, content=b"x")).status_code == status
            created = await stranger.http.post(f"{PROXY}/mpu/create/{folder}", json={"path": "a", "num_parts": 1})
            assert created.status_code == status

    async def test_what_nobody_goes_on_with_is_swept(self, platform, caller):
        _, upload = await self.begun(caller)
        await self.sent(caller, upload["credentials"][0], b"first ")
        later = dataclasses.replace(platform.runtime, clock=FixedClock(datetime.now(UTC) + timedelta(hours=49)))
        await forget_old(later)
        response = await caller.http.put(f"{PROXY}/mpu/part/{upload['upload_id']}/1", content=b"x")
        assert response.status_code == 404


class TestReset:
    async def test_a_project_is_as_new_and_others_are_untouched(self, platform, caller):
        run_id = await a_new_run(caller)
        await post(caller, "runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)
        dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "x"}
        await post(caller, "runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset}])
        model = await post(caller, "logged-models", experiment_id="0", name="m", source_run_id=run_id)
        await post(caller, "runs/outputs", run_id=run_id, models=[{"model_id": model["model"]["info"]["model_id"]}])
        await caller.http.put(f"{PROXY}/artifacts/0/{run_id}/artifacts/a", content=b"x")
        await post(caller, "experiments/create", name="one")
        other = await platform.caller("experiment-tracking")
        kept = await a_new_run(other)
        response = await caller.http.post(f"/api/platform/projects/{caller.project}/reset")
        assert response.status_code == 200, response.text
        assert response.json()["removed"]["experiments"] == 2
        found = await post(caller, "experiments/search", max_results=10, view_type="ALL")
        assert [it["experiment_id"] for it in found["experiments"]] == ["0"]
        assert (await post(caller, "experiments/create", name="one"))["experiment_id"] == "1"
        await get(caller, "runs/get", 404, run_id=run_id)
        await get(other, "runs/get", run_id=kept)
        again = await a_new_run(caller)
        await post(caller, "runs/log-metric", run_id=again, key="m", value=2, timestamp=1)

    async def test_only_its_own_project_and_only_in_development(self, platform, caller, monkeypatch):
        other = await platform.caller("experiment-tracking")
        response = await caller.http.post(f"/api/platform/projects/{other.project}/reset")
        assert response.status_code == 404
        contributor = await platform.caller("experiment-tracking", Role.CONTRIBUTOR, project=caller.project)
        response = await contributor.http.post(f"/api/platform/projects/{caller.project}/reset")
        assert response.status_code == 403
        state = platform.apps["experiment-tracking"].fastapi.state
        production = platform.runtime.settings.model_copy(update={"mode": Mode.PRODUCTION})
        monkeypatch.setitem(state._state, "runtime", dataclasses.replace(platform.runtime, settings=production))
        response = await caller.http.post(f"/api/platform/projects/{caller.project}/reset")
        assert (response.status_code, response.json()["code"]) == (409, "reset_refused")


async def test_the_version_is_mlflows_for_its_clients_and_ours_for_others(caller):
    response = await caller.http.get("/version", headers={"User-Agent": "mlflow-python-client/3.18.0"})
    assert re.fullmatch(r"\d+\.\d+\.\d+", response.text)
    assert (await caller.http.get("/version")).json()["service"] == "experiment-tracking"


async def test_the_server_says_what_it_can(caller):
    response = await caller.http.get("/api/3.0/mlflow/server-info")
    assert response.status_code == 200, response.text
    assert response.json()["store_type"] == "SqlStore"
    assert response.json()["workspaces_enabled"] is False
