"""Run search against a plain evaluator: whatever the SQL does, it must find and order what the language says."""

import json
import math
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from mlops_platform.core.http.app import ServiceApp
from mlops_platform.core.query.parser import parse_filter
from mlops_platform.core.query.tree import And, Comparator, IsNull, Like, Not, OneOf, Or
from mlops_platform.tracking.app import SERVICE as TRACKING
from mlops_platform.tracking.domain.search import RUNS
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run, an_experiment

SERVICE = "experiment-tracking"
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Known:
    """A run as the evaluator knows it."""

    id: str
    attributes: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Study:
    """Two experiments full of runs with gaps, ties, NaN and values of mixed types."""

    caller: Caller
    experiments: list[str]
    runs: list[Known]


async def a_study(platform: Platform) -> Study:
    caller = await platform.caller(SERVICE)
    experiments = [await an_experiment(caller, name) for name in ("one", "two")]
    chance = random.Random(7)
    runs = []
    for number in range(60):
        params = {"lr": chance.choice([0.1, 0.01, 1, "0.1", "auto"]), "seed": number}
        if chance.random() < 0.5:
            params["on"] = chance.choice([True, False, "true"])
        if chance.random() < 0.2:
            del params["lr"]
        tags = {"team": chance.choice(["red", "Red", "blue"])} if chance.random() < 0.7 else {}
        metrics = {
            key: chance.choice([0.0, 0.5, 1.0, math.nan, math.inf, -math.inf, round(chance.random(), 1)])
            for key in ("acc", "loss")
            if chance.random() < 0.75
        }
        start = START + timedelta(hours=chance.randrange(20))
        status = chance.choice(["RUNNING", "FINISHED", "FAILED"])
        name = f"{chance.choice(['net', 'tree', 'a_b', 'a%b'])}-{chance.randrange(5)}"
        fields = {"run_name": name, "status": status, "start_time": start.isoformat(), "parameters": params, "tags": tags}
        wire = {key: {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, value) for key, value in metrics.items()}
        wire = {key: "NaN" if value != value else value for key, value in wire.items()}  # noqa: PLR0124
        experiment = experiments[number % 5 == 0]
        run_id = await a_run(caller, experiment, wire or None, **fields)
        attributes = {"run_id": run_id, "run_name": name, "status": status, "start_time": start}
        attributes |= {"experiment_id": experiment, "end_time": None if status == "RUNNING" else datetime.now(UTC)}
        runs.append(Known(run_id, attributes, params, tags, metrics))
    return Study(caller, experiments, runs)


_STUDY: dict[int, Study] = {}


@pytest.fixture
async def study(platform: Platform) -> Study:
    """Made once a worker: nothing here changes it."""
    if id(platform.runtime) not in _STUDY:
        _STUDY[id(platform.runtime)] = await a_study(platform)
    known = _STUDY[id(platform.runtime)]
    key, name = await platform.key(known.caller.project)
    return Study(Caller(platform.client(SERVICE, key), key, known.caller.project, name), known.experiments, known.runs)


def value(run: Known, place) -> Any:
    if place.collection is None:
        return run.attributes.get(place.name)
    return getattr(run, place.collection).get(place.name)


def text(given: Any) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    return given if isinstance(given, str) else repr(given)


def is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)


def equal(found: Any, wanted: Any, collection: str | None) -> bool:
    if is_number(wanted) and math.isnan(wanted):
        return is_number(found) and math.isnan(found)
    if isinstance(wanted, bool):
        return found is wanted
    if collection == "params" and isinstance(wanted, str):
        return text(found) == wanted
    if is_number(wanted):
        return is_number(found) and found == wanted
    return found == wanted


def less(left: Any, right: Any) -> bool:
    if is_number(left) != is_number(right):
        return False
    if isinstance(left, bool):
        left = text(left)
    return left < right


def like(found: Any, pattern: str, *, fold: bool) -> bool:
    found = text(found)
    if fold:
        found, pattern = found.lower(), pattern.lower()
    reach = {0}
    for char in pattern:
        if char == "%":
            reach = {later for start in reach for later in range(start, len(found) + 1)}
        else:
            reach = {start + 1 for start in reach if start < len(found) and char in {"_", found[start]}}
    return len(found) in reach


def holds(tree: Any, run: Known) -> bool:
    match tree:
        case And(terms):
            return all(holds(term, run) for term in terms)
        case Or(terms):
            return any(holds(term, run) for term in terms)
        case Not(term):
            return not holds(term, run)
        case IsNull(place, negated):
            return (value(run, place) is None) != negated
        case _:
            found = value(run, tree.field)
            return found is not None and matches(tree, found)


