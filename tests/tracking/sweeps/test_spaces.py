"""The search space: what is in it, and that nothing outside of it is ever tried."""

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlops_platform.contracts.tracking_sweeps import ParamType, SweepParam
from mlops_platform.core.errors import InvalidInput
from mlops_platform.tracking.domain import spaces
from mlops_platform.tracking.domain.spaces import Point, Space

scalars = st.one_of(st.booleans(), st.integers(-5, 5), st.sampled_from([0.5, 1.0, -2.25]), st.sampled_from(["a", "1", ""]))
choices = st.lists(scalars, min_size=1, max_size=4, unique_by=spaces.code_of).map(lambda values: SweepParam(values=values))


@st.composite
def ranges(draw: Any) -> SweepParam:
    low = draw(st.integers(-6, 6))
    if draw(st.booleans()):
        return SweepParam(min=low, max=low + draw(st.integers(0, 6)), step=draw(st.sampled_from([None, 1, 2])))
    return SweepParam(min=float(low), max=low + draw(st.sampled_from([0.5, 1.0, 3.25])), step=0.25)


@st.composite
def declared(draw: Any) -> dict[str, SweepParam]:
    """Up to five parameters, some of which depend on choices before them."""
    found: dict[str, SweepParam] = {}
    for name in "edcba"[: draw(st.integers(1, 5))]:
        parameter = draw(st.one_of(choices, ranges()))
        parents = [other for other, it in found.items() if it.values]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            allowed = draw(st.lists(st.sampled_from(found[parent].values or []), min_size=1, unique_by=spaces.code_of))
            parameter = SweepParam.model_validate(parameter.model_dump(exclude_unset=True) | {"when": {parent: allowed}})
        found[name] = parameter
    return found


def belongs(space: Space, point: Point) -> bool:
    """Each searched parameter is there with a value of its own, and no other."""
    codes: dict[str, str] = {}
    for dimension in space:
        if not dimension.is_searched(codes):
            if dimension.name in point:
                return False
            continue
        value = point[dimension.name]
        if dimension.type is ParamType.CHOICE:
            if spaces.code_of(value) not in {spaces.code_of(choice.value) for choice in dimension.choices}:
                return False
        elif not dimension.low <= value <= dimension.high or isinstance(value, int) is not (
            dimension.type is ParamType.INT
        ):
            return False
        codes[dimension.name] = spaces.code_of(value)
    return len(codes) == len(point)


def a_grid(parameters: dict[str, SweepParam]) -> Space:
    """The space, if its grid is one that a sweep may have."""
    space = spaces.read_space(parameters)
    assume(math.prod(len(dimension.values() or ()) for dimension in space) <= spaces.MAX_CELLS)
    return space


@given(declared())
def test_a_grid_has_each_of_its_points_once_and_no_other(parameters):
    space = a_grid(parameters)
    points = list(spaces.cells(space))
    texts = {repr(sorted((name, spaces.code_of(value)) for name, value in point.items())) for point in points}
    assert len(texts) == len(points) == spaces.count_cells(space)
    assert all(belongs(space, point) for point in points)
    assert [spaces.cell(space, number) for number in (0, len(points) - 1)] == [points[0], points[-1]]


