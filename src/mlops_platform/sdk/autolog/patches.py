"""Functions of other libraries, wrapped for a while: when the library is there, or from the moment that it is imported.

Whatever goes wrong in a wrapper is a warning. The wrapped function is always called exactly once, and its answer or its
error is what the caller gets.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any

MARK = "mlops_autolog"
"""How a function that is wrapped already is told."""

Around = Callable[[Any, tuple[Any, ...], dict[str, Any]], AbstractContextManager[Any]]
"""What is done around a call: given the instance, the arguments and the named arguments (which it may change)."""


class AutologWarning(UserWarning):
    """Something was not recorded by itself; the training is not touched by that."""


@dataclass(slots=True)
class Change:
    """One attribute that is not as its library made it."""

    owner: type | ModuleType
    name: str
    original: Any
    was_there: bool
    ours: Any = None
    is_on: bool = True


_changing = threading.RLock()
_originals: "list[Change]" = []
_waiting: dict[str, list[Callable[[ModuleType], None]]] = {}


def wrap(owner: type | ModuleType, name: str, around: Around) -> None:
    """Put `around` about a function of a class or module, until `undo_all`. Doing it twice does it once."""
    with _changing:
        own = vars(owner).get(name)
        if own is None or not callable(own) or MARK in vars(own):
            return
        change = Change(owner, name, own, was_there=True)
        change.ours = _wrapped(change, around)
        _originals.append(change)
        setattr(owner, name, change.ours)


def replace(owner: type | ModuleType, name: str, value: Any) -> None:
    """Set an attribute, until `undo_all`."""
    with _changing:
        _originals.append(Change(owner, name, vars(owner).get(name), was_there=name in vars(owner), ours=value))
        setattr(owner, name, value)


def undo_all() -> None:
    """Everything is as it was. What others have wrapped again since is left to them, and does nothing of ours any more."""
    with _changing:
        _waiting.clear()
        for change in reversed(_originals):
            change.is_on = False
            if vars(change.owner).get(change.name) is not change.ours:
                continue
            if change.was_there:
                setattr(change.owner, change.name, change.original)
            else:
                delattr(change.owner, change.name)
        _originals.clear()
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def when_imported(name: str, act: Callable[[ModuleType], None]) -> None:
    """Call `act` with a module: now when it is loaded, else as soon as it is."""
    with _changing:
        module = sys.modules.get(name)
        if module is None:
            _waiting.setdefault(name, []).append(act)
            if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
                sys.meta_path.insert(0, _Finder())
            return
    quietly(act, module)


def quietly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call something of ours; its error is a warning, and its answer then None."""
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001  # the edge to the training, which no trouble of ours may end
        warn(f"{getattr(function, '__name__', function)}: {error!r}")
        return None


def warn(message: str) -> None:
    """Say it, and never as an error, even where warnings are errors."""
    try:
        warnings.warn(f"Not all was recorded: {message}", AutologWarning, stacklevel=2)
    except AutologWarning:
        return


def _wrapped(change: Change, around: Around) -> Callable[..., Any]:
    original, is_method = change.original, isinstance(change.owner, type)

    @wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        instance, rest = (arguments[0], arguments[1:]) if is_method and arguments else (None, arguments)
        if not change.is_on:
            return original(*arguments, **named)
        context = quietly(around, instance, rest, named) or nullcontext()
        try:
            entered = context.__enter__()
        except Exception as error:  # noqa: BLE001  # the edge to the training, which no trouble of ours may end
            warn(repr(error))
            return original(*arguments, **named)
        try:
            answer = original(*arguments, **named)
        except BaseException as error:
            quietly(context.__exit__, type(error), error, error.__traceback__)
            raise
        if entered is not None and hasattr(entered, "answer"):
            entered.answer = answer
        quietly(context.__exit__, None, None, None)
        return answer

    call.__dict__[MARK] = True
    return call


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: it asks the others, and acts when what they found has been loaded."""

    def __init__(self) -> None:
        self._here = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _waiting or getattr(self._here, "asking", False):
            return None
        self._here.asking = True
        try:
            found = importlib.util.find_spec(fullname)
        finally:
            self._here.asking = False
        if found is not None and found.loader is not None:
            found.loader = _Loader(found.loader)
        return found


class _Loader(importlib.abc.Loader):
    """Loads as another loader does, and acts then."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        if module.__spec__ is not None:
            # Who asks for the loader later (for resources, or the source) is answered by the true one.
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        for act in _waiting.pop(module.__name__, []):
            quietly(act, module)
