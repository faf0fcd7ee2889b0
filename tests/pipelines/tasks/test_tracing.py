"""What a worker tells a real collector of the attempts that it ran."""

import asyncio
import dataclasses

import pytest
from sqlalchemy import text

from mlops_platform.pipelines.service.firing import Firing
from mlops_platform.server.tracing import open_tracer
from tests.factories.collector import collecting
from tests.factories.pipelines import a_pipeline, a_run, a_task, finished, working

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ERROR, INTERNAL_KIND = 2, 1


@pytest.fixture
async def ada(platform, runtime):
    async with runtime.database.write() as session:
        await session.execute(text("UPDATE pipelines.schedules SET is_paused = true"))
    return await platform.caller("pipeline-orchestrator")


@pytest.fixture
def collector():
    with collecting() as one:
        yield one


@pytest.fixture
async def exporting(runtime, collector):
    given = {"otel_exporter_otlp_endpoint": collector.url, "otel_bsp_schedule_delay": 10}
    tracer = open_tracer(runtime.settings.model_copy(update=given))
    assert tracer is not None
    yield dataclasses.replace(runtime, tracer=tracer)
    await asyncio.to_thread(tracer.close)


async def started(ada, **headers):
    answer = await ada.http.post("/api/pipelines/p/runs", json={"parameters": {}}, headers=headers)
    return answer.json()["id"], answer.headers["traceparent"]


async def test_attempts_belong_to_the_trace_of_the_request_that_started_the_run(ada, exporting, collector):
    await a_pipeline(ada, a_task("one", value="c4nary-argument"), a_task("two", value=1, depends_on=["one"]))
    async with working(exporting):
        run_id, context = await started(ada, traceparent=f"00-{TRACE}-{SPAN}-01")
        await finished(ada, run_id)
    one, two = await asyncio.to_thread(collector.wait_for, 2)
    assert [one.name, two.name] == ["task one", "task two"]
    assert {(span.trace_id, span.parent_id) for span in (one, two)} == {(TRACE, context.split("-")[2])}
    assert one.span_id != two.span_id
    assert one.ended_ns <= two.ended_ns
    assert (one.kind, one.resource["service.name"]) == (INTERNAL_KIND, "pipeline-worker")
    assert one.attributes["mlops.pipeline.run.id"] == run_id
    assert one.attributes["mlops.pipeline.attempt.state"] == "succeeded"
    assert b"c4nary" not in b"".join(collector.bodies)


async def test_each_attempt_and_each_item_has_its_own_and_says_how_it_ended(ada, exporting, collector):
    bad = a_task("bad", "fail", message="c4nary", retries=1, retry_delay_seconds=0.05)
    async with working(exporting):
        await finished(ada, await a_run(ada, bad, a_task("each", for_each=[1, 2], value="${item}")))
    found = await asyncio.to_thread(collector.wait_for, 4)
    failed = [span for span in found if span.name == "task bad"]
    assert sorted(span.attributes["mlops.pipeline.attempt"] for span in failed) == [1, 2]
    assert {(span.status, span.attributes["error.type"]) for span in failed} == {(ERROR, "failed")}
    items = [span.attributes["mlops.pipeline.item"] for span in found if span.name == "task each"]
    assert sorted(items) == [0, 1]
    assert b"c4nary" not in b"".join(collector.bodies)


async def test_a_run_that_its_caller_does_not_sample_is_not_told(ada, exporting, collector):
    await a_pipeline(ada, a_task("quiet", value=1))
    async with working(exporting):
        run_id, _ = await started(ada, traceparent=f"00-{TRACE}-{SPAN}-00")
        await finished(ada, run_id)
        loud, _ = await started(ada, traceparent=f"00-{TRACE[::-1]}-{SPAN}-01")
        await finished(ada, loud)
    assert {span.trace_id for span in await asyncio.to_thread(collector.wait_for, 1)} == {TRACE[::-1]}


async def test_the_tasks_of_a_schedules_run_share_a_trace_that_is_named_after_it(ada, runtime, exporting, collector):
    every_minute = {"cron": "* * * * *", "overlap": "allow"}
    await a_pipeline(ada, a_task("one", value=1), a_task("two", value=1, depends_on=["one"]), schedule=every_minute)
    async with runtime.database.write() as session:
        due = (
            "UPDATE pipelines.schedules SET next_at = date_trunc('minute', now()) WHERE project_id = CAST(:project AS uuid)"
        )
        await session.execute(text(due), {"project": ada.project})
    async with working(exporting):
        async with runtime.database.write() as session:
            await Firing(session, runtime.clock).fire_due()
        (run,) = (await ada.http.get("/api/pipelines/p/runs")).json()["items"]
        await finished(ada, run["id"])
    spans = await asyncio.to_thread(collector.wait_for, 2)
    assert {(span.trace_id, span.parent_id) for span in spans} == {(run["id"], "")}
