import asyncio
import contextlib
import itertools
from pathlib import Path

import pytest

from mlops_platform.contracts.registry import Relation
from mlops_platform.core.events import outbox
from mlops_platform.core.identity import Grant, Principal, PrincipalId, PrincipalKind, Role, new_id
from mlops_platform.core.jobs import consumers
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.domain.lineage import Edge
from mlops_platform.registry.repository.lineage import LineageRepository
from mlops_platform.registry.tasks import KEEP_LINEAGE
from tests.factories.registry import a_ready_version, a_version

RUN, SET = new_id(), new_id()


async def state(caller, subject, relation, target):
    response = await caller.http.post("/api/lineage", json={"subject": subject, "relation": relation, "object": target})
    assert response.status_code == 201, response.text
    return response.json()


async def look(caller, urn, **query):
    response = await caller.http.get("/api/lineage", params={"urn": urn, **query})
    assert response.status_code == 200, response.text
    return response.json()


def found(graph):
    """Node -> distance, short names."""
    return {f"{node['kind']}:{node['name']}": node["distance"] for node in graph["nodes"]}


async def deliver(runtime):
    """What the background duties do: number the events, then hand them to the registry's handler."""
    async with runtime.database.write() as session:
        while await outbox.place(session):
            pass
    while await consumers.deliver(runtime, KEEP_LINEAGE):
        pass


async def stated_elsewhere(runtime, caller, subject, relation, target):
    """Another service states an edge in a transaction of its own."""
    principal = Principal(PrincipalId("0" * 32), "t", PrincipalKind.SERVICE, caller.project, (Grant(Role.SERVICE),))
    async with runtime.database.write() as session:
        work = UnitOfWork(session, principal, runtime.clock)
        await work.link(
            *(f"urn:mlops:{caller.project}:{end}" if ":" in end else end for end in (subject, relation, target))
        )


class TestState:
    async def test_an_edge_is_readable_at_once_in_short_and_long_form(self, ada):
        edge = await state(ada, "model-version:fraud/1", "derived_from", f"training-set:{SET}")
        assert edge["subject"] == f"urn:mlops:{ada.project}:model-version:fraud/1"
        again = await state(ada, edge["subject"], "derived_from", edge["object"])
        assert again == edge
        graph = await look(ada, "model-version:fraud/1")
        assert graph["edges"] == [edge]
        assert graph == await look(ada, edge["subject"])

    async def test_the_event_that_follows_changes_nothing(self, ada, runtime):
        await state(ada, "model:a", "derived_from", "model:b")
        before = await look(ada, "model:a")
        await deliver(runtime)
        await deliver(runtime)
        assert await look(ada, "model:a") == before

    async def test_an_edge_into_another_project_does_not_exist(self, ada):
        foreign = f"urn:mlops:{new_id()}:model:a"
        for body in (
            {"subject": foreign, "relation": "used", "object": "model:b"},
            {"subject": "model:b", "relation": "used", "object": foreign},
        ):
            assert (await ada.http.post("/api/lineage", json=body)).status_code == 404
        assert (await ada.http.get("/api/lineage", params={"urn": foreign})).status_code == 404

    @pytest.mark.parametrize("field", ["subject", "object"])
    @pytest.mark.parametrize(
        "value",
        ["", "fraud", "urn:mlops:x:model:a", "urn:mlops", "urn:other:a", "model:", ":a", "Model:a", "model:a b",
         "model:a\x00",
         "model:é", "model:" + "a" * 401, "../..:a", 7, None, ["model:a"], "model:\ud800"],
    )  # fmt: skip
    async def test_a_bad_end_is_named(self, ada, field, value):
        body = {"subject": "model:a", "relation": "used", "object": "model:b", field: value}
        try:
            response = await ada.http.post("/api/lineage", json=body)
        except UnicodeEncodeError:
            response = await ada.http.post(
                "/api/lineage", content=b'{"%s": "\\ud800"}' % field.encode(), headers={"content-type": "application/json"}
            )
            assert response.status_code in {400, 422}
            return
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["field"] == field

    async def test_a_relation_outside_of_the_vocabulary_is_refused(self, ada):
        body = {"subject": "model:a", "relation": "likes", "object": "model:b"}
        assert (await ada.http.post("/api/lineage", json=body)).status_code == 422

    async def test_a_viewer_reads_and_does_not_state(self, ada, platform):
        viewer = await platform.caller("model-registry", Role.VIEWER, project=ada.project)
        body = {"subject": "model:a", "relation": "used", "object": "model:b"}
        assert (await viewer.http.post("/api/lineage", json=body)).status_code == 403
        await look(viewer, "model:a")

    async def test_who_may_not_move_an_alias_cannot_state_that_it_points_elsewhere(self, ada, platform):
        await a_version(ada, version="1")
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        bob = await platform.caller("model-registry", Role.CONTRIBUTOR, project=ada.project)
        body = {"subject": "alias:fraud/champion", "relation": "points_to", "object": "model-version:fraud/9"}
        assert (await bob.http.post("/api/lineage", json=body)).status_code == 403
        assert found(await look(ada, "alias:fraud/champion")) == {"alias:fraud/champion": 0, "model-version:fraud/1": 1}

    async def test_two_who_move_an_alias_to_and_fro_at_once_take_turns(self, ada, runtime):
        """The request that moves it, and the handler that hears of many moves in one transaction."""
        who = Principal(PrincipalId("0" * 32), "t", PrincipalKind.SERVICE, ada.project, (Grant(Role.SERVICE),))
        begun = [asyncio.Event(), asyncio.Event()]

        async def move(mine, targets):
            async with runtime.database.write() as session:
                edges = LineageRepository(session, who)
                for target in targets:
                    await edges.add(Edge("alias:a/champion", Relation.POINTS_TO, target), runtime.clock.now())
                    begun[mine].set()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(begun[1 - mine].wait(), 0.2)

        await asyncio.gather(
            move(0, ["model-version:a/1", "model-version:a/2"]), move(1, ["model-version:a/2", "model-version:a/1"])
        )


