"""The program of a process that is kept: a question a line on standard input, an answer a line on standard output.

Nothing imports this module. The server starts it as a program, so that Optuna is never loaded into a server and its work
never holds up an event loop. Importing Optuna takes most of a second: so the process stays for the next question, and
ends by itself when none comes for a while, when the server is gone (its input ends), or when it has grown large.

Each question brings the whole study, and the answer depends on the question alone: any server's process answers alike.
"""

import json
import select
import sys
import warnings
from collections.abc import Container
from datetime import datetime
from functools import lru_cache
from typing import Any

import optuna
import psutil
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

_LARGE = 400 * 1024**2
_FAR = 1e300
_WHENEVER = datetime(2000, 1, 1)  # noqa: DTZ001  # Optuna's are naive, and nothing here reads them


def main(idle_seconds: float) -> None:
    """Answer until there is nothing more to answer."""
    optuna.logging.disable_default_handler()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # What is experimental is the decomposition into groups of parameters, which conditional spaces need.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    answers = {"sample": sampled, "quasi": quasi_random, "importance": importances}
    while select.select([sys.stdin], [], [], idle_seconds)[0]:
        # Unbuffered reading would be slow, and a buffer could hide the next question from select: there is one at a time.
        line = sys.stdin.buffer.readline()
        if not line:
            return
        question = json.loads(line)
        try:
            answer = {"answer": answers[question["kind"]](question)}
        except Exception as error:  # noqa: BLE001  # the edge of the process: one bad study must not end it for others
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        sys.stdout.write(json.dumps(answer | {"number": question["number"]}) + "\n")
        sys.stdout.flush()
        # Not the high-water mark of getrusage: that is inherited from a server that is large itself.
        if psutil.Process().memory_info().rss > _LARGE:
            return


def sampled(question: dict[str, Any]) -> dict[str, Any]:
    """The next point by TPE. Trials that still run count as bad ones, so that workers do not crowd at one place."""
    is_conditional = any(dimension["conditions"] for dimension in question["space"])
    sampler = optuna.samplers.TPESampler(
        seed=question["seed"],
        n_startup_trials=question["startup_trials"],
        constant_liar=True,
        multivariate=True if is_conditional else None,
        group=is_conditional,
    )
    study = studied(question, sampler)
    trial = study.ask()
    point: dict[str, Any] = {}
    codes: dict[str, str] = {}
    for dimension in question["space"]:
        name = dimension["name"]
        if not all(codes.get(parent) in allowed for parent, allowed in dimension["conditions"]):
            continue
        chosen = trial._suggest(name, distribution(dimension))  # noqa: SLF001  # what suggest_* do, for a distribution that is made already
        point[name] = chosen
        if dimension["type"] == "choice":
            codes[name] = dimension["choices"][chosen]
        elif dimension["type"] == "int":
            codes[name] = f"int:{chosen}"
    return point


def quasi_random(question: dict[str, Any]) -> list[float]:
    """A point of a scrambled Sobol sequence in the unit cube."""
    from scipy.stats.qmc import Sobol  # noqa: PLC0415  # it takes longer to import than Optuna, and few sweeps need it

    engine = Sobol(question["dimensions"], scramble=True, rng=question["seed"])
    if question["slot"]:
        engine.fast_forward(question["slot"])
    # It warns of a number of points that is no power of two; a sweep stops where it stops.
    place: list[float] = engine.random(1)[0].tolist()
    return place


def importances(question: dict[str, Any]) -> dict[str, float]:
    """What each parameter is worth for one objective (PED-ANOVA)."""
    study = studied(question, optuna.samplers.RandomSampler(seed=0))
    number = question["objective"]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [
        dimension["name"]
        for dimension in question["space"]
        if len({trial.params[dimension["name"]] for trial in complete if dimension["name"] in trial.params}) > 1
    ]
    if not varied:
        return {}
    # The evaluator takes what is less for better, whatever the study says.
    sign = -1.0 if question["directions"][number] == "maximize" else 1.0
    found = optuna.importance.get_param_importances(study, params=varied, target=lambda trial: sign * trial.values[number])
    return {name: float(value) for name, value in found.items()}


