import asyncio
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from mlops_platform.core.identity import Role
from tests.conftest import Caller, Platform
from tests.factories.features import (
    ARROW,
    PARQUET,
    a_feature_set,
    a_row,
    arrow,
    at,
    data_of,
    ingest,
    parquet,
    serve,
    training_set,
)

ROWS = "/api/feature-sets/user_features/rows"
SERVE = "/api/features/serve"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


class TestServing:
    async def test_the_briefs_request_serves_what_was_ingested(self, ada):
        await a_feature_set(ada)
        assert (await ingest(ada, a_row(age=33, avg_session_duration=12.5)))["online"] == "written"
        response = await ada.http.get("/api/features/serve?entities=user_123&features=age,avg_session_duration")
        assert response.status_code == 200
        assert response.json() == {
            "vectors": [
                {
                    "entity": "user_123",
                    "values": {"age": 33, "avg_session_duration": 12.5},
                    "statuses": {"age": "present", "avg_session_duration": "present"},
                    "event_timestamps": {
                        "age": "2026-01-01T00:00:00.000000Z",
                        "avg_session_duration": "2026-01-01T00:00:00.000000Z",
                    },
                }
            ]
        }

    async def test_several_entities_come_back_in_order_with_what_stands_behind_each_value(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row("a", age=1), a_row("b", avg_session_duration="NaN"))
        vectors = await serve(ada, "b,nobody,a", "age,avg_session_duration")
        assert [(v["entity"], v["values"], v["statuses"]) for v in vectors] == [
            ("b", {"age": None, "avg_session_duration": "NaN"}, {"age": "null", "avg_session_duration": "present"}),
            (
                "nobody",
                {"age": None, "avg_session_duration": None},
                dict.fromkeys(["age", "avg_session_duration"], "missing"),
            ),
            ("a", {"age": 1, "avg_session_duration": None}, {"age": "present", "avg_session_duration": "null"}),
        ]

    async def test_a_post_reads_what_does_not_fit_in_a_url(self, ada):
        await a_feature_set(ada)
        await ingest(ada, *(a_row(f"Zoë, {n}", age=n) for n in range(500)))
        body = {"entities": [f"Zoë, {n}" for n in range(500)], "features": ["age"]}
        vectors = (await ada.http.post(SERVE, json=body)).json()["vectors"]
        assert [vector["values"]["age"] for vector in vectors] == list(range(500))

    async def test_an_ambiguous_name_lists_the_candidates(self, ada):
        await a_feature_set(ada)
        await a_feature_set(ada, "more")
        response = await ada.http.get(f"{SERVE}?entities=u&features=age")
        assert (response.status_code, response.json()["code"]) == (422, "ambiguous_feature")
        assert "more:age, user_features:age" in response.json()["detail"]
        assert (await serve(ada, "u", "more:age"))[0]["statuses"] == {"more:age": "missing"}

    @pytest.mark.parametrize(
        "query",
        ["", "entities=u", "features=age", "entities=&features=age", "entities=u&features=", "entities=a,,b&features=age",
         "entities=u&features=age&entities=v", "entities=u&features=age&x=1", "entities=%FF&features=age",
         "entities=a%00b&features=age", "entities=u&features=nothing", "entities=u&features=user_features:nothing",
         "entities=" + ",".join("e" * 1001) + "&features=age", "entities=" + "e" * 513 + "&features=age"],
    )  # fmt: skip
    async def test_a_wrong_query_is_refused(self, ada, query):
        await a_feature_set(ada)
        response = await ada.http.get(f"{SERVE}?{query}")
        assert response.status_code == 422, response.text
        assert response.json()["errors"]

    async def test_values_expire_with_the_ttl_and_stay_in_the_store(self, ada):
        await a_feature_set(ada, ttl_seconds=3600)
        now = datetime.now(UTC)
        fresh, old = (now - timedelta(minutes=5)).isoformat(), (now - timedelta(hours=2)).isoformat()
        await ingest(
            ada, {**a_row("new", age=1), "event_timestamp": fresh}, {**a_row("old", age=2), "event_timestamp": old}
        )
        new, expired = await serve(ada, "new,old", "age")
        assert (new["values"]["age"], new["statuses"]["age"]) == (1, "present")
        assert (expired["values"]["age"], expired["statuses"]["age"]) == (None, "expired")
        await ada.http.patch("/api/feature-sets/user_features", json={"ttl_seconds": None})
        assert (await serve(ada, "old", "age"))[0]["values"]["age"] == 2

    async def test_an_added_feature_is_missing_until_a_row_brings_it(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        features = [{"name": "age", "type": "int"}, {"name": "avg_session_duration", "type": "float"}]
        await ada.http.patch(
            "/api/feature-sets/user_features", json={"features": [*features, {"name": "vip", "type": "bool"}]}
        )
        assert (await serve(ada, "user_123", "vip"))[0]["statuses"]["vip"] == "missing"
        await ingest(ada, a_row(hours=1, vip=True))
        assert (await serve(ada, "user_123", "vip"))[0]["values"]["vip"] is True

    async def test_a_retyped_feature_never_shows_its_old_values(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        change = {"features": [{"name": "age", "type": "string"}], "new_version": True}
        await ada.http.patch("/api/feature-sets/user_features", json=change)
        assert (await serve(ada, "user_123", "age"))[0]["statuses"]["age"] == "missing"
        refused = await ada.http.post(ROWS, json={"rows": [a_row(age=1)]})
        assert refused.status_code == 422

    async def test_a_deleted_set_is_not_served_and_a_restored_one_is_again(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        await ada.http.delete("/api/feature-sets/user_features")
        assert (await ada.http.get(f"{SERVE}?entities=user_123&features=age")).json()["code"] == "unknown_feature"
        await ada.http.post("/api/feature-sets/user_features/restore")
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 1

    async def test_another_project_sees_no_values_of_the_same_names(self, ada, platform):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        eve = await platform.caller("feature-store")
        await a_feature_set(eve)
        assert (await serve(eve, "user_123", "age"))[0]["statuses"]["age"] == "missing"

    async def test_a_grant_limited_to_names_is_not_served_other_sets(self, ada, platform):
        await a_feature_set(ada)
        bob = await platform.caller("feature-store", Role.VIEWER, project=ada.project, pattern="shop_*")
        for feature, status in (("user_features:age", 403), ("no_such_set:age", 403), ("age", 422)):
            for answer in (
                await bob.http.get(f"{SERVE}?entities=u&features={feature}"),
                await bob.http.post(SERVE, json={"entities": ["u"], "features": [feature]}),
            ):
                assert answer.status_code == status, answer.text

    async def test_a_plain_name_means_only_what_a_grant_names_and_errors_tell_of_nothing_else(self, ada, platform):
        for name in ("user_features", "shop_a", "hidden"):
            await a_feature_set(ada, name)
        await ingest(ada, a_row(age=7), name="shop_a")
        bob = await platform.caller("feature-store", Role.CONTRIBUTOR, project=ada.project, pattern="shop_*")
        assert (await serve(bob, "user_123", "age"))[0]["values"]["age"] == 7
        assert [row["age"] for row in await data_of(bob, (await training_set(bob, [a_row()], ["age"]))["id"])] == [7]
        await a_feature_set(ada, "shop_b")
        body = {"rows": [a_row()], "features": ["age"]}
        for answer in (
            await bob.http.get(f"{SERVE}?entities=u&features=age"),
            await bob.http.post("/api/training-sets", json=body),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "ambiguous_feature")
            assert "shop_b" in answer.text
            assert "hidden" not in answer.text

    async def test_no_credential_no_values(self, ada, platform):
        await a_feature_set(ada)
        nobody = platform.client("feature-store")
        assert (await nobody.get(f"{SERVE}?entities=u&features=age")).status_code == 401


class TestOrder:
    async def test_a_late_row_never_overwrites_a_newer_one(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(hours=5, age=5))
        await ingest(ada, a_row(hours=1, age=1))
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 5

    async def test_a_correction_of_the_same_event_counts(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(age=1))
        await ingest(ada, a_row(age=2))
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 2

    async def test_within_one_request_the_newest_row_is_served_whatever_the_order(self, ada):
        await a_feature_set(ada)
        await ingest(ada, a_row(hours=2, age=2), a_row(hours=3, age=3), a_row(hours=1, age=1))
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 3

    async def test_twenty_writers_at_once_leave_the_newest(self, ada):
        await a_feature_set(ada)
        await asyncio.gather(*(ingest(ada, a_row(hours=n, age=n)) for n in range(20)))
        assert (await serve(ada, "user_123", "age"))[0]["values"]["age"] == 19


class TestIngest:
    async def test_one_wrong_row_keeps_all_rows_out(self, ada):
        await a_feature_set(ada)
        response = await ada.http.post(ROWS, json={"rows": [a_row("a", age=1), a_row("b", age="old")]})
        assert response.status_code == 422
        assert response.json()["errors"] == [
            {"field": "rows[1].age", "message": response.json()["errors"][0]["message"], "value": "old"}
        ]
        assert (await serve(ada, "a", "age"))[0]["statuses"]["age"] == "missing"

    async def test_a_row_from_the_future_is_refused(self, ada):
        await a_feature_set(ada)
        row = {**a_row(age=1), "event_timestamp": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        assert (await ada.http.post(ROWS, json={"rows": [row]})).status_code == 422

    @pytest.mark.parametrize(("kind", "write"), [(PARQUET, parquet), (ARROW, arrow)])
    @pytest.mark.parametrize("rows", [3, 12_000], ids=["recent", "segment"])
    async def test_columnar_rows_are_served_like_json_ones(self, ada, kind, write, rows):
        await a_feature_set(ada)
        table = pa.table(
            {
                "entity_id": [f"u{n}" for n in range(rows)],
                "event_timestamp": pa.array([1_767_225_600_000_000] * rows, pa.timestamp("us", tz="UTC")),
                "age": pa.array(range(rows), pa.int32()),
                "avg_session_duration": [float("inf")] * rows,
            }
        )
        response = await ada.http.post(ROWS, content=write(table), headers={"content-type": kind})
        assert (response.status_code, response.json().get("rows")) == (201, rows), response.text
        vectors = await serve(ada, f"u0,u{rows - 1}", "age,avg_session_duration")
        assert [vector["values"] for vector in vectors] == [
            {"age": 0, "avg_session_duration": "Infinity"},
            {"age": rows - 1, "avg_session_duration": "Infinity"},
        ]

    @pytest.mark.parametrize(
        ("content", "kind", "status"),
        [
            (b"", "application/json", 400),
            (b"{", "application/json", 400),
            (b"[" * 5000, "application/json", 422),
            (b"{}" + b" " * 2_000_000, "application/json", 413),
            (b"x", PARQUET, 400),
            (b"", ARROW, 400),
            (b"a,b", "text/csv", 415),
            (b"{}", "", 415),
        ],
    )
    async def test_a_body_of_another_kind_is_refused(self, ada, content, kind, status):
        await a_feature_set(ada)
        response = await ada.http.post(ROWS, content=content, headers={"content-type": kind} if kind else {})
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"

    async def test_an_offline_set_keeps_rows_and_serves_none(self, ada):
        await a_feature_set(ada, online=False)
        assert (await ingest(ada, a_row(age=1)))["online"] == "off"
        assert (await serve(ada, "user_123", "age"))[0]["statuses"]["age"] == "missing"
        refused = await ada.http.post("/api/feature-sets/user_features/materialize", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "feature_set_offline")

    async def test_rows_and_a_change_of_features_at_once_never_mix(self, ada):
        await a_feature_set(ada)
        change = {"features": [{"name": "age", "type": "string"}], "new_version": True}
        answers = await asyncio.gather(
            *(ada.http.post(ROWS, json={"rows": [a_row(f"u{n}", age=n)]}) for n in range(10)),
            ada.http.patch("/api/feature-sets/user_features", json=change),
            *(ada.http.post(ROWS, json={"rows": [a_row(f"v{n}", age=n)]}) for n in range(10)),
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 422}
        vectors = await serve(ada, ",".join(f"u{n}" for n in range(10)), "age")
        assert {vector["statuses"]["age"] for vector in vectors} == {"missing"}


class TestMaterialize:
    async def test_it_brings_back_what_the_online_store_lost(self, ada, apps):
        made = await a_feature_set(ada)
        await ingest(ada, a_row("a", 1, age=1), a_row("a", 2, age=2), a_row("b", 3, age=3))
        await apps["feature-store"].edge.state.store.drop(ada.project, made["id"])
        assert (await serve(ada, "a", "age"))[0]["statuses"]["age"] == "missing"
        response = await ada.http.post("/api/feature-sets/user_features/materialize", json={})
        assert response.json() == {"feature_set": "user_features", "entities": 2}
        assert [v["values"]["age"] for v in await serve(ada, "a,b", "age")] == [2, 3]

    async def test_a_window_writes_its_newest_rows_and_never_older_over_newer(self, ada, apps):
        made = await a_feature_set(ada)
        await ingest(ada, a_row("a", 1, age=1), a_row("a", 5, age=5), a_row("b", 9, age=9))
        window = {"start": at(1), "end": at(5)}
        path = "/api/feature-sets/user_features/materialize"
        assert (await ada.http.post(path, json=window)).json()["entities"] == 1
        assert [v["values"]["age"] for v in await serve(ada, "a,b", "age")] == [5, 9]
        await apps["feature-store"].edge.state.store.drop(ada.project, made["id"])
        await ada.http.post(path, json={"end": at(1)})
        assert [v["statuses"]["age"] for v in await serve(ada, "a,b", "age")] == ["present", "missing"]

    @pytest.mark.parametrize("body", [{"start": at(2), "end": at(1)}, {"start": 5}, {"x": 1}, {"end": "2026-01-01"}])
    async def test_a_wrong_window_is_refused(self, ada, body):
        await a_feature_set(ada)
        assert (await ada.http.post("/api/feature-sets/user_features/materialize", json=body)).status_code == 422
