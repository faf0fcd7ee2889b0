import hashlib
import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pyarrow import ipc

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
    training_set,
)

PATH = "/api/training-sets"


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller("feature-store")


@pytest.fixture
async def fed(ada: Caller) -> Caller:
    """Two events of one user, at hours 1 and 3."""
    await a_feature_set(ada)
    await ingest(ada, a_row(hours=1, age=1), a_row(hours=3, age=3, avg_session_duration="NaN"))
    return ada


class TestJoin:
    async def test_each_label_gets_the_value_of_its_time_and_none_from_later(self, fed):
        labels = [a_row(hours=h, y=h) for h in (4, 0.5, 1, 2.9, 3)] + [a_row("nobody", 9, y=9)]
        made = await training_set(fed, labels, ["age"])
        rows = await data_of(fed, made["id"])
        assert [(row["y"], row["age"]) for row in rows] == [(4, 3), (0.5, None), (1, 1), (2.9, 1), (3, 3), (9, None)]
        assert made["row_count"] == 6

    async def test_labels_come_back_as_they_were_sent_duplicates_included(self, fed):
        label = a_row(hours=2, y=1, note="é", flag=True, empty=None)
        rows = await data_of(fed, (await training_set(fed, [label, label], ["age"]))["id"])
        expected = {
            "entity_id": "user_123", "event_timestamp": datetime(2026, 1, 1, 2, tzinfo=UTC),
            "y": 1, "note": "é", "flag": True, "empty": None, "age": 1,
        }  # fmt: skip
        assert rows == [expected, expected]

    async def test_the_ttl_holds_to_the_microsecond(self, ada):
        await a_feature_set(ada, ttl_seconds=3600)
        await ingest(ada, a_row(hours=1, age=1))
        end = {**a_row(), "event_timestamp": "2026-01-01T02:00:00.000000Z"}
        after = {**a_row(), "event_timestamp": "2026-01-01T02:00:00.000001Z"}
        rows = await data_of(ada, (await training_set(ada, [end, after], ["age"]))["id"])
        assert [row["age"] for row in rows] == [1, None]

    async def test_a_late_correction_counts_unless_only_what_was_known_counts(self, fed):
        await ingest(fed, a_row(hours=1, age=100))
        labels = [a_row(hours=2)]
        corrected = await data_of(fed, (await training_set(fed, labels, ["age"]))["id"])
        known = await training_set(fed, labels, ["age"], as_known=True)
        assert corrected[0]["age"] == 100
        # Everything was ingested just now, long after the label.
        assert (await data_of(fed, known["id"]))[0]["age"] is None
        assert known["as_known"] is True

    async def test_features_of_sets_with_different_entities_join_in_one(self, fed):
        shops = [{"name": "rent", "type": "float"}]
        await a_feature_set(fed, "shops", entity="shop_id", features=shops)
        await ingest(fed, {"shop_id": "s1", "event_timestamp": at(2), "rent": 9.5}, name="shops")
        labels = [{**a_row(hours=3), "shop_id": "s1"}, {**a_row(hours=1), "shop_id": None}]
        made = await training_set(fed, labels, ["shops:rent", "age"])
        assert [(row["rent"], row["age"]) for row in await data_of(fed, made["id"])] == [(9.5, 3), (None, 1)]
        assert [(s["feature_set"], s["version"]) for s in made["sources"]] == [("shops", 1), ("user_features", 1)]

    async def test_equal_names_of_two_sets_are_told_apart_by_their_set(self, fed):
        await a_feature_set(fed, "more")
        made = await training_set(fed, [a_row(hours=2)], ["user_features:age", "more:age"])
        assert [(c["name"], c["feature"]) for c in made["columns"] if c["feature"]] == [
            ("user_features__age", "user_features:age"),
            ("more__age", "more:age"),
        ]

    async def test_nan_stays_nan_and_is_not_null(self, fed):
        [row] = await data_of(fed, (await training_set(fed, [a_row(hours=3)], ["avg_session_duration"]))["id"])
        assert math.isnan(row["avg_session_duration"])

    async def test_rows_in_files_and_rows_not_in_files_yet_count_alike(self, ada):
        await a_feature_set(ada)
        rows = 10_001
        table = pa.table(
            {
                "entity_id": ["u"] * rows,
                "event_timestamp": pa.array(
                    [1_767_225_600_000_000 + n * 1_000_000 for n in range(rows)], pa.timestamp("us", tz="UTC")
                ),
                "age": range(rows),
            }
        )
        await ada.http.post(
            "/api/feature-sets/user_features/rows", content=parquet(table), headers={"content-type": PARQUET}
        )
        await ingest(ada, a_row("u", 1, age=-1))
        labels = [a_row("u", 0.5), a_row("u", 1), a_row("u", 9)]
        made = await training_set(ada, labels, ["age"])
        assert [row["age"] for row in await data_of(ada, made["id"])] == [1800, -1, 10_000]