class Past(optuna.storages.InMemoryStorage):
    """The storage of a study whose earlier trials are given, and not copied one by one into it."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._past = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002  # Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        own = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [*(trial for trial in self._past if states is None or trial.state in states), *own]


class Memory:
    """Trials that were read before, by all that is said of them: what is found here is what would be made anew."""

    def __init__(self, space: list[dict[str, Any]]) -> None:
        self._distributions = {dimension["name"]: distribution(dimension) for dimension in space}
        self._indices = {
            dimension["name"]: {code: number for number, code in enumerate(dimension["choices"])}
            for dimension in space
            if dimension["type"] == "choice"
        }
        self._known: dict[tuple[Any, ...], FrozenTrial | None] = {}

    def trials(self, said: list[list[Any]]) -> list[FrozenTrial]:
        """These trials, without those that lie outside of the space."""
        found = [self._trial((number, state, tuple(values), step, codes)) for number, state, values, step, codes in said]
        return [trial for trial in found if trial is not None]

    def _trial(self, said: tuple[int, str, tuple[float, ...], int | None, str]) -> FrozenTrial | None:
        if said not in self._known:
            self._known[said] = self._made(*said)
        return self._known[said]

    def _made(self, number: int, state: str, values: tuple[float, ...], step: int | None, codes: str) -> FrozenTrial | None:
        """None when a parameter was corrected to something outside of the space."""
        params: dict[str, Any] = {}
        for name, code in json.loads(codes).items():
            value = self._indices[name].get(code) if name in self._indices else number_of(code)
            held = self._distributions[name]
            if value is None or not held._contains(held.to_internal_repr(value)):  # noqa: SLF001  # it has no public word
                return None
            params[name] = value
        kept = [min(max(float(value), -_FAR), _FAR) for value in values]
        reported = {step: kept[0]} if state == "PRUNED" and step is not None and kept else {}
        return FrozenTrial(
            # The trial that is asked for is the first of its storage, and has the number 0.
            number=number + 1,
            trial_id=number + 1,
            state=TrialState[state],
            params=params,
            distributions={name: self._distributions[name] for name in params},
            value=None,
            values=kept if state == "COMPLETE" else None,
            intermediate_values=reported,
            datetime_start=_WHENEVER,
            datetime_complete=None if state == "RUNNING" else _WHENEVER,
            user_attrs={},
            system_attrs={},
        )


@lru_cache(maxsize=4)
def memory_of(space: str) -> Memory:
    """What is remembered of the sweeps over one space; of the few that were asked for last."""
    return Memory(json.loads(space))


def studied(question: dict[str, Any], sampler: Any) -> optuna.Study:
    """The study as the runs say it was."""
    space = question["space"]
    storage = Past(memory_of(json.dumps(space)).trials(question["trials"]))
    return optuna.create_study(storage=storage, directions=question["directions"], sampler=sampler)


def number_of(code: str) -> float | None:
    """The number that a code says."""
    kind, _, text = code.partition(":")
    return int(text) if kind == "int" else float(text) if kind == "float" else None


def distribution(dimension: dict[str, Any]) -> BaseDistribution:
    """A dimension as Optuna has it; a choice by its place in the list, since Optuna's choices must be plain."""
    low, high, step, log = (dimension.get(name) for name in ("low", "high", "step", "log"))
    if dimension["type"] == "choice":
        return CategoricalDistribution(range(len(dimension["choices"])))
    if dimension["type"] == "int":
        return IntDistribution(int(low), int(high), log=bool(log), step=1 if log else int(step))  # type: ignore[arg-type]
    return FloatDistribution(low, high, log=bool(log), step=step)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(float(sys.argv[1]))
