"""Any filter and any order gives a page or a 400 that points into the text; never a failure, and in bounded time."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_platform.tracking.domain.search import SUMMARIES
from tests.conftest import Caller, Platform
from tests.factories.tracking import a_run

SERVICE = "experiment-tracking"
LONGEST_SECONDS = 20.0

NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["NaN", "Infinity", "-inf", "5e-324", "1e308"]),
)
METRICS = st.builds(
    lambda key, context, summary: f"metrics.{key}{context}{summary}",
    st.sampled_from(["a", "b", "none", "`a b`"]),
    st.sampled_from(["", "{split=val}", "{split='x y',fold=3}"]),
    st.sampled_from(["", *(f".{summary}" for summary in SUMMARIES if summary != "best")]),
)
FIELDS = st.one_of(METRICS, st.sampled_from(["params.lr", "params.none", "duration_seconds"]))
TEXTS = st.text(max_size=12).map(lambda text: "'" + text.replace("'", "''") + "'")
TERMS = st.recursive(
    st.one_of(FIELDS, NUMBERS),
    lambda inner: st.builds(lambda left, sign, right: f"({left} {sign} {right})", inner, st.sampled_from("+-*/"), inner),
    max_leaves=12,
)
COMPARATORS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
COMPARISONS = st.one_of(
    st.builds(lambda left, sign, right: f"{left} {sign} {right}", TERMS, COMPARATORS, TERMS),
    st.builds(
        lambda term, values: f"{term} NOT IN ({', '.join(values)})", TERMS, st.lists(NUMBERS, min_size=1, max_size=5)
    ),
    st.builds(lambda term: f"{term} IS NOT NULL", TERMS),
    st.builds(
        lambda name, word, text: f"{name} {word} {text}",
        st.sampled_from(["run_name", "user", "run_id", "tags.t", "params.lr", "status"]),
        st.sampled_from(["=", "!=", "LIKE", "NOT ILIKE", "<"]),
        TEXTS,
    ),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(lambda left, word, right: f"({left}) {word} {right}", inner, st.sampled_from(["AND", "OR"]), inner),
        inner.map(lambda term: f"NOT ({term})"),
    ),
    max_leaves=6,
)
ORDERS = st.lists(st.one_of(FIELDS, st.sampled_from(["run_name", "tags.t DESC", "status"])), max_size=3, unique=True)
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    caller = await platform.caller(SERVICE)
    for value in (1.7e308, -5e-324, "NaN", "-Infinity", 0):
        metrics = [{"a": value, "b": 0}, {"a": value, "step": 1, "context": {"split": "val"}}]
        experiment = (await caller.http.post("/api/experiments", json={"name": str(value)})).json()["id"]
        await a_run(caller, experiment, metrics, parameters={"lr": 0.1}, tags={"t": "x"})
    return caller


async def answers(caller: Caller, **body: object) -> int:
    begun = time.monotonic()
    response = await caller.http.post("/api/runs/search", json=body)
    assert time.monotonic() - begun < LONGEST_SECONDS
    if response.status_code == 400:
        problem = response.json()
        assert problem["code"] == "invalid_query"
        assert "column" in problem["errors"][0]["message"]
    return response.status_code


@FEW
@given(text=FILTERS, order_by=ORDERS)
async def test_what_the_grammar_makes_is_answered_whatever_the_numbers(ada, text, order_by):
    status = await answers(ada, filter=text, order_by=order_by)
    assert status in {200, 400}


@FEW
@given(text=st.text(max_size=300), key=st.text(max_size=40))
async def test_any_text_is_answered(ada, text, key):
    # Half a surrogate is no text that JSON carries: that is refused before anything is read.
    assert await answers(ada, filter=text) in {200, 400, 422}
    assert await answers(ada, order_by=[key]) in {200, 400, 422}


@pytest.mark.parametrize(
    "text",
    [
        "NOT (" * 49 + " + ".join(["metrics.a"] * 20) + " > 1" + ")" * 49,
        " AND ".join(["metrics.a + metrics.b * metrics.a / 3 > 1"] * 200),
        " OR ".join(f"params.k{n} LIKE '%a%b%c%d%'" for n in range(200)),
        "(" * 5000,
        "-" * 9000 + "metrics.a > 1",
        "metrics." + "a." * 4000 + "a > 1",
        "run_name LIKE '" + "%a_" * 3000 + "'",
        "tags.t IN (" + ",".join(["'x'"] * 999) + ")",
    ],
)
async def test_the_largest_filters_take_bounded_time(ada, text):
    assert await answers(ada, filter=text) in {200, 400}
