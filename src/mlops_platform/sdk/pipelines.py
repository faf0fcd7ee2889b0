"""Pipelines written as Python functions.

`@task` leaves a function as it is: called from anywhere but a pipeline, it simply runs, so it is tested like any function.
Inside a function marked `@pipeline`, a call records a task and gives a placeholder for its result; the function runs once,
when the document is made, and never on the server.

    @task(retries=2)
    def train(rows: int, rate: float) -> dict: ...

    @task
    def best(candidates: list) -> dict: ...

    @pipeline(name="churn")
    def churn(rows: int = 1000):
        best([train(rows, 0.1), train(rows, 0.01)])

    churn.document()   # what POST /api/pipelines takes
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from pathlib import Path
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from mlops_platform.contracts.pipelines import (
    ParameterSpec,
    ParameterType,
    PipelineCreate,
    Resources,
    ScheduleSpec,
    TaskSpec,
)

P = ParamSpec("P")
R = TypeVar("R")

_TYPES: dict[type, ParameterType] = {
    str: ParameterType.STRING,
    bool: ParameterType.BOOLEAN,
    int: ParameterType.INTEGER,
    float: ParameterType.NUMBER,
    dict: ParameterType.OBJECT,
    list: ParameterType.ARRAY,
}


class PipelineDefinitionError(TypeError):
    """A pipeline function does what a document cannot say. The message says what and how else."""


class Placeholder:
    """Stands for a value that only a run knows: pass it on, pick a key with `[...]`, or write it into an f-string."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getitem__(self, key: str | int) -> "Placeholder":
        return Placeholder(f"{self._path}.{key}")

    def __str__(self) -> str:
        return f"${{{self._path}}}"

    __repr__ = __str__

    def _refuse(self, *_: object) -> NoReturn:
        raise PipelineDefinitionError(
            f"{self} is only known when the pipeline runs: a pipeline function cannot branch on it, loop over it or "
            "compute with it. Do that inside a task, or use task.map(...) to run a task for each item of a list."
        )

    __bool__ = __iter__ = __len__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __sub__ = __mul__ = __truediv__ = __lt__ = __gt__ = __le__ = __ge__ = _refuse


class TaskResult(Placeholder):
    """The result of a task that the pipeline function has called."""

    def __init__(self, name: str) -> None:
        super().__init__(f"tasks.{name}.result")
        self.name = name


ITEM = Placeholder("item")
"""Within `task.map(...)`: the item that this run of the task is for."""

RUN_ID = Placeholder("run.id")
"""The id of the pipeline run."""


class Task(Generic[P, R]):
    """A function that a pipeline can call. Made by `@task`."""

    def __init__(self, function: Callable[P, R], settings: Mapping[str, Any]) -> None:
        self.__name__ = function.__name__
        self._function = function
        self._settings = {key: value for key, value in settings.items() if value is not None}
        self._name = self._settings.pop("name", None) or function.__name__.strip("_").replace("_", "-")
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        building = _BUILDING.get()
        if building is None:
            return self._function(*args, **kwargs)
        # Within a pipeline function the type is a fiction that lets editors check how results are passed on.
        return typing.cast("R", building.add(self, self._bind(*args, **kwargs), for_each=None))

    def map(self, items: Any, **arguments: Any) -> TaskResult:
        """Run the task once for each item of a list (given now, or a parameter, or a result).

        The item is the first parameter unless `ITEM` stands in `arguments`. The result is the list of results.
        """
        building = _BUILDING.get()
        if building is None:
            raise PipelineDefinitionError(f"{self._name}.map(...) has a meaning inside a pipeline function only")
        if not _mentions_item(arguments):
            first = next(name for name in inspect.signature(self._function).parameters if name not in arguments)
            arguments = {first: ITEM, **arguments}
        return building.add(self, self._bind(**arguments), for_each=items)

    def options(self, **changes: Any) -> "Task[P, R]":
        """The same task with other settings: `train.options(name="train-small", retries=3)`."""
        return Task(self._function, {"name": self._name} | self._settings | changes)

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    @property
    def entry_point(self) -> str:
        """`module:function`, as a worker imports it."""
        function = self._function
        if function.__qualname__ != function.__name__:
            raise PipelineDefinitionError(
                f"{function.__qualname__!r} is defined inside another function or class; a worker imports tasks by name, "
                "so define them at the top of a module"
            )
        return f"{_module_name(function)}:{function.__name__}"

    def _bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = inspect.signature(self._function).parameters[name].kind
            if kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
                raise PipelineDefinitionError(f"{self._name}: {name!r} must be a parameter that can be given by name")
            arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return arguments