def matches(tree: Any, found: Any) -> bool:
    match tree:
        case Like(_, pattern, fold, negated):
            return like(found, pattern, fold=fold) != negated
        case OneOf(place, values, negated):
            return any(equal(found, each, place.collection) for each in values) != negated
        case _:
            return compare(found, tree.comparator, tree.value, tree.field.collection)


def compare(found: Any, comparator: Comparator, wanted: Any, collection: str | None) -> bool:
    same = equal(found, wanted, collection)
    match comparator:
        case Comparator.EQ:
            return same
        case Comparator.NE:
            return not same
        case Comparator.LT:
            return less(found, wanted)
        case Comparator.LE:
            return same or less(found, wanted)
        case Comparator.GT:
            return less(wanted, found)
        case _:
            return same or less(wanted, found)


async def search(study, **body) -> list[str]:
    """The ids of every page."""
    found: list[str] = []
    token = None
    while True:
        response = await study.caller.http.post("/api/runs/search", json={**body, "page_token": token})
        assert response.status_code == 200, response.text
        page = response.json()
        found += [item["id"] for item in page["items"]]
        token = page["next_page_token"]
        if token is None:
            return found


FILTERS = [
    "metrics.acc > 0.5",
    "metrics.acc >= 0.5",
    "metrics.acc < 0.5",
    "metrics.acc <= Infinity",
    "metrics.acc = NaN",
    "metrics.acc != NaN",
    "metrics.acc != 0.5",
    "metrics.acc = 0.5",
    "metrics.acc > -inf",
    "metrics.acc IS NULL",
    "metrics.acc IS NOT NULL",
    "metrics.acc IN (0, 1, NaN)",
    "metrics.acc NOT IN (0, 1)",
    "metrics.none > 1",
    "NOT metrics.acc > 0.5",
    "NOT metrics.none > 1",
    "metrics.none IS NULL",
    "metrics.acc > 0.5 AND metrics.loss < 0.5",
    "metrics.acc > 0.5 OR metrics.loss < 0.5",
    "NOT (metrics.acc > 0.5 OR tags.team = 'red')",
    "params.lr = 0.1",
    "params.lr != 0.1",
    "params.lr = '0.1'",
    "params.lr = 'auto'",
    "params.lr != 'auto'",
    "params.lr > 0.05",
    "params.lr <= 0.1",
    "params.lr IN (1, 'auto')",
    "params.lr NOT IN (1, 'auto')",
    "params.lr LIKE '0%'",
    "params.lr IS NULL",
    "params.on = true",
    "params.on = 'true'",
    "params.on != true",
    "params.on != false",
    "params.seed >= 30 AND params.seed < 35",
    "params.seed LIKE '1_'",
    "tags.team = 'red'",
    "tags.team != 'red'",
    "tags.team ILIKE 'RED'",
    "tags.team NOT LIKE 'r%'",
    "tags.team IN ('red', 'blue')",
    "tags.team IS NULL AND metrics.acc IS NULL",
    "status = 'finished'",
    "status != 'FINISHED'",
    "status IN ('RUNNING', 'FAILED') AND NOT tags.team = 'blue'",
    "run_name LIKE 'net%'",
    "run_name LIKE 'a_b%'",
    "run_name LIKE 'a\\%'",
    "run_name >= 'net-2' AND run_name < 'o'",
    "start_time >= '2026-01-01T10:00:00Z'",
    "start_time = '2026-01-01T10:00:00Z' OR start_time < '2026-01-01T02:00:00Z'",
    "end_time IS NULL",
    "run_id = 'nonsense'",
    "run_id != 'nonsense'",
    "run_id LIKE '%'",
    "NOT NOT metrics.acc > 0.5",
    "params.lr > 'a'",
    'tags.`team` = "red"',
]
ORDERS = [
    [],
    ["metrics.acc"],
    ["metrics.acc DESC"],
    ["params.lr"],
    ["params.lr DESC"],
    ["tags.team", "metrics.loss DESC"],
    ["params.lr DESC", "metrics.acc"],
    ["start_time"],
    ["start_time DESC"],
    ["run_name DESC"],
    ["status", "run_name DESC"],
    ["end_time", "metrics.acc DESC"],
    ["metrics.none DESC"],
    ["params.on", "params.lr DESC", "tags.team"],
    ["metrics.acc", "metrics.loss DESC", "start_time"],
    ["run_id"],
    ["created_at DESC"],
    ["metrics.acc.max DESC"],
    ["metrics.acc.count", "user"],
    ["duration_seconds", "metrics.acc.mean DESC"],
]