class TestReproduction:
    async def test_the_same_inputs_give_the_same_digest_after_later_rows_too(self, fed):
        labels = [a_row(hours=h) for h in (1, 2, 3)]
        first = await training_set(fed, labels, ["age"])
        await ingest(fed, a_row(hours=2, age=77))
        again = await training_set(fed, labels, ["age"], known_until=first["known_until"])
        changed = await training_set(fed, labels, ["age"])
        assert again["digest"] == first["digest"]
        assert changed["digest"] != first["digest"]

    async def test_the_digest_is_that_of_the_file(self, fed):
        made = await training_set(fed, [a_row(hours=2)], ["age"], name="churn")
        response = await fed.http.get(f"{PATH}/{made['id']}/data")
        assert hashlib.sha256(response.content).hexdigest() == made["digest"] == response.headers["x-checksum-sha256"]
        assert len(response.content) == made["size_bytes"] == int(response.headers["content-length"])
        assert response.headers["content-disposition"] == 'attachment; filename="churn.parquet"'

    async def test_the_answer_names_the_exact_version_of_the_set(self, fed):
        features = [{"name": "age", "type": "int"}, {"name": "vip", "type": "bool"}]
        change = {"features": features, "new_version": True}
        await fed.http.patch("/api/feature-sets/user_features", json=change)
        made = await training_set(fed, [a_row(hours=2)], ["age", "vip"])
        assert made["sources"] == [
            {"feature_set": "user_features", "version": 2, "entity": "entity_id", "ttl_seconds": None,
             "features": ["age", "vip"]}
        ]  # fmt: skip
        assert [(row["age"], row["vip"]) for row in await data_of(fed, made["id"])] == [(1, None)]

    async def test_an_idempotency_key_makes_one_training_set(self, fed):
        body = {"rows": [a_row(hours=2)], "features": ["age"]}
        answers = [await fed.http.post(PATH, json=body, headers={"idempotency-key": "k"}) for _ in range(2)]
        assert answers[0].status_code == answers[1].status_code == 201
        assert answers[0].json() == answers[1].json()
        assert len((await fed.http.get(PATH)).json()["items"]) == 1


