# Generated from sdk/_async/transfers.py by scripts/generate_sync_sdk.py: change that file, then run the script.
"""What `platform.tracking` brings in and gives out as a whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from mlops_platform.contracts.tracking import Experiment
from mlops_platform.sdk._sync import backend
from mlops_platform.sdk._sync.client import ServiceClient
from mlops_platform.sdk._sync.transfer import ExperimentExport, ExperimentImport
from mlops_platform.sdk.archive.source import ArchiveSource
from mlops_platform.sdk.mlflow.opening import chosen_experiments, counted, open_store
from mlops_platform.sdk.mlflow.source import MlflowSource
from mlops_platform.sdk.settings import ClientSettings
from mlops_platform.sdk.transfer import ImportReport, Source


class Transfers(ABC):
    """The part of `platform.tracking` that moves experiments from place to place."""

    _client: ServiceClient
    _settings: ClientSettings

    @abstractmethod
    def experiment(self, name_or_id: str) -> Experiment: ...

    def export_experiment(self, name_or_id: str, file: Path | str) -> Path:
        """Write an experiment with all that belongs to it to one file, which replaces what is there.

        Runs are read one after the other: what changes meanwhile is in it as it was when it was read.
        """
        found = self.experiment(name_or_id)
        ExperimentExport(self._client, found.id).write(Path(file))
        return Path(file)

    def import_experiment(self, file: Path | str, *, name: str | None = None) -> ImportReport:
        """Bring an exported experiment in, ids kept. Doing it again changes nothing, and goes on with what broke off.

        A damaged file is refused before anything is sent. What is there with other content stays as it is and stands in
        the report's `conflicts`. With `name` the experiment gets another one.
        """
        source = backend.in_thread(ArchiveSource, Path(file))
        backend.in_thread(source.check)
        return self.bring(source, name=name)

    def import_mlflow(
        self,
        source: Path | str,
        *,
        experiments: Sequence[str] = (),
        name: str | None = None,
        artifacts: Path | str | None = None,
        dry_run: bool = False,
    ) -> Sequence[ImportReport]:
        """Bring experiments of MLflow in: from a server (`http://...`), an `mlruns` folder, or a file `mlflow.db`.

        All of them, or those of these names or ids; a report for each. Doing it again brings what is new. What cannot be
        read or kept is named in `left_out`. `artifacts` is the folder in which the files of a database lie. With `dry_run`
        nothing is sent, and the report says how many runs and models there are.
        """
        store = backend.in_thread(open_store, source, self._settings, artifacts)
        try:
            reports = []
            for experiment in backend.in_thread(chosen_experiments, store, experiments, name):
                found = MlflowSource(store, experiment)
                reports.append(backend.in_thread(counted, found) if dry_run else self.bring(found, name=name))
                store.left_out.clear()
            return reports
        finally:
            backend.in_thread(store.close)

    def bring(self, source: Source, *, name: str | None = None) -> ImportReport:
        """Bring an experiment in from wherever it is."""
        return ExperimentImport(self._client, source).bring(name=name)
