"""Where what records itself goes: into the run that is open, or into a run of its own."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_platform.sdk import content, datasets, models
from mlops_platform.sdk.autolog.patches import quietly
from mlops_platform.sdk.calls import is_plain
from mlops_platform.sdk.forking import reset_in_child

DEFAULT_EXPERIMENT = "autolog"
TRAINING, VALIDATION = "training", "validation"


@dataclass(frozen=True, slots=True)
class Options:
    """What is recorded. Defaults are those of `platform.tracking.autolog()`."""

    experiment: str = DEFAULT_EXPERIMENT
    log_models: bool = True
    log_datasets: bool = True
    most_children: int = 100


@dataclass(slots=True)
class Fit:
    """One training that is going on. Its `prefix` keeps the second one in a run apart from the first."""

    run: Any
    prefix: str
    is_own: bool
    subject: Any = None
    """What is trained."""
    answer: Any = None
    notes: dict[str, Any] = field(default_factory=dict)

    def params(self, values: Mapping[str, Any]) -> None:
        self.run.log_params({f"{self.prefix}{key}": plain(value) for key, value in values.items()})

    def metrics(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        numbers = {f"{self.prefix}{key}": float(value) for key, value in values.items() if is_number(value)}
        self.run.log_metrics(numbers, step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        self.run.set_tags({f"{self.prefix}{key}" if self.prefix else key: value for key, value in values.items()})

    def document(self, path: str, value: Any) -> None:
        made = content.json_document(value)
        self.run.record_file(made.data, f"{self._folder}{path}", content_type=made.content_type)

    def model(self, model: Any, path: str = "model", **about: Any) -> None:
        """Save it here, upload it with all else, and say that the run made it."""
        if "signature" in self.notes:
            about.setdefault("signature", self.notes["signature"])
        with TemporaryDirectory(prefix="mlops-autolog-") as name:
            manifest = models.save(model, Path(name), **about)
            for file in sorted(Path(name).rglob("*")):
                if file.is_file():
                    self.run.record_file(file, f"{self._folder}{path}/{file.relative_to(name).as_posix()}")
        self.run.record_model(manifest, f"{self._folder}{path}")

    def dataset(
        self,
        inputs: Any,
        targets: Any = None,
        *,
        context: str = TRAINING,
        rows: int | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what data was read. `rows` when only some of them are given."""
        found = datasets.describe(inputs, targets, schema=schema) | ({} if rows is None else {"rows": rows})
        about = {"name": datasets.NAME, "source_type": "code", "source": Path(sys.argv[0]).name, "context": context}
        self.run.record_dataset({**datasets.to_wire(found), **about})
        if context == TRAINING:
            self.notes["signature"] = found["schema"]
            self.document("dataset.json", found)
            self.tags({"mlops.dataset.digest": found["digest"], "mlops.dataset.rows": str(found["rows"])})

    @property
    def _folder(self) -> str:
        return f"{self.prefix.rstrip('.')}/" if self.prefix else ""


class Session:
    """One client that records by itself. `tracking` gives the run that is open, and begins others."""

    def __init__(self, tracking: Any, options: Options) -> None:
        self.tracking = tracking
        self.options = options
        self._inside: dict[int, list[Fit | None]] = {}
        self._fits: dict[str, int] = {}
        self._lock = threading.Lock()
        reset_in_child(self)

    def after_fork_in_child(self) -> None:
        # Another thread may have held it. Whether the forking thread was in a training is kept: its parts are that one's.
        self._lock = threading.Lock()

    def is_nested(self) -> bool:
        """Whether this call is a part of a training that records itself, be it in a thread of a pool that it made."""
        thread: Any = threading.current_thread()
        while thread is not None:
            if self._inside.get(thread.ident or 0):
                return True
            thread = getattr(thread, "_parent", None)
        return False

    def around_me(self) -> Fit | None:
        """The training that this thread is in, when it is in exactly one."""
        fits = self._inside.get(threading.get_ident(), [])
        return fits[0] if len(fits) == 1 else None

    @contextmanager
    def training(self, name: str, subject: Any = None) -> Iterator[Fit]:
        """A training of the name; its run is begun, and ended, when none was open."""
        ident = threading.get_ident()
        with self._lock:
            fits = self._inside.setdefault(ident, [])
            fits.append(None)
        try:
            fit = fits[-1] = self._begin(name, subject)
            try:
                yield fit
            except BaseException as error:
                self._end(fit, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            self._end(fit, "FINISHED")
        finally:
            with self._lock:
                fits.pop()
                if not fits:
                    del self._inside[ident]

    def child(self, fit: Fit, name: str, parameters: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """A run within the run of a training that is over already."""
        run = self.tracking.begin_run(
            fit.run.experiment,
            run_name=name[:500],
            parameters={key: plain(value) for key, value in parameters.items()},
            tags={"mlops.autolog": "child"},
            parent_run_id=fit.run.id,
        )
        run.log_metrics({key: float(value) for key, value in metrics.items() if is_number(value)})
        run.end()

    def _begin(self, name: str, subject: Any) -> Fit:
        active = self.tracking.active_run()
        if active is None:
            run = self.tracking.begin_run(self.options.experiment, run_name=name, tags={"mlops.autolog": name})
            return Fit(run, "", is_own=True, subject=subject)
        with self._lock:
            number = self._fits[active.id] = self._fits.get(active.id, 0) + 1
        # Parameters never change: what a second training sets must not be set against what the first one did.
        return Fit(active, "" if number == 1 else f"fit{number}.", is_own=False, subject=subject)

    @staticmethod
    def _end(fit: Fit, status: str) -> None:
        if fit.is_own:
            quietly(fit.run.end, status)


def plain(value: Any) -> Any:
    """A parameter as a run holds it: numbers, truths, texts and short lists as they are, the rest as a short text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, list | tuple) and is_plain(value):
        return list(value)
    text = value if isinstance(value, str) else getattr(value, "__name__", None) or repr(value)
    return str(text).replace("\x00", "")[:500]


def is_number(value: Any) -> bool:
    """Whether it can be a metric."""
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "ndim", None) == 0)
