"""What is read of MLflow, wherever it lies: in the JSON of its own wire, and with what could not be read beside it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

Fields = Mapping[str, Any]
Point = tuple[int, int, float]
"""Milliseconds, step, value."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a run or a model."""

    path: str
    open: Callable[[], BinaryIO]
    size: int | None = None


class MlflowStore(ABC):
    """Where MLflow keeps its runs. `left_out` gathers what was not to be read, each as a sentence."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    @abstractmethod
    def experiments(self) -> Iterator[Fields]:
        """All of them, deleted ones too: `experiment_id`, `name`, `lifecycle_stage`, times, `tags`."""

    @abstractmethod
    def runs(self, experiment_id: str) -> Iterator[Fields]:
        """The runs of one, deleted ones too, the earliest first: `info`, `data`, `inputs`, `outputs`."""

    @abstractmethod
    def started(self, experiment_id: str, run_id: str) -> int | None:
        """When a run of the experiment began, in milliseconds; None when it has no such run."""

    @abstractmethod
    def history(self, run: Fields, key: str) -> Iterator[Point]:
        """Every point of a metric."""

    @abstractmethod
    def models(self, experiment_id: str) -> Iterator[Fields]:
        """Its logged models: `info`, `data`."""

    @abstractmethod
    def files(self, run: Fields) -> Iterator[StoredFile]:
        """The artifacts of a run."""

    @abstractmethod
    def model_files(self, model: Fields) -> Iterator[StoredFile]:
        """The files of a logged model."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""