class TestUploads:
    @pytest.mark.parametrize(("kind", "write"), [(PARQUET, parquet), (ARROW, arrow)])
    async def test_a_columnar_body_is_joined_as_json_is(self, fed, kind, write):
        table = pa.table(
            {
                "entity_id": ["user_123", "user_123"],
                "event_timestamp": pa.array([1_767_232_800, 1_767_225_600], pa.timestamp("s")),
                "y": pa.array([1, 0], pa.int8()),
            }
        )
        response = await fed.http.post(
            f"{PATH}?features=age&name=churn", content=write(table), headers={"content-type": kind}
        )
        assert response.status_code == 201, response.text
        assert response.json()["name"] == "churn"
        assert [(row["y"], row["age"]) for row in await data_of(fed, response.json()["id"])] == [(1, 1), (0, None)]

    async def test_the_rows_come_as_an_arrow_stream_too(self, fed):
        made = await training_set(fed, [a_row(hours=2)], ["age"])
        response = await fed.http.get(f"{PATH}/{made['id']}/data?format=arrow")
        assert response.headers["content-type"] == ARROW
        assert ipc.open_stream(response.content).read_all().to_pylist() == await data_of(fed, made["id"])

    @pytest.mark.parametrize("query", ["", "?features=", "?features=a,,b", "?features=../x", "?features=nothing"])
    async def test_a_wrong_query_beside_a_file_is_refused(self, fed, query):
        table = pa.table({"entity_id": ["u"], "event_timestamp": pa.array([0], pa.timestamp("s"))})
        response = await fed.http.post(f"{PATH}{query}", content=parquet(table), headers={"content-type": PARQUET})
        assert response.status_code == 422

    async def test_no_more_features_are_joined_than_from_a_json_body(self, fed):
        table = pa.table({"entity_id": ["u"], "event_timestamp": pa.array([0], pa.timestamp("s"))})
        query = f"?features={','.join(f'f{n}' for n in range(1001))}"
        response = await fed.http.post(f"{PATH}{query}", content=parquet(table), headers={"content-type": PARQUET})
        assert (response.status_code, response.json()["errors"][0]["message"]) == (422, "must have at most 1000 values")

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
            pa.RunEndEncodedArray.from_arrays(pa.array([1]), pa.array([5])),
        ],
    )
    async def test_a_label_column_that_cannot_be_kept_is_refused_by_its_name(self, fed, column):
        table = pa.table({"entity_id": ["u"], "event_timestamp": pa.array([0], pa.timestamp("s")), "y": column})
        response = await fed.http.post(f"{PATH}?features=age", content=arrow(table), headers={"content-type": ARROW})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "y")


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"rows": []}, "rows"),
            ({"rows": [1]}, "rows"),
            ({"rows": [{"entity_id": "u"}]}, "event_timestamp"),
            ({"rows": [{"event_timestamp": "2026-01-01T00:00:00Z"}]}, "entity_id"),
            ({"rows": [a_row(), {**a_row(), "event_timestamp": "yesterday"}]}, "rows[1].event_timestamp"),
            ({"rows": [{**a_row(), "event_timestamp": "2026-01-01T00:00:00"}]}, "rows[0].event_timestamp"),
            ({"rows": [{**a_row(), "y": 1}, {**a_row(), "y": "1"}]}, "rows.y"),
            ({"rows": [{**a_row(), "y": {"a": 1}}]}, "rows.y"),
            ({"rows": [{**a_row(), "y": 2**53 + 1}, {**a_row(), "y": 0.5}]}, "rows.y"),
            ({"rows": [{**a_row(), "y": 2**63}]}, "rows"),
            ({"rows": [{**a_row(), "entity_id": 1.5}]}, "entity_id"),
            ({"features": []}, "features"),
            ({"features": ["nothing"]}, "features"),
            ({"features": ["a b"]}, "features"),
            ({"name": "a/b"}, "name"),
            ({"known_until": 5}, "known_until"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    async def test_a_wrong_field_is_named_and_nothing_is_kept(self, fed, change, field):
        body = {"rows": [a_row()], "features": ["age"], **change}
        response = await fed.http.post(PATH, json=body)
        assert response.status_code == 422, response.text
        assert any(error["field"].startswith(field) for error in response.json()["errors"]), response.text
        assert (await fed.http.get(PATH)).json()["items"] == []

    @pytest.mark.parametrize("body", ["[null, null]", "null", '"x"', "5", "{}"])
    async def test_json_of_another_shape_is_refused(self, fed, body):
        response = await fed.http.post(PATH, content=body, headers={"content-type": "application/json"})
        assert response.status_code == 422, response.text
        assert response.json()["errors"]

    @pytest.mark.parametrize("training_set_id", ["0" * 32, "nope", "../x"])
    async def test_an_unknown_id_is_not_found_or_invalid(self, ada, training_set_id):
        assert (await ada.http.get(f"{PATH}/{training_set_id}")).status_code in {404, 422}
        assert (await ada.http.get(f"{PATH}/{training_set_id}/data")).status_code in {404, 422}

    async def test_another_projects_training_set_does_not_exist(self, fed, platform):
        made = await training_set(fed, [a_row(hours=2)], ["age"])
        eve = await platform.caller("feature-store")
        assert (await eve.http.get(f"{PATH}/{made['id']}")).status_code == 404
        assert (await eve.http.get(f"{PATH}/{made['id']}/data")).status_code == 404
        assert (await eve.http.get(PATH)).json()["items"] == []

    async def test_features_of_sets_beyond_a_grant_are_not_joined(self, fed, platform):
        bob = await platform.caller("feature-store", Role.CONTRIBUTOR, project=fed.project, pattern="shop_*")
        for feature, status in (("user_features:age", 403), ("age", 422)):
            response = await bob.http.post(PATH, json={"rows": [a_row()], "features": [feature]})
            assert response.status_code == status

    async def test_a_grant_for_some_names_sees_no_training_set_made_of_others(self, fed, platform):
        await a_feature_set(fed, "shop_features", features=[{"name": "revenue", "type": "float"}])
        shop = await training_set(fed, [a_row()], ["revenue"])
        mixed = await training_set(fed, [a_row()], ["revenue", "age"])
        user = await training_set(fed, [a_row()], ["age"])
        bob = await platform.caller("feature-store", Role.VIEWER, project=fed.project, pattern="shop_*")
        assert [item["id"] for item in (await bob.http.get(PATH)).json()["items"]] == [shop["id"]]
        assert (await bob.http.get(f"{PATH}/{shop['id']}/data")).status_code == 200
        for hidden in (mixed, user):
            assert (await bob.http.get(f"{PATH}/{hidden['id']}")).status_code == 404
            assert (await bob.http.get(f"{PATH}/{hidden['id']}/data")).status_code == 404


async def test_training_sets_are_listed_newest_first_by_name_and_page(fed):
    made = [(await training_set(fed, [a_row()], ["age"], name=f"n{n % 2}"))["id"] for n in range(4)]
    first = (await fed.http.get(f"{PATH}?page_size=3")).json()
    rest = (await fed.http.get(f"{PATH}?page_size=3&page_token={first['next_page_token']}")).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == made[::-1]
    assert [item["id"] for item in (await fed.http.get(f"{PATH}?name=n1")).json()["items"]] == [made[3], made[1]]
    assert (await fed.http.get(f"{PATH}/{made[0]}")).json() == rest["items"][0]
