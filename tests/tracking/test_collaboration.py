import pytest
from sqlalchemy import select

from mlops_platform.core.events.tables import events
from mlops_platform.core.identity import Role
from mlops_platform.tracking.domain.mentions import mentions
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"
VIEW = {
    "name": "best",
    "filter": "metrics.accuracy > 0.9",
    "order_by": ["metrics.accuracy DESC"],
    "columns": ["run_name", "params.lr", "metrics.accuracy"],
    "charts": [{"kind": "line", "y": "loss"}],
}


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    return await platform.caller(SERVICE)


async def comment(caller, run_id, text):
    response = await caller.http.post(f"/api/runs/{run_id}/comments", json={"text": text})
    assert response.status_code == 201, response.text
    return response.json()


async def mentioned(platform, caller):
    async with platform.runtime.database.read() as session:
        mine = events.c.project_id == caller.project, events.c.type == "run.mentioned"
        return [row.data["mentioned"] for row in await session.all(select(events).where(*mine).order_by(events.c.id))]


class TestMentions:
    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("@grace look", ["grace"]), ("(@a.b-c_d).", ["a.b-c_d"]), ("mail ada@example.com", []), ("@@x @", []),
            ("`@code` and ```\n@block\n``` but @me", ["me"]), ("@a @b @a", ["a", "b"]), ("end @a.", ["a"]),
            ("```\n@unclosed", []), ("a/@path", []), ("@" + "x" * 200, []),
        ],
    )  # fmt: skip
    def test_names_are_read_as_people_write_them(self, text, names):
        assert mentions(text) == names


class TestComments:
    async def test_comments_are_listed_in_order_with_author_and_mentions(self, ada, platform):
        run_id = await a_run(ada)
        first = await comment(ada, run_id, "overfits, @grace?")
        grace = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project)
        second = await comment(grace, run_id, "yes")
        page = (await ada.http.get(f"/api/runs/{run_id}/comments", params={"page_size": 1})).json()
        assert page["items"] == [first]
        token = {"page_token": page["next_page_token"], "page_size": 1}
        assert (await ada.http.get(f"/api/runs/{run_id}/comments", params=token)).json()["items"] == [second]
        assert (first["author"], first["mentions"], second["author"]) == (ada.principal, ["grace"], grace.principal)
        assert await mentioned(platform, ada) == ["grace"]

    async def test_an_edit_tells_only_who_was_not_told_before(self, ada, platform):
        run_id = await a_run(ada)
        made = await comment(ada, run_id, "@grace")
        path = f"/api/runs/{run_id}/comments/{made['id']}"
        edited = (await ada.http.patch(path, json={"text": "@grace and @alan"})).json()
        assert (edited["mentions"], edited["edited_at"] is not None) == (["grace", "alan"], True)
        assert await mentioned(platform, ada) == ["grace", "alan"]

    async def test_only_the_author_edits_and_an_admin_may_delete(self, ada, platform):
        run_id = await a_run(ada)
        grace = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project)
        alan = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project)
        path = f"/api/runs/{run_id}/comments/{(await comment(grace, run_id, 'mine'))['id']}"
        assert (await ada.http.patch(path, json={"text": "not yours"})).status_code == 403
        assert (await alan.http.delete(path)).status_code == 403
        assert (await ada.http.delete(path)).status_code == 204
        assert (await grace.http.patch(path, json={"text": "late"})).json()["code"] == "comment_not_found"

    async def test_a_comment_of_another_run_is_not_found_here(self, ada):
        run_id, other = await a_run(ada), await a_run(ada, await an_experiment(ada, "other"))
        made = await comment(ada, run_id, "x")
        assert (await ada.http.delete(f"/api/runs/{other}/comments/{made['id']}")).status_code == 404

    async def test_a_deleted_run_takes_no_comments_and_a_viewer_writes_none(self, ada, platform):
        run_id = await a_run(ada)
        viewer = await platform.caller(SERVICE, Role.VIEWER, project=ada.project)
        assert (await viewer.http.post(f"/api/runs/{run_id}/comments", json={"text": "x"})).status_code == 403
        await ada.http.delete(f"/api/runs/{run_id}")
        response = await ada.http.post(f"/api/runs/{run_id}/comments", json={"text": "x"})
        assert response.json()["code"] == "run_deleted"


class TestViews:
    async def test_a_view_is_opened_by_its_id_as_it_was_saved_and_changes_under_the_same_id(self, ada):
        experiment_id = await an_experiment(ada)
        response = await ada.http.post(f"/api/experiments/{experiment_id}/views", json=VIEW)
        assert response.status_code == 201, response.text
        path = response.headers["location"]
        assert {key: (await ada.http.get(path)).json()[key] for key in VIEW} == VIEW
        changed = (await ada.http.patch(path, json={"filter": "status = 'FAILED'", "charts": []})).json()
        assert (changed["id"], changed["filter"], changed["charts"]) == (response.json()["id"], "status = 'FAILED'", [])
        assert changed["columns"] == VIEW["columns"]
        assert (await ada.http.delete(path)).status_code == 204
        assert (await ada.http.get(path)).json()["code"] == "view_not_found"

    async def test_names_are_unique_within_an_experiment(self, ada):
        first, second = await an_experiment(ada, "a"), await an_experiment(ada, "b")
        for experiment_id in (first, second):
            await ada.http.post(f"/api/experiments/{experiment_id}/views", json=VIEW)
        response = await ada.http.post(f"/api/experiments/{first}/views", json=VIEW)
        assert (response.status_code, response.json()["code"]) == (409, "view_name_taken")
        other = await ada.http.post(f"/api/experiments/{first}/views", json=VIEW | {"name": "worst"})
        renamed = await ada.http.patch(f"/api/views/{other.json()['id']}", json={"name": "best"})
        assert renamed.json()["code"] == "view_name_taken"
        listed = (await ada.http.get(f"/api/experiments/{first}/views")).json()["items"]
        assert [view["name"] for view in listed] == ["best", "worst"]

    @pytest.mark.parametrize(
        "change", [{"filter": "metrics.a >> 1"}, {"order_by": ["nonsense"]}, {"columns": ["nonsense"]}]
    )
    async def test_a_view_that_could_not_be_opened_is_not_saved(self, ada, change):
        experiment_id = await an_experiment(ada)
        response = await ada.http.post(f"/api/experiments/{experiment_id}/views", json=VIEW | change)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_query")
        assert (await ada.http.get(f"/api/experiments/{experiment_id}/views")).json()["items"] == []

    async def test_views_of_hidden_names_and_other_projects_are_not_found(self, ada, platform):
        experiment_id = await an_experiment(ada, "secret")
        path = (await ada.http.post(f"/api/experiments/{experiment_id}/views", json=VIEW)).headers["location"]
        limited = await platform.caller(SERVICE, Role.CONTRIBUTOR, project=ada.project, pattern="open*")
        stranger = await platform.caller(SERVICE)
        for caller in (limited, stranger):
            assert (await caller.http.get(path)).status_code == 404
            assert (await caller.http.patch(path, json={"name": "x"})).status_code == 404