class Pipeline:
    """A pipeline function. Made by `@pipeline`."""

    def __init__(
        self, function: Callable[..., Any], *, name: str | None, description: str | None, schedule: ScheduleSpec | None
    ) -> None:
        self._function = function
        self.name = name or function.__name__.strip("_").replace("_", "-")
        self.description = description or inspect.getdoc(function)
        self.schedule = schedule
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now as plain Python, task by task: for tests and for a first look."""
        return self._function(*args, **kwargs)

    def document(self) -> PipelineCreate:
        """The document that describes the pipeline, made by calling the function once with placeholders."""
        parameters = _parameters(self._function)
        with _building() as built:
            self._function(**{name: Placeholder(f"params.{name}") for name in parameters})
        if not built.tasks:
            raise PipelineDefinitionError(f"pipeline {self.name!r} calls no task")
        return PipelineCreate(
            name=self.name,
            description=self.description,
            parameters=parameters,
            tasks=built.tasks,
            schedule=self.schedule,
        )


class Building:
    """The tasks that a pipeline function has called so far."""

    def __init__(self) -> None:
        self.tasks: list[TaskSpec] = []
        self._names: dict[str, int] = {}

    def add(self, called: Task[Any, Any], arguments: Mapping[str, Any], *, for_each: Any) -> TaskResult:
        count = self._names[called.name] = self._names.get(called.name, 0) + 1
        name = called.name if count == 1 else f"{called.name}-{count}"
        settings = called.settings
        after = [str(result.name) for result in settings.pop("after", ())]
        self.tasks.append(
            TaskSpec(
                name=name,
                entry_point=called.entry_point,
                arguments=_spell(arguments, f"{name}.arguments"),
                for_each=None if for_each is None else _spell(for_each, f"{name}.for_each"),
                depends_on=after,
                **settings,
            )
        )
        return TaskResult(name)


_BUILDING: ContextVar[Building | None] = ContextVar("mlops_pipeline_building", default=None)


@contextmanager
def _building() -> Iterator[Building]:
    built = Building()
    token = _BUILDING.set(built)
    try:
        yield built
    finally:
        _BUILDING.reset(token)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_seconds: float = 1,
    retry_on_loss: bool = True,
    timeout_seconds: float | None = None,
    resources: Resources | None = None,
    after: Sequence[Any] = (),
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Any = None, /, **settings: Any) -> Any:
    """Make a function a task. Bare, or with how often to retry, how long it may take and what it needs.

    `after` names results that must exist first without being passed: `deploy.options(after=[check])()`.
    """
    if function is not None:
        return Task(function, {})
    return lambda decorated: Task(decorated, settings)


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...


@overload
def pipeline(
    *, name: str | None = None, description: str | None = None, schedule: ScheduleSpec | str | None = None
) -> Callable[[Callable[..., Any]], Pipeline]: ...


def pipeline(function: Any = None, /, *, name: Any = None, description: Any = None, schedule: Any = None) -> Any:
    """Make a function a pipeline. Its parameters are the pipeline's; their annotations or defaults give the types."""
    when = ScheduleSpec(cron=schedule) if isinstance(schedule, str) else schedule

    def decorate(decorated: Callable[..., Any]) -> Pipeline:
        return Pipeline(decorated, name=name, description=description, schedule=when)

    return decorate if function is None else decorate(function)


def _parameters(function: Callable[..., Any]) -> dict[str, ParameterSpec]:
    hints = typing.get_type_hints(function)
    return {
        name: _parameter(name, hints.get(name), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }


def _parameter(name: str, hint: Any, default: Any) -> ParameterSpec:
    default = None if default is inspect.Parameter.empty else default
    kinds = [arg for arg in typing.get_args(hint) if arg is not types.NoneType] if _is_union(hint) else [hint]
    origin = typing.get_origin(kinds[0]) or kinds[0]
    kind = _TYPES.get(origin) if isinstance(origin, type) else None
    kind = kind or _TYPES.get(type(default))
    if kind is None:
        raise PipelineDefinitionError(
            f"parameter {name!r} needs a type that JSON has: annotate it with str, int, float, bool, list or dict"
        )
    return ParameterSpec(type=kind, default=default)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, types.UnionType}


def _spell(value: Any, at: str) -> Any:
    """The value as JSON, with each placeholder as its reference."""
    match value:
        case Placeholder():
            return str(value)
        case Mapping():
            return {str(key): _spell(inner, f"{at}.{key}") for key, inner in value.items()}
        case list() | tuple():
            return [_spell(inner, f"{at}.{index}") for index, inner in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise PipelineDefinitionError(
                f"{at}: a value of type {type(value).__name__} cannot stand in a document; pass JSON values, and let "
                "the task build the rest"
            )


def _mentions_item(arguments: Mapping[str, Any]) -> bool:
    return "${item" in repr(_spell(arguments, "arguments"))


def _module_name(function: Callable[..., Any]) -> str:
    """The module as a worker will import it; for a script that is being run, the name of its file."""
    if function.__module__ != "__main__":
        return function.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    if path is None:
        raise PipelineDefinitionError(f"{function.__name__!r} was typed at a prompt; put it into a module")
    return Path(path).stem
