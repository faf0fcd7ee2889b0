"""A run may bring its own id, so that what was recorded offline is made once however often it is sent."""

import asyncio
import time

import pytest

from mlops_platform.core.identity import new_id
from tests.conftest import Caller, Platform
from tests.factories.tracking import RUN, an_experiment

SERVICE = "experiment-tracking"
FULL = {
    **RUN,
    "tags": {"team": "vision"},
    "notes": "why",
    "user": "ada",
    "start_time": "2026-01-01T00:00:00Z",
    "parameters": {"lr": 0.1, "nested": {"layers": [1, 2]}, "on": True, "none": None},
}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def make(caller, experiment_id, **body):
    return await caller.http.post(f"/api/experiments/{experiment_id}/runs", json=body)


async def test_the_run_has_the_id_that_it_was_given(ada):
    run_id = new_id()
    made = await make(ada, await an_experiment(ada), id=run_id, **RUN)
    assert (made.status_code, made.json()["id"]) == (201, run_id)
    assert made.headers["location"] == f"/api/runs/{run_id}"


async def test_the_same_request_again_is_the_same_answer_and_one_run(ada):
    experiment_id = await an_experiment(ada)
    run_id = new_id()
    answers = [await make(ada, experiment_id, id=run_id, **FULL) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 1


async def test_many_who_send_it_at_once_make_one_run(ada):
    experiment_id = await an_experiment(ada)
    run_id = new_id()
    answers = await asyncio.gather(*[make(ada, experiment_id, id=run_id, **FULL) for _ in range(8)])
    assert {answer.status_code for answer in answers} == {201}
    assert (await ada.http.get(f"/api/experiments/{experiment_id}")).json()["run_count"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"run_name": "other"}, {"tags": {}}, {"notes": "other"}, {"user": "bob"}, {"start_time": "2026-01-02T00:00:00Z"},
        {"status": "SCHEDULED"}, {"parameters": {"lr": 0.2}}, {"parameters": {"lr": 0.1}},
        {"parameters": {"lr": 0.1, "x": 1}},
    ],
)  # fmt: skip
async def test_another_body_with_the_same_id_is_a_conflict(ada, change):
    experiment_id = await an_experiment(ada)
    run_id = new_id()
    first = await make(ada, experiment_id, id=run_id, **FULL)
    second = await make(ada, experiment_id, id=run_id, **{**FULL, **change})
    assert (second.status_code, second.json()["code"]) == (409, "run_id_taken")
    assert (await ada.http.get(f"/api/runs/{run_id}")).json() == first.json()


async def test_a_run_that_has_gone_on_is_still_answered_to_its_own_request(ada):
    experiment_id = await an_experiment(ada)
    run_id = new_id()
    await make(ada, experiment_id, id=run_id, **FULL)
    await ada.http.post(f"/api/runs/{run_id}/params", json={"parameters": {"more": 1}})
    await ada.http.patch(f"/api/runs/{run_id}", json={"status": "FINISHED", "run_name": "new", "tags": {"team": None}})
    again = await make(ada, experiment_id, id=run_id, **FULL)
    assert (again.status_code, again.json()["status"], again.json()["run_name"]) == (201, "FINISHED", "new")
    other = await make(ada, experiment_id, id=run_id, **{**FULL, "parameters": {"lr": 1.5}})
    assert other.status_code == 409


async def test_an_id_of_another_experiment_or_another_project_is_refused_with_the_same_words(ada, platform):
    run_id = new_id()
    await make(ada, await an_experiment(ada, "first"), id=run_id, **FULL)
    bob = await platform.caller(SERVICE)
    answers = [
        await make(ada, await an_experiment(ada, "second"), id=run_id, **FULL),
        await make(bob, await an_experiment(bob, "first"), id=run_id, **FULL),
    ]
    said = [{key: answer.json()[key] for key in ("status", "code", "detail", "hint")} for answer in answers]
    assert said[0] == said[1]
    assert said[0]["code"] == "run_id_taken"
    assert (await bob.http.get(f"/api/runs/{run_id}")).status_code == 404


async def test_the_id_of_a_deleted_run_is_not_given_again(ada):
    experiment_id = await an_experiment(ada)
    run_id = new_id()
    await make(ada, experiment_id, id=run_id, **FULL)
    await ada.http.delete(f"/api/runs/{run_id}")
    again = await make(ada, experiment_id, id=run_id, **FULL)
    assert (again.status_code, again.json()["code"]) == (409, "run_deleted")


AHEAD = f"{int(time.time() * 1000) + 3 * 86_400_000:012x}7000a000000000c0ffee"
BAD_IDS = {
    "empty": "", "short": "x", "zeros": "0" * 32, "upper case": "0198C0FFEE00700080000000DEADBEEF",
    "version 4": "0198c0ffee00400080000000deadbeef", "cut": "f" * 31, "number": 7, "days ahead": AHEAD,
    "end of time": "ffffffffffff7000a000000000c0ffee",
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
async def test_an_id_that_is_no_uuid_of_about_now_is_refused(ada, bad):
    answer = await make(ada, await an_experiment(ada), id=bad, **RUN)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "id"
