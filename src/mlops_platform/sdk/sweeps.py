"""How a search space is written in Python: shorthand, W&B's sweep configuration, and Optuna's distributions."""

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from mlops_platform.contracts.tracking_sweeps import Objective

METHODS = {"bayes": "tpe", "bayesian": "tpe", "sobol": "qmc"}


class TrialPruned(Exception):
    """Raised by an objective to give its trial up; no failure."""


class SweepOptions(TypedDict, total=False):
    """What else a sweep may be given."""

    name: str
    tags: Mapping[str, str]
    pruner: str | Mapping[str, Any]
    max_trials: int
    timeout_seconds: float
    max_attempts: int
    seed: int
    startup_trials: int
    heartbeat_seconds: int
    parent_run_id: str


def read_space(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The space as the wire has it.

    >>> read_space({"layers": range(1, 4), "optimizer": ["adam", "sgd"], "seed": 7})
    {'layers': {'min': 1, 'max': 3}, 'optimizer': {'values': ['adam', 'sgd']}, 'seed': {'value': 7}}
    """
    return {name: _parameter(name, declared) for name, declared in parameters.items()}


def read_objectives(objective: Any, goal: str) -> list[dict[str, Any]]:
    """One metric by name, several by name with their goals, or objectives in full."""
    if isinstance(objective, str):
        return [{"metric": objective, "goal": goal}]
    if isinstance(objective, Mapping):
        if "metric" in objective:
            return [dict(objective)]
        return [{"metric": name, "goal": each} for name, each in objective.items()]
    return [_objective(each, goal) for each in objective]


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a new sweep from a configuration of W&B, or from one that has our names for them."""
    read = dict(config)
    fields: dict[str, Any] = {"parameters": read_space(read.pop("parameters", {}))}
    method = str(read.pop("method", "tpe"))
    fields["method"] = METHODS.get(method, method)
    if (metric := read.pop("metric", None)) is not None:
        known = {"metric": metric["name"], "goal": metric.get("goal", "minimize"), "target": metric.get("target")}
        fields["objectives"] = [{name: value for name, value in known.items() if value is not None}]
    if (early := read.pop("early_terminate", None)) is not None:
        fields["pruner"] = _early_termination(early)
    if (cap := read.pop("run_cap", None)) is not None:
        fields["max_trials"] = cap
    for name in ("program", "command", "project", "entity", "description"):
        read.pop(name, None)  # what starts W&B's agents, and where; here the worker is the program
    return fields | read


def telling(values: Any) -> list[float] | None:
    """What an objective returned, as the values of a trial; None leaves it to what was logged."""
    if values is None:
        return None
    if isinstance(values, Sequence) and not isinstance(values, str):
        return [float(value) for value in values]
    return [float(values)]


class Heartbeat:
    """Says that a trial is alive, from a thread, until it is stopped or the server says that the trial is not ours."""

    def __init__(self, beat: Callable[[], bool], interval_seconds: float) -> None:
        self._beat = beat
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="mlops-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; a beat that is under way is not waited for."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._interval) and os.getpid() == self._pid:
            if not self._beat():
                return


def _objective(each: Any, goal: str) -> dict[str, Any]:
    if isinstance(each, Objective):
        return each.model_dump(mode="json", exclude_none=True)
    return {"metric": each, "goal": goal} if isinstance(each, str) else dict(each)


def _parameter(name: str, declared: Any) -> dict[str, Any]:
    kind = type(declared).__name__
    if kind in {"FloatDistribution", "IntDistribution"}:
        step = declared.step if kind == "FloatDistribution" or not declared.log else None
        found = {"min": declared.low, "max": declared.high, "log": declared.log, "step": step}
        return {key: value for key, value in found.items() if value is not None and value is not False}
    if kind == "CategoricalDistribution":
        return {"values": list(declared.choices)}
    if isinstance(declared, range):
        bounds = sorted((declared[0], declared[-1]))
        return {"min": bounds[0], "max": bounds[1]} | ({"step": abs(declared.step)} if abs(declared.step) != 1 else {})
    if isinstance(declared, Mapping):
        return _described(name, declared)
    if isinstance(declared, Sequence) and not isinstance(declared, str):
        return {"values": list(declared)}
    return {"value": declared}


def _described(name: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(declared)
    if "parameters" in found:
        found["parameters"] = read_space(found["parameters"])
    distribution = found.pop("distribution", None)
    if "probabilities" in found:
        raise ValueError(f"{name}: weighted choices are not searched; leave 'probabilities' out.")
    if distribution is None:
        return found
    if distribution not in _DISTRIBUTIONS:
        raise ValueError(f"{name}: {distribution!r} is none of {', '.join(sorted(_DISTRIBUTIONS))}.")
    return _DISTRIBUTIONS[distribution](found)


def _real(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"type": "float"}


def _stepped(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "q"} | {"step": found.get("q", 1)}


def _of_exponents(found: dict[str, Any]) -> dict[str, Any]:
    """W&B's `log_uniform` gives the natural logarithms of its bounds."""
    return _real(found | {"min": math.exp(found["min"]), "max": math.exp(found["max"]), "log": True})


_DISTRIBUTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "constant": dict,
    "categorical": dict,
    "int_uniform": lambda found: found | {"type": "int"},
    "uniform": _real,
    "q_uniform": lambda found: _stepped(found) | {"type": "float"},
    "log_uniform": _of_exponents,
    "log_uniform_values": lambda found: _real(found | {"log": True}),
}


def _early_termination(early: Mapping[str, Any]) -> dict[str, Any]:
    """W&B's `hyperband` compares at the brackets min_iter, min_iter * eta, ...: successive halving, in our words."""
    if early.get("type") != "hyperband":
        raise ValueError(f"early_terminate: {early.get('type')!r} is not known; W&B has 'hyperband'.")
    eta = int(early.get("eta", 3))
    least = early.get("min_iter") or max(int(early["max_iter"]) // eta ** int(early.get("s", 1)), 1)
    return {"kind": "asha", "min_resource": int(least), "reduction_factor": eta}
