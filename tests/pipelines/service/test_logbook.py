"""The lines of an attempt: bounded, and stored whole however often the storing is tried."""

from mlops_platform.core.identity import Principal, PrincipalId, PrincipalKind, ProjectId, new_id
from mlops_platform.core.work.runtime import Runtime
from mlops_platform.pipelines.repository import logs
from mlops_platform.pipelines.service.logbook import Logbook
from tests.conftest import Platform


def a_logbook(project_id: str = "p", **fields) -> Logbook:
    return Logbook(project_id, new_id(), 1, **fields)


class TestLimits:
    def test_empty_lines_fill_a_log_too(self):
        logbook = a_logbook(max_bytes=10_000)
        for _ in range(10_000):
            logbook.add("stdout", "")
        (*_, last) = (line for chunk in logbook.chunks() for line in chunk["lines"])
        assert sum(chunk["line_count"] for chunk in logbook.chunks()) < 1_000
        assert "not kept" in last[2]

    def test_a_chunk_of_empty_lines_is_no_longer_than_another(self):
        logbook = a_logbook()
        for _ in range(20_000):
            logbook.add("stdout", "")
        assert max(chunk["line_count"] for chunk in logbook.chunks()) < 5_000


class TestStoring:
    async def test_lines_that_came_after_a_commit_whose_answer_was_lost_are_stored_with_the_next(
        self, platform: Platform, runtime: Runtime
    ):
        logbook = a_logbook(await platform.project())
        stored: list[str] = []
        for text in ("first", "second"):
            logbook.add("stdout", text)
            async with runtime.database.write() as session:
                await logs.insert_chunks(session, logbook.chunks())
        logbook.stored(logbook.chunks())
        logbook.add("stdout", "third")
        async with runtime.database.write() as session:
            await logs.insert_chunks(session, logbook.chunks())
        reader = Principal(
            id=PrincipalId(new_id()),
            name="reader",
            kind=PrincipalKind.USER,
            project=ProjectId(logbook.project_id),
            grants=(),
        )
        async with runtime.database.read() as session:
            chunks = await logs.list_chunks(session, reader, logbook.task_run_id, attempt=1, offset=0, limit=10)
        for chunk in chunks:
            stored += [text for _, _, text in chunk.lines]
        assert stored == ["first", "second", "third"]