def expected(study, filter_text, experiments=None):
    tree = parse_filter(filter_text, RUNS)
    return {
        run.id
        for run in study.runs
        if (experiments is None or run.attributes["experiment_id"] in experiments) and (tree is None or holds(tree, run))
    }


class TestFinding:
    @pytest.mark.parametrize("filter_text", FILTERS)
    async def test_a_filter_finds_exactly_what_it_says(self, study, filter_text):
        wanted = expected(study, filter_text)
        found = await search(study, filter=filter_text)
        assert (set(found), len(found)) == (wanted, len(wanted))

    @pytest.mark.parametrize("order_by", [["metrics.acc DESC"], ["params.lr"], ["tags.team DESC", "metrics.loss"]])
    @pytest.mark.parametrize("filter_text", FILTERS)
    async def test_an_order_changes_nothing_about_what_is_found(self, study, filter_text, order_by):
        wanted = expected(study, filter_text, study.experiments[:1])
        found = await search(
            study, filter=filter_text, order_by=order_by, experiment_ids=study.experiments[:1], page_size=23
        )
        assert (set(found), len(found)) == (wanted, len(wanted))


def place_of(run: Known, key: str) -> tuple[int, Any]:
    """Section and value, as the documentation says: numbers, then NaN or texts, then absent."""
    collection, _, name = key.partition(".")
    name = name.partition(".")[0]
    found = getattr(run, collection).get(name) if collection in {"metrics", "params", "tags"} else run.attributes.get(key)
    if found is None:
        return 2, 0
    if collection == "params":
        return (0, found) if is_number(found) else (1, text(found))
    if is_number(found) and math.isnan(found):
        return 1, 0
    return 0, found


class TestOrdering:
    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize("order_by", ORDERS)
    async def test_pages_of_any_size_give_one_order_without_gap_or_repetition(self, study, order_by, several):
        experiments = study.experiments if several else study.experiments[:1]
        body = {"order_by": order_by, "experiment_ids": experiments}
        whole = await search(study, **body, page_size=1000)
        assert set(whole) == expected(study, "", experiments)
        for size in (5, 17):
            assert await search(study, **body, page_size=size) == whole

    @pytest.mark.parametrize(
        "key", ["metrics.acc", "metrics.loss", "params.lr", "params.on", "tags.team", "start_time", "run_name", "status"]
    )
    @pytest.mark.parametrize("descending", [False, True])
    async def test_absent_and_nan_come_last_in_both_directions(self, study, key, descending):
        runs = {run.id: run for run in study.runs}
        found = [runs[run_id] for run_id in await search(study, order_by=[f"{key} {'DESC' if descending else 'ASC'}"])]
        places = [place_of(run, key) for run in found]
        assert [section for section, _ in places] == sorted(section for section, _ in places)
        for section in (0, 1):
            values = [each for at, each in places if at == section]
            assert values == sorted(values, reverse=descending)

    async def test_equal_numbers_of_different_kinds_are_ties_for_the_pages_too(self, platform):
        ada = await platform.caller(SERVICE)
        experiment = await an_experiment(ada)
        for number in (1.0, 1, 1.0, 1):
            await a_run(ada, experiment, run_name="same", parameters={"lr": number})
        study = Study(ada, [experiment], [])
        body = {"order_by": ["run_name", "params.lr"]}
        whole = await search(study, **body)
        assert len(whole) == 4
        assert await search(study, **body, page_size=1) == whole

    async def test_ties_go_on_to_the_next_key(self, study):
        runs = {run.id: run for run in study.runs}
        found = [runs[run_id] for run_id in await search(study, order_by=["status DESC", "params.seed DESC"])]
        seen = [(run.attributes["status"], run.params["seed"]) for run in found]
        assert seen == sorted(seen, reverse=True)

    async def test_without_an_order_the_newest_come_first(self, study):
        assert await search(study) == [run.id for run in reversed(study.runs)]


