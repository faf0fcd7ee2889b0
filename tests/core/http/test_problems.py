import json

import pytest

from mlops_platform.core.errors import FieldError, InvalidInput
from mlops_platform.core.http.problems import from_validation, problem_bytes


def shown(value, field="amount"):
    body = problem_bytes(InvalidInput("no", errors=[FieldError(field, "is wrong", value)]), "r1")
    return json.loads(body)["errors"][0].get("value")


class TestValues:
    def test_a_value_that_json_cannot_hold_does_not_break_the_answer(self):
        for value in (10**5000, [10**5000], float("nan"), float("inf"), "\ud800", "\x00", b"\xff", object()):
            assert isinstance(shown(value), str)

    def test_a_long_value_is_cut(self):
        assert len(shown("x" * 10_000)) == 101

    @pytest.mark.parametrize("field", ["password", "api_key", "auth.token", "client_secret", "Authorization"])
    def test_the_value_of_a_field_that_is_named_like_a_secret_is_not_echoed(self, field):
        assert shown("hunter2", field) is None

    def test_a_secret_within_the_object_around_a_missing_field_is_not_echoed(self):
        assert "hunter2" not in shown({"password": "hunter2", "note": "x"}, "name")

    def test_what_looks_like_a_key_is_not_echoed_in_any_field(self):
        assert "Ab3" not in shown("mlops_user_Ab3Ab3Ab3Ab3Ab3Ab3Ab3Ab3Ab_123456", "name")

    def test_a_field_that_the_caller_named_is_cut_too(self):
        error = from_validation([{"loc": ("body", "x" * 100_000), "msg": "Extra inputs are not permitted", "input": 1}])
        assert len(problem_bytes(error, None)) < 2000

    def test_twenty_of_a_thousand_errors_are_shown_and_all_are_counted(self):
        errors = [{"loc": ("body", "a", n), "msg": "wrong", "input": n} for n in range(1000)]
        problem = json.loads(problem_bytes(from_validation(errors), None))
        assert len(problem["errors"]) == 20
        assert "999 more" in problem["detail"]


class TestOverHttp:
    async def test_a_missing_field_does_not_echo_the_password_beside_it(self, ada):
        response = await ada.http.post("/api/toys", json={"password": "hunter2-hunter2"})
        assert response.status_code == 422
        assert "hunter2" not in response.text
        assert response.json()["errors"][0]["field"] == "name"

    async def test_an_unknown_field_is_named(self, ada):
        response = await ada.http.post("/api/toys", json={"name": "a", "nmae": 1})
        assert [error["field"] for error in response.json()["errors"]] == ["nmae"]

    async def test_a_problem_has_its_members(self, ada):
        problem = (await ada.http.post("/api/toys", json={"name": "a b"})).json()
        assert set(problem) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
        assert problem["errors"][0]["value"] == "a b"

    @pytest.mark.parametrize(
        ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/api/toys", 405), ("PATCH", "/health", 405)]
    )
    async def test_an_unknown_path_or_method_is_a_problem(self, ada, method, path, status):
        response = await ada.http.request(method, path)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert ("allow" in response.headers) == (status == 405)

    @pytest.mark.parametrize(
        "path", ["/nowhere", "/api/toys", "/docs/", "/health/x", "/x-health", "/api/health", "/metrics/", "//health"]
    )
    async def test_without_a_credential_nobody_learns_which_paths_exist(self, play, path):
        client = await play.client()
        assert (await client.get(path)).status_code == 401

    @pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "FOO"])
    async def test_a_method_that_no_route_has_is_refused_and_no_cors_is_granted(self, ada, method):
        response = await ada.http.request(method, "/api/toys")
        assert response.status_code == 405
        assert not [name for name in response.headers if name.startswith("access-control")]