class TestWalk:
    async def test_from_the_feature_set_to_the_outcome_and_back(self, ada):
        """The path that the platform promises, in the words that each service uses."""
        chain = [
            ("feature-set:user_features/1", "version_of", "feature-set:user_features"),
            (f"training-set:{SET}", "derived_from", "feature-set:user_features/1"),
            (f"run:{RUN}", "used", f"training-set:{SET}"),
            (f"run:{RUN}", "produced", "model-version:fraud/1"),
            ("alias:fraud/champion", "points_to", "model-version:fraud/1"),
            ("variant:v2_test/treatment", "routes_to", "alias:fraud/champion"),
            ("variant:v2_test/treatment", "part_of", "ab-test:v2_test"),
            ("ab-test:v2_test", "concluded_with", "outcome:v2_test"),
            ("outcome:v2_test", "favours", "variant:v2_test/treatment"),
            ("variant:v2_test/treatment", "measured_by", "outcome:v2_test/clicks"),
            (f"pipeline-run:{RUN}", "run_of", "pipeline:train"),
            (f"pipeline-run:{RUN}", "produced", f"run:{RUN}"),
        ]
        for edge in chain:
            await state(ada, *edge)
        affected = found(await look(ada, "feature-set:user_features", direction="downstream", depth=20))
        assert affected == {
            "feature-set:user_features": 0, "feature-set:user_features/1": 1, f"training-set:{SET}": 2, f"run:{RUN}": 3,
            "model-version:fraud/1": 4, "alias:fraud/champion": 5, "variant:v2_test/treatment": 6, "ab-test:v2_test": 7,
            "outcome:v2_test": 7, "outcome:v2_test/clicks": 7,
        }  # fmt: skip
        causes = found(await look(ada, "outcome:v2_test/clicks", direction="upstream", depth=20))
        others = {"ab-test:v2_test", "outcome:v2_test"}
        assert causes.keys() == (affected.keys() - others) | {f"pipeline-run:{RUN}", "pipeline:train"}
        assert found(await look(ada, "feature-set:user_features", direction="upstream")) == {"feature-set:user_features": 0}

    async def test_depth_is_a_limit(self, ada):
        for n in range(8):
            await state(ada, f"model:m{n + 1}", "derived_from", f"model:m{n}")
        assert found(await look(ada, "model:m0", direction="downstream", depth=3)) == {f"model:m{n}": n for n in range(4)}
        both = found(await look(ada, "model:m4", direction="both", depth=2))
        assert both == {"model:m4": 0, "model:m3": 1, "model:m5": 1, "model:m2": 2, "model:m6": 2}
        for depth in ("0", "21", "x"):
            assert (await ada.http.get(f"/api/lineage?urn=model:a&depth={depth}")).status_code == 422

    async def test_every_relation_has_one_end_that_depends(self, ada):
        """What the reference page says of each relation."""
        page = (Path(__file__).parents[3] / "docs/reference/model-registry.md").read_text(encoding="utf-8")
        for relation in Relation:
            await state(ada, f"model:{relation}-subject", relation, f"model:{relation}-object")
            row = next(line for line in page.splitlines() if line.startswith(f"| `{relation}` |"))
            dependent = row.split("|")[2].partition(";")[0].strip()
            source = {"subject": "object", "object": "subject"}[dependent]
            affected = found(await look(ada, f"model:{relation}-{source}", direction="downstream"))
            assert affected == {f"model:{relation}-{source}": 0, f"model:{relation}-{dependent}": 1}

    async def test_a_cycle_ends(self, ada):
        for n in range(3):
            await state(ada, f"model:m{n}", "derived_from", f"model:m{(n + 1) % 3}")
        await state(ada, "model:m0", "derived_from", "model:m0")
        graph = await look(ada, "model:m0", depth=20)
        assert found(graph) == {"model:m0": 0, "model:m1": 1, "model:m2": 1}
        assert len(graph["edges"]) == 4

    async def test_diamonds_do_not_multiply(self, ada):
        layers = [[f"model:l{layer}-{n}" for n in range(4)] for layer in range(8)]
        edges = [
            state(ada, above, "derived_from", below)
            for lower, upper in itertools.pairwise(layers)
            for above in upper
            for below in lower
        ]
        for first in range(0, len(edges), 16):
            await asyncio.gather(*edges[first : first + 16])
        graph = await look(ada, layers[0][0], direction="downstream", depth=20)
        assert len(graph["nodes"]) == 1 + 4 * 7
        assert len(graph["edges"]) == 4 + 16 * 6
        assert not graph["is_truncated"]

    async def test_an_answer_has_an_end_and_says_so(self, ada, monkeypatch):
        monkeypatch.setattr("mlops_platform.registry.repository.lineage.MAX_NODES", 3)
        monkeypatch.setattr("mlops_platform.registry.service.lineage.MAX_NODES", 3)
        for n in range(6):
            await state(ada, f"model:m{n}", "derived_from", "model:root")
        graph = await look(ada, "model:root")
        assert len(graph["nodes"]) == 3
        assert graph["is_truncated"]

    async def test_the_same_names_in_another_project_are_another_graph(self, ada, platform):
        await state(ada, "model:a", "derived_from", "model:b")
        eve = await platform.caller("model-registry")
        assert (await look(eve, "model:a"))["edges"] == []

    async def test_a_grant_limited_to_names_shows_only_those(self, ada, platform):
        await state(ada, "model:fraud-b", "derived_from", "model:fraud-a")
        await state(ada, "model:fraud-b", "derived_from", "model:churn")
        bob = await platform.caller("model-registry", Role.CONTRIBUTOR, project=ada.project, pattern="fraud-*")
        assert found(await look(bob, "model:fraud-b")) == {"model:fraud-b": 0, "model:fraud-a": 1}
        assert (await bob.http.get("/api/lineage?urn=model:churn")).status_code == 403
        body = {"subject": "model:fraud-b", "relation": "used", "object": "model:churn"}
        assert (await bob.http.post("/api/lineage", json=body)).status_code == 403