class TestAnswers:
    async def test_the_list_of_an_experiment_takes_the_same_language(self, study):
        url = f"/api/experiments/{study.experiments[1]}/runs"
        query = {"filter": "metrics.acc > 0.1", "order_by": ["metrics.acc DESC", "run_name"], "page_size": 2}
        page = (await study.caller.http.get(url, params=query)).json()
        again = (await study.caller.http.get(url, params={**query, "page_token": page["next_page_token"]})).json()
        body = {**query, "page_size": 4, "experiment_ids": [study.experiments[1]]}
        posted = (await study.caller.http.post("/api/runs/search", json=body)).json()
        assert page["items"] + again["items"] == posted["items"]
        listed = (await study.caller.http.get("/api/runs", params={**query, "experiment_ids": study.experiments[1]})).json()
        assert listed["items"] == page["items"]

    async def test_fields_keep_only_what_was_asked_for(self, study):
        body = {"filter": "metrics.acc IS NOT NULL", "fields": ["metrics.acc", "params"], "page_size": 5}
        for run in (await study.caller.http.post("/api/runs/search", json=body)).json()["items"]:
            assert set(run["metrics"]) == {"acc"}
            assert "seed" in run["parameters"]
            assert run["tags"] == {}

    async def test_summaries_can_be_searched(self, platform):
        ada = await platform.caller(SERVICE)
        run_id = await a_run(ada, metrics=[{"loss": loss, "step": step} for step, loss in enumerate([3, 1, 2, "NaN"])])
        await a_run(ada, await an_experiment(ada, "other"), metrics={"loss": 5})
        for wanted in ("min = 1", "max = 3", "mean = 2", "count = 4", "last = NaN"):
            found = await ada.http.post("/api/runs/search", json={"filter": f"metrics.loss.{wanted}"})
            assert [run["id"] for run in found.json()["items"]] == [run_id], wanted

    async def test_an_error_points_at_the_column(self, study):
        response = await study.caller.http.post("/api/runs/search", json={"filter": "metrics.acc >> 1"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_query")
        assert response.json()["detail"].splitlines()[-1] == " " * 13 + "^"
        response = await study.caller.http.post("/api/runs/search", json={"order_by": ["metrics.acc", "bogus DESC"]})
        assert response.json()["errors"][0]["field"] == "order_by[1]"

    @pytest.mark.parametrize(
        "changed",
        [{"filter": "status = 'RUNNING'"}, {"order_by": ["run_name"]}, {"deleted": "include"}, {"page_token": "bogus"}],
    )
    async def test_a_token_of_another_search_is_refused(self, study, changed):
        body = {"order_by": ["metrics.acc"], "page_size": 3}
        token = (await study.caller.http.post("/api/runs/search", json=body)).json()["next_page_token"]
        response = await study.caller.http.post("/api/runs/search", json={**body, "page_token": token, **changed})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "page_token"

    @pytest.mark.parametrize(
        "body",
        [
            {"page_size": 0},
            {"page_size": 1001},
            {"experiment_ids": ["x"]},
            {"order_by": ["run_name"] * 5},
            {"unknown": 1},
            {"filter": 3},
            {"fields": [""]},
        ],
    )
    async def test_a_bad_search_is_refused(self, study, body):
        assert (await study.caller.http.post("/api/runs/search", json=body)).status_code == 422

    async def test_a_page_is_no_larger_than_the_server_allows(self, study, runtime):
        settings = runtime.settings.model_copy(update={"max_page_size": 100})
        app = ServiceApp(TRACKING, replace(runtime, settings=settings))
        async with app.running():
            transport = httpx2.ASGITransport(app=app)
            headers = {"Authorization": f"Bearer {study.caller.key}"}
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
                assert (await client.get("/api/runs")).status_code == 200
                refused = await client.post("/api/runs/search", json={"page_size": 101})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "page_size")

    @pytest.mark.parametrize(
        "bad", [{"order_by": ["run_name", "name DESC"]}, {"fields": ["bogus.x"]}, {"filter": "x" * 10_001}]
    )
    async def test_what_the_language_does_not_know_is_a_400(self, study, bad):
        assert (await study.caller.http.post("/api/runs/search", json=bad)).status_code == 400

    @pytest.mark.parametrize("nasty", ["'; DROP TABLE tracking.runs; --", "\\", "%", "_", "\ud800", "$1", ":x", "é" * 300])
    async def test_values_are_only_values(self, study, nasty):
        escaped = nasty.replace("'", "''")
        for place in ("tags.team", "params.lr", "run_name", "user", "run_id"):
            for operator in ("=", "!=", "LIKE", "ILIKE"):
                body = {"filter": f"{place} {operator} '{escaped}'", "page_size": 1}
                content = json.dumps(body).encode()
                headers = {"Content-Type": "application/json"}
                response = await study.caller.http.post("/api/runs/search", content=content, headers=headers)
                assert response.status_code in {200, 400, 422}, response.text
