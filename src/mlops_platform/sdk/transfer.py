"""What an import reads from, whatever that is, and what it says at its end."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mlops_platform.sdk.errors import MlopsError

Record = Mapping[str, Any]
"""A thing as the wire of imports has it (`contracts/tracking_archives.py`)."""


class Unreadable(MlopsError):
    """A file of a source that is not what it should be. It is left out, and the rest goes on."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a run or of a logged model. `open` reads it from its beginning, each time."""

    owner_id: str
    path: str
    content_type: str
    created_at: str
    open: Callable[[], BinaryIO]
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run, and the datasets that it names. `has_ended` says that nothing more will come of it."""

    record: Record
    datasets: Sequence[Record] = ()
    has_ended: bool = True


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A logged model."""

    record: Record
    has_ended: bool = True


@dataclass(slots=True)
class ImportReport:
    """What an import did. `conflicts` are things that are there with other content; nothing of them was changed."""

    experiment_id: str = ""
    name: str = ""
    created: int = 0
    unchanged: int = 0
    points: int = 0
    files: int = 0
    conflicts: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all that was to come in is there."""
        return not self.conflicts and not self.left_out

    def summary(self) -> dict[str, Any]:
        """As fields, for people and programs."""
        return {name: getattr(self, name) for name in self.__slots__} | {"whole": self.is_whole}


class Source(ABC):
    """An experiment to bring in. All of it blocks, and is called from threads."""

    follows = False
    """Whether runs may go on where they come from."""

    @abstractmethod
    def experiment(self) -> Record:
        """The experiment itself."""

    @abstractmethod
    def aim(self, experiment_id: str) -> None:
        """Learn which experiment all of it goes into, before anything else is asked for."""

    @abstractmethod
    def models(self) -> Iterator[SourceModel]:
        """Its logged models, by id."""

    @abstractmethod
    def runs(self) -> Iterator[SourceRun]:
        """Its runs; a parent comes before its children as far as that can be."""

    @abstractmethod
    def points(self, run_ids: Sequence[str]) -> Iterator[Record]:
        """The points of these runs, which follow each other in `runs`: columns of at most 10,000."""

    @abstractmethod
    def files(self, owner_ids: Sequence[str], *, of_models: bool = False) -> Iterator[SourceFile]:
        """The files of these runs or models, which follow each other in `runs` or `models`."""

    def left_out(self) -> Sequence[str]:
        """What could not be read, each as a sentence; complete when all else has been read."""
        return ()