class TestOfVersionsAndAliases:
    async def test_a_version_states_what_it_came_from(self, ada):
        await a_version(ada, version="1", run_id=RUN, training_set_id=SET)
        graph = (await ada.http.get("/api/models/fraud/versions/1/lineage")).json()
        assert found(graph) == {"model-version:fraud/1": 0, f"run:{RUN}": 1, f"training-set:{SET}": 1}
        assert (await ada.http.get("/api/models/fraud/versions/9/lineage")).status_code == 404

    async def test_an_alias_shows_the_version_to_which_it_points_now(self, ada, runtime):
        await a_ready_version(ada, {}, run_id=RUN)
        await a_version(ada, version="2")
        for version in ("2", "1"):
            await ada.http.put("/api/models/fraud/aliases/champion", json={"version": version})
        expected = {"alias:fraud/champion": 0, "model-version:fraud/1": 1, f"run:{RUN}": 2}
        for _ in range(2):
            graph = (await ada.http.get("/api/models/fraud/aliases/champion/lineage")).json()
            assert found(graph) == expected
            await deliver(runtime)  # the same statements again, in their order, as the log has them

    async def test_a_removed_alias_points_nowhere_also_after_its_events(self, ada, runtime):
        await a_version(ada, version="1")
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        await ada.http.delete("/api/models/fraud/aliases/champion")
        await deliver(runtime)
        assert found(await look(ada, "alias:fraud/champion")) == {"alias:fraud/champion": 0}
        assert (await ada.http.get("/api/models/fraud/aliases/champion/lineage")).status_code == 404

    async def test_the_aliases_of_a_purged_model_point_nowhere(self, ada, runtime):
        await a_version(ada, version="1")
        await ada.http.put("/api/models/fraud/aliases/champion", json={"version": "1"})
        assert (await ada.http.delete("/api/models/fraud?purge=true")).status_code == 204
        assert found(await look(ada, "alias:fraud/champion")) == {"alias:fraud/champion": 0}
        await deliver(runtime)
        assert found(await look(ada, "alias:fraud/champion")) == {"alias:fraud/champion": 0}

    async def test_what_other_services_state_arrives_by_event(self, ada, runtime):
        await a_version(ada, version="1", run_id=RUN)
        await stated_elsewhere(runtime, ada, f"run:{RUN}", "used", f"training-set:{SET}")
        await deliver(runtime)
        graph = (await ada.http.get("/api/models/fraud/versions/1/lineage")).json()
        assert found(graph)[f"training-set:{SET}"] == 2

    async def test_an_odd_name_of_another_service_does_not_spoil_the_answer(self, ada, runtime):
        await stated_elsewhere(runtime, ada, "model:a", "derived_from", "dataset:s3 with spaces")
        await deliver(runtime)
        assert "dataset:s3 with spaces" in found(await look(ada, "model:a"))