@given(declared(), st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_a_random_point_lies_in_the_space_and_is_the_same_each_time(parameters, seed, slot):
    space = spaces.read_space(parameters)
    point = spaces.random_point(space, seed, slot)
    assert belongs(space, point)
    assert spaces.random_point(space, seed, slot) == point


@given(declared(), st.floats(0, 1, exclude_max=True))
def test_a_grid_holds_every_random_point_of_a_space_that_has_an_end(parameters, place):
    space = a_grid(parameters)
    assert spaces.point_at(space, lambda _: place) in list(spaces.cells(space))


@given(st.floats(0, 1), st.floats(1e-9, 1e9), st.floats(1, 1e9))
def test_a_logarithmic_range_never_leaves_its_bounds(place, low, factor):
    (dimension,) = spaces.read_space({"x": SweepParam(min=low, max=low * factor, log=True)})
    assert low <= dimension.at(place) <= low * factor
    assert (dimension.at(0.0), dimension.at(1.0)) == (pytest.approx(low), pytest.approx(low * factor))


def test_a_logarithmic_range_gives_each_decade_its_share():
    space = spaces.read_space({"lr": SweepParam(min=1e-4, max=1.0, log=True), "n": SweepParam(min=1, max=1000, log=True)})
    drawn = [spaces.random_point(space, 1, slot) for slot in range(2000)]
    for decade in range(4):
        share = sum(10.0 ** (decade - 4) <= point["lr"] < 10.0 ** (decade - 3) for point in drawn)
        assert 400 < share < 600
    assert 550 < sum(point["n"] < 10 for point in drawn) < 850
    assert {type(point["n"]) for point in drawn} == {int}


def test_random_points_spread_evenly_and_independently():
    space = spaces.read_space({"x": SweepParam(min=0.0, max=1.0), "c": SweepParam(values=["a", "b", "c", "d"])})
    drawn = [spaces.random_point(space, 3, slot) for slot in range(4000)]
    for name in "abcd":
        these = [point["x"] for point in drawn if point["c"] == name]
        assert 850 < len(these) < 1150
        assert sum(these) / len(these) == pytest.approx(0.5, abs=0.04)


def test_steps_are_exact_decimals():
    space = spaces.read_space({"x": SweepParam(min=0.1, max=0.7, step=0.2)})
    assert [point["x"] for point in spaces.cells(space)] == [0.1, 0.3, 0.5, 0.7]


def test_the_finest_step_that_is_taken_gives_points_within_the_range():
    space = spaces.read_space({"x": SweepParam(min=-1e300, max=1e300, step=1e285)})
    assert all(-1e300 <= space[0].at(place) <= 1e300 for place in (0.0, 0.3, 1.0))
    assert -1e300 <= space[0].exact(0.123e300) <= 1e300


def test_conditions_reach_through_conditions_whatever_the_order_of_declaring():
    space = spaces.read_space(
        {
            "c": SweepParam(value=1, when={"b": [True]}),
            "b": SweepParam(values=[True, False], when={"a": ["x"]}),
            "a": SweepParam(values=["x", "y"]),
        }
    )
    assert list(spaces.cells(space)) == [
        {"a": "x", "b": True, "c": 1},
        {"a": "x", "b": False},
        {"a": "y"},
    ]


def test_what_is_nested_keeps_the_conditions_around_it_and_its_own_say_more():
    space = spaces.read_space(
        {
            "a": SweepParam(values=[1, 2, 3]),
            "b": SweepParam(values=["x", "y"]),
            "in": SweepParam(
                when={"a": [1, 2], "b": "x"},
                parameters={"c": SweepParam(value=1), "d": SweepParam(value=1, when={"a": 2})},
            ),
        }
    )
    found = {(point["a"], point["b"]): sorted(point.keys() - {"a", "b"}) for point in spaces.cells(space)}
    assert found == {
        (1, "x"): ["in.c"], (1, "y"): [], (2, "x"): ["in.c", "in.d"], (2, "y"): [], (3, "x"): [], (3, "y"): [],
    }  # fmt: skip


def test_the_values_of_a_condition_are_read_once_however_much_is_nested_under_it(monkeypatch):
    read = []
    real = spaces.code_of

    def watched(value):
        read.append(value)
        return real(value)

    monkeypatch.setattr(spaces, "code_of", watched)
    parents = {"a": SweepParam(min=0, max=99)}
    nested = {f"p{number}": SweepParam(value=1) for number in range(90)}
    spaces.read_space(parents | {"in": SweepParam(when={"a": list(range(100))}, parameters=nested)})
    assert len(read) == 100


@pytest.mark.parametrize(
    "parameters",
    [
        {"b": SweepParam(value=1, when={f"a{number}": list(range(500)) for number in range(21)})},
        {"in": SweepParam(when={"a": list(range(500))}, parameters={f"p{n}": SweepParam(value=1) for n in range(21)})},
        {"in": SweepParam(parameters={f"p{n}": SweepParam(value=1, when={"a": list(range(500))}) for n in range(21)})},
    ],
)
def test_conditions_have_so_many_values_and_no_more(parameters):
    with pytest.raises(InvalidInput, match="more than 10000 values together"):
        spaces.read_space({"a": SweepParam(min=0, max=499)} | parameters)


def test_a_parameter_may_depend_on_a_number():
    space = spaces.read_space({"layers": SweepParam(min=1, max=3), "third": SweepParam(value="x", when={"layers": 3})})
    assert [len(point) for point in spaces.cells(space)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"a": SweepParam(value=1, when={"b": 1}), "b": SweepParam(value=1, when={"a": 1})}, "depends on itself"),
        ({"a": SweepParam(value=1, when={"a": 1})}, "depends on itself"),
        ({"a": SweepParam(values=[1, 2]), "b": SweepParam(value=1, when={"a": "1"})}, "never has"),
        ({"a": SweepParam(min=0.0, max=1.0), "b": SweepParam(value=1, when={"a": 0.5})}, "never has"),
        ({"a": SweepParam(min=0, max=4, step=2), "b": SweepParam(value=1, when={"a": 1})}, "never has"),
        ({"a": SweepParam(min=0, max=4), "b": SweepParam(value=1, when={"a": []})}, "1 to 500"),
        ({"a": SweepParam(min=0.0, max=1.0, log=True)}, "above 0"),
        ({"a": SweepParam(min=1, max=8, log=True, step=2)}, "no 'step'"),
        ({"a": SweepParam(min=1, max=8, step=0)}, "not above 0"),
        ({"a": SweepParam(min=0.0, max=1e30, step=0.5)}, "too small"),
        ({"a": SweepParam(min=-1e300, max=1e300, step=5e-324)}, "too small"),
        ({"a": SweepParam(min=1)}, "both"),
        ({"a": SweepParam(min=1, max=2, values=[1])}, "needs one of"),
        ({"a": SweepParam(values=[1], log=True)}, "say nothing"),
        ({"a": SweepParam(min=1, max=2.5, type=ParamType.INT)}, "no int"),
        ({"a": SweepParam(min=0, max=2**60)}, "too far out"),
        ({"a": SweepParam(parameters={"b": SweepParam(value=1)}, min=1)}, "nested"),
        ({"a.b": SweepParam(value=1), "a": SweepParam(parameters={"b": SweepParam(value=1)})}, "twice"),
        ({"a": SweepParam(values=["x" * 1001])}, "1000 characters"),
        ({"n" * 200: SweepParam(parameters={"m" * 100: SweepParam(value=1)})}, "250 characters"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_and_says_where(parameters, complaint):
    with pytest.raises(InvalidInput, match=complaint) as refused:
        spaces.read_space(parameters)
    assert refused.value.errors[0].field.startswith("parameters.")


def test_the_largest_grid_is_counted_and_a_larger_one_refused():
    largest = {f"a{number}": SweepParam(values=list(range(10))) for number in range(4)}
    assert spaces.count_cells(spaces.read_space(largest)) == spaces.MAX_CELLS
    with pytest.raises(InvalidInput, match="more than 10000 cells"):
        spaces.count_cells(spaces.read_space(largest | {"b": SweepParam(values=[1, 2])}))
    with pytest.raises(InvalidInput, match="too many values"):
        spaces.count_cells(spaces.read_space({"x": SweepParam(min=0, max=2**50)}))


@pytest.mark.parametrize("when", [{}, {"a": 1}])
def test_a_grid_that_is_far_too_large_is_refused_before_anything_is_listed(when, monkeypatch):
    monkeypatch.setattr(spaces, "_listed", lambda dimension: pytest.fail("it was listed"))
    wide = {f"p{number}": SweepParam(min=0, max=9999, when=when) for number in range(99)}
    with pytest.raises(InvalidInput, match="more than 10000 cells"):
        spaces.count_cells(spaces.read_space({"a": SweepParam(values=[1])} | wide))


def test_a_grid_of_two_branches_may_be_as_large_as_one_without():
    branches = {name: SweepParam(min=1, max=5000, when={"a": name}) for name in "xy"}
    space = spaces.read_space({"a": SweepParam(values=["x", "y"])} | branches)
    assert spaces.count_cells(space) == spaces.MAX_CELLS
