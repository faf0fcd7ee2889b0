"""Search spaces: what may be tried, which parameters a choice brings with it, and the cells of a grid.

A value travels as its *code*, `kind:text` as parameters are kept (`int:3`, `string:adam`), so that 1, 1.0, true and "1"
stay apart and what a run has as a parameter is found among the choices again.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from mlops_platform.contracts.tracking_sweeps import MAX_DIMENSIONS, ParamType, SweepParam
from mlops_platform.core.errors import InvalidInput
from mlops_platform.tracking.domain.params import MAX_KEY, Param, ParamKind, to_param

MAX_CELLS = 10_000
MAX_CHOICE_TEXT = 1000
MAX_SPACE_TEXT = 200_000
MAX_CONDITION_VALUES = 10_000
_FAR = 2**53

Point = dict[str, Any]
"""Values by the parameter's name, for those that are searched at this place."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Searched only where the parameter `name` has one of these codes."""

    name: str
    codes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched parameter. A fixed value is a choice of one."""

    name: str
    type: ParamType
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Param, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def is_searched(self, codes: Mapping[str, str]) -> bool:
        """Whether the parameters that were chosen before it bring it with them."""
        return all(codes.get(condition.name) in condition.codes for condition in self.conditions)

    def count(self) -> int | None:
        """How many values it can have; None when there are more than anybody would list."""
        if self.type is ParamType.CHOICE:
            return len(self.choices)
        if self.step is None:
            return None
        count = self.steps()
        return count if count <= MAX_CELLS else None

    def values(self) -> Sequence[Any] | None:
        """All values that it can have; None when there are more than anybody would list."""
        if self.type is ParamType.CHOICE:
            return [choice.value for choice in self.choices]
        count = self.count()
        return None if count is None else [self.stepped(number) for number in range(count)]

    def steps(self) -> int:
        """How many values a range with a step has."""
        return int((Decimal(str(self.high)) - Decimal(str(self.low))) // Decimal(str(self.step))) + 1

    def stepped(self, number: int) -> float:
        """The value so many steps above the least: 0.1 and three steps of 0.2 are 0.7, and not nearly."""
        value = Decimal(str(self.low)) + number * Decimal(str(self.step))
        return int(value) if self.type is ParamType.INT else float(value)

    def exact(self, value: float) -> float:
        """The nearest value that it can have, for one that was computed."""
        if self.step is None:
            return value
        return self.stepped(min(max(round((value - self.low) / self.step), 0), self.steps() - 1))

    def at(self, place: float) -> Any:
        """The value at a place from 0 to 1 of the range, evenly spread."""
        if self.type is ParamType.CHOICE:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)].value
        if self.log:
            return self._at_log(place)
        if self.step is not None:
            return self.stepped(min(int(place * self.steps()), self.steps() - 1))
        return min(max(self.low * (1 - place) + self.high * place, self.low), self.high)

    def _at_log(self, place: float) -> float:
        half = 0.5 if self.type is ParamType.INT else 0.0
        low, high = math.log(self.low - half), math.log(self.high + half)
        value = math.exp(low * (1 - place) + high * place)
        return int(min(max(round(value), self.low), self.high)) if half else min(max(value, self.low), self.high)


Space = tuple[Dimension, ...]
"""Dimensions in an order in which each comes after those that it depends on."""


def code_of(value: Any) -> str:
    """The code of a value.

    >>> code_of(3), code_of("3"), code_of(True)
    ('int:3', 'string:3', 'bool:true')
    """
    param = to_param("value", value)
    return f"{param.kind}:{param.text}"


def value_of(code: str) -> Any:
    """The value of a code."""
    kind, _, text = code.partition(":")
    return Param("value", ParamKind(kind), text).value


def read_space(parameters: Mapping[str, SweepParam]) -> Space:
    """The space that a request declares, or what is wrong with it."""
    found: dict[str, Dimension] = {}
    _check_conditions(_condition_values(parameters))
    for dimension in _dimensions("", parameters, {}, depth=0):
        if dimension.name in found:
            raise _wrong(dimension.name, "is given twice, once nested and once with dots")
        found[dimension.name] = dimension
        if len(found) > MAX_DIMENSIONS:
            raise InvalidInput.of("parameters", f"declares more than {MAX_DIMENSIONS} parameters")
    _check_conditions(sum(len(each.codes) for dimension in found.values() for each in dimension.conditions))
    if sum(len(choice.text) for dimension in found.values() for choice in dimension.choices) > MAX_SPACE_TEXT:
        raise InvalidInput.of("parameters", f"the choices are more than {MAX_SPACE_TEXT} characters together")
    return _ordered(found)


def cells(space: Space) -> Iterator[Point]:
    """Every point of a grid once, the last parameter changing fastest.

    >>> list(cells(read_space({"a": SweepParam(values=[1, 2]), "b": SweepParam(value="x", when={"a": [2]})})))
    [{'a': 1}, {'a': 2, 'b': 'x'}]
    """
    listed = [_listed(dimension) for dimension in space]
    # One digit a dimension; those that are not searched at this place have none.
    digits: list[int | None] = [None] * len(space)
    point, codes = _descend(space, listed, digits, 0, {}, {})
    while True:
        yield dict(point)
        place = len(space) - 1
        while place >= 0:
            digit = digits[place]
            if digit is not None:
                point.pop(space[place].name)
                codes.pop(space[place].name)
                if digit + 1 < len(listed[place]):
                    break
            place -= 1
        if place < 0:
            return
        digits[place] = (digits[place] or 0) + 1
        point, codes = _descend(space, listed, digits, place, point, codes)


def _descend(
    space: Space,
    listed: Sequence[Sequence[tuple[str, Any]]],
    digits: list[int | None],
    place: int,
    point: Point,
    codes: dict[str, str],
) -> tuple[Point, dict[str, str]]:
    """Set the digit at `place` as it is, and all behind it to their first value."""
    first = place
    for number in range(place, len(space)):
        dimension = space[number]
        if not dimension.is_searched(codes):
            digits[number] = None
            continue
        digits[number] = (digits[number] or 0) if number == first else 0
        codes[dimension.name], point[dimension.name] = listed[number][digits[number] or 0]
    return point, codes


def count_cells(space: Space) -> int:
    """How many cells a grid has; `InvalidInput` when a parameter has no end, or the grid is too large."""
    always, least = 1, 1
    for dimension in space:
        count = dimension.count()
        if count is None:
            raise _wrong(
                dimension.name, "has too many values for a grid", hint="Give 'values', or a 'step' between 'min' and 'max'."
            )
        # Before any value is listed: a tree that branches so often has as many leaves, whatever depends on what.
        always *= 1 if dimension.conditions else count
        least += count - 1
        if max(always, least) > MAX_CELLS:
            raise _too_large()
    total = 0
    for _ in cells(space):
        total += 1
        if total > MAX_CELLS:
            raise _too_large()
    return total


def _too_large() -> InvalidInput:
    return InvalidInput.of(
        "parameters",
        f"make a grid of more than {MAX_CELLS} cells",
        hint="Use fewer values, or another method: random and tpe search any space.",
    )


def cell(space: Space, number: int) -> Point:
    """One cell of a grid."""
    for at, point in enumerate(cells(space)):
        if at == number:
            return point
    raise IndexError(number)


def random_point(space: Space, seed: int, slot: int) -> Point:
    """A point drawn evenly from the space: always the same for a seed and a slot, and independent of all others.

    Counter-based: the hash of (seed, slot, name) is the random number, so that nothing has to be remembered between
    draws, and a draw that is repeated after a crash is the same one.
    """
    return point_at(space, lambda name: chance(seed, slot, name))


def point_at(space: Space, place: Callable[[str], float]) -> Point:
    """The point whose every searched parameter stands at its place from 0 to 1."""
    point: Point = {}
    codes: dict[str, str] = {}
    for dimension in space:
        if dimension.is_searched(codes):
            point[dimension.name] = dimension.at(place(dimension.name))
            codes[dimension.name] = code_of(point[dimension.name])
    return point


def chance(seed: int, slot: int, name: str) -> float:
    """A number from 0 up to 1 (not reached)."""
    digest = blake2b(f"{seed}:{slot}:{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / _FAR


def _dimensions(
    prefix: str, parameters: Mapping[str, SweepParam], around: Mapping[str, Condition], *, depth: int
) -> Iterator[Dimension]:
    if depth > 8:
        raise _wrong(prefix[:-1], "is nested deeper than 8 levels")
    for key, declared in parameters.items():
        name = f"{prefix}{key}"
        if len(name) > MAX_KEY:
            raise _wrong(name[:60], f"a name has at most {MAX_KEY} characters, with those around it")
        conditions = {**around, **_conditions(name, declared.when)}
        if declared.parameters is not None:
            if _given(declared) - {"when"}:
                raise _wrong(name, "has parameters nested in it, so it has no values of its own")
            yield from _dimensions(f"{name}.", declared.parameters, conditions, depth=depth + 1)
        else:
            yield _dimension(name, declared, tuple(conditions.values()))


def _given(declared: SweepParam) -> set[str]:
    return set(declared.model_fields_set) - {"parameters"}


def _conditions(name: str, when: Mapping[str, Any]) -> dict[str, Condition]:
    """By the parameter that they depend on. What is nested shares them: to read values takes time."""
    found = {}
    for other, allowed in when.items():
        values = allowed if isinstance(allowed, list) else [allowed]
        if not values or len(values) > 500:
            raise _wrong(name, f"when {other!r}: give 1 to 500 values")
        found[other] = Condition(other, frozenset(code_of(_plain(name, value)) for value in values))
    return found


def _condition_values(parameters: Mapping[str, SweepParam]) -> int:
    """How many are written down."""
    return sum(
        sum(len(allowed) if isinstance(allowed, list) else 1 for allowed in declared.when.values())
        + _condition_values(declared.parameters or {})
        for declared in parameters.values()
    )


def _check_conditions(values: int) -> None:
    if values > MAX_CONDITION_VALUES:
        raise InvalidInput.of(
            "parameters",
            f"the conditions have more than {MAX_CONDITION_VALUES} values together",
            values,
            hint="Those of a group count once for each parameter that is nested in it.",
        )


def _dimension(name: str, declared: SweepParam, conditions: tuple[Condition, ...]) -> Dimension:
    given = _given(declared) - {"when", "type"}
    forms = [form for form in ({"values"}, {"value"}, {"min", "max"}) if form & given]
    if len(forms) != 1:
        raise _wrong(name, "needs one of: 'values'; 'min' and 'max'; 'value'; 'parameters'")
    if "min" in forms[0]:
        return _range(name, declared, conditions)
    if given - forms[0] or declared.type not in {None, ParamType.CHOICE}:
        raise _wrong(name, "has listed values, to which 'step', 'log' and a type of numbers say nothing")
    listed = declared.values if declared.values is not None else [declared.value]
    choices = tuple(to_param(name, _plain(name, value)) for value in listed)
    if len({(choice.kind, choice.text) for choice in choices}) < len(choices):
        raise _wrong(name, "lists a value twice", declared.values)
    return Dimension(name, ParamType.CHOICE, choices=choices, conditions=conditions)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        raise _wrong(name, "an object is no value: nest its fields as 'parameters'", value)
    if len(to_param(name, value).text) > MAX_CHOICE_TEXT:
        raise _wrong(name, f"a value has at most {MAX_CHOICE_TEXT} characters")
    return value


def _range(name: str, declared: SweepParam, conditions: tuple[Condition, ...]) -> Dimension:
    low, high, step = declared.min, declared.max, declared.step
    if low is None or high is None:
        raise _wrong(name, "needs both 'min' and 'max'")
    numbers = [low, high, *([] if step is None else [step])]
    is_whole = all(isinstance(number, int) for number in numbers)
    kind = declared.type or (ParamType.INT if is_whole else ParamType.FLOAT)
    if kind is ParamType.CHOICE or (kind is ParamType.INT and not is_whole):
        raise _wrong(name, f"is a range of real numbers, and no {kind}")
    if any(abs(number) > (_FAR if kind is ParamType.INT else 1e300) for number in numbers):
        raise _wrong(name, "has a bound that is too far out")
    if not low <= high:
        raise _wrong(name, "has a 'min' above its 'max'", [low, high])
    if declared.log and (low <= 0 or step is not None):
        raise _wrong(name, "is logarithmic: 'min' must be above 0, and it has no 'step'", low)
    if step is not None:
        _check_step(name, float(low), float(high), float(step))
    if kind is ParamType.INT:
        return Dimension(
            name, kind, low, high, None if declared.log else step or 1, log=declared.log, conditions=conditions
        )
    whole = None if step is None else float(step)
    return Dimension(name, kind, float(low), float(high), whole, log=declared.log, conditions=conditions)


def _check_step(name: str, low: float, high: float, step: float) -> None:
    if step <= 0:
        raise _wrong(name, "has a 'step' that is not above 0", step)
    if (high - low) / step > _FAR:
        raise _wrong(name, "has a 'step' that is too small for its range", step)


def _ordered(found: Mapping[str, Dimension]) -> Space:
    """Each after those that it depends on, else as declared."""
    conditions = {condition: dimension for dimension in found.values() for condition in dimension.conditions}
    parents = {condition.name for condition in conditions} & found.keys()
    possible = {name: {f"{choice.kind}:{choice.text}" for choice in found[name].choices} for name in parents}
    for condition, dimension in conditions.items():
        _check_condition(dimension, condition, found, possible)
    needed = {name: {condition.name for condition in dimension.conditions} for name, dimension in found.items()}
    placed: dict[str, Dimension] = {}
    while needed:
        name = next((name for name, others in needed.items() if others <= placed.keys()), None)
        if name is None:
            raise _wrong(next(iter(needed)), "depends on itself, by way of its conditions")
        placed[name] = found[name]
        del needed[name]
    return tuple(placed.values())


def _check_condition(
    dimension: Dimension, condition: Condition, found: Mapping[str, Dimension], possible: Mapping[str, set[str]]
) -> None:
    parent = found.get(condition.name)
    if parent is None:
        raise _wrong(dimension.name, f"depends on {condition.name!r}, which is no parameter of this space")
    if parent.type is ParamType.CHOICE:
        impossible = condition.codes - possible[parent.name]
    else:
        impossible = frozenset(code for code in condition.codes if not _lies_in(parent, value_of(code)))
    if impossible:
        raise _wrong(dimension.name, f"depends on a value that {condition.name!r} never has", value_of(min(impossible)))


def _lies_in(parent: Dimension, value: Any) -> bool:
    if parent.type is ParamType.FLOAT or isinstance(value, bool) or not isinstance(value, int):
        return False
    return parent.low <= value <= parent.high and (parent.step is None or (value - parent.low) % parent.step == 0)


def _listed(dimension: Dimension) -> list[tuple[str, Any]]:
    return [(code_of(value), value) for value in dimension.values() or ()]


def _wrong(name: str, message: str, value: object = None, *, hint: str | None = None) -> InvalidInput:
    return InvalidInput.of(f"parameters.{name}", message, value, hint=hint)
