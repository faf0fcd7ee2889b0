"""Which of MLflow's places a text names, and which experiments of it are wanted."""

from collections.abc import Sequence
from pathlib import Path

from mlops_platform.sdk.errors import ConfigurationError, missing
from mlops_platform.sdk.mlflow.database import DatabaseStore
from mlops_platform.sdk.mlflow.folder import FolderStore
from mlops_platform.sdk.mlflow.rest import RestStore
from mlops_platform.sdk.mlflow.source import MlflowSource
from mlops_platform.sdk.mlflow.store import Fields, MlflowStore
from mlops_platform.sdk.settings import ClientSettings, mlflow_authorization
from mlops_platform.sdk.transfer import ImportReport


def open_store(source: Path | str, settings: ClientSettings, artifacts: Path | str | None) -> MlflowStore:
    """A server, a folder or a database."""
    text = str(source)
    if text.startswith(("http://", "https://")):
        return RestStore(text, settings, mlflow_authorization())
    place = Path(text.removeprefix("sqlite:///") if text.startswith("sqlite:///") else text)
    if place.is_dir():
        return FolderStore(place)
    if place.is_file():
        return DatabaseStore(place, Path(artifacts) if artifacts is not None else None)
    raise missing(f"There is nothing at {text!r}.", hint="Give an address, a folder 'mlruns', or a file 'mlflow.db'.")


def chosen_experiments(store: MlflowStore, wanted: Sequence[str], name: str | None) -> list[Fields]:
    """Those of these names or ids, or all."""
    found = list(store.experiments())
    chosen = [it for it in found if not wanted or str(it["name"]) in wanted or str(it["experiment_id"]) in wanted]
    known = {str(it[field]) for it in chosen for field in ("name", "experiment_id")}
    if absent := [it for it in wanted if it not in known]:
        raise missing(f"There is no experiment {absent[0]!r} there.")
    if name is not None and len(chosen) != 1:
        raise ConfigurationError(f"A new name fits one experiment, and there are {len(chosen)}: say which.")
    return chosen


def counted(source: MlflowSource) -> ImportReport:
    """What would be brought in, without its points and files."""
    record = source.experiment()
    report = ImportReport(name=str(record["name"]))
    report.created = sum(1 for _ in source.models()) + sum(1 for _ in source.runs())
    report.left_out += source.left_out()
    return report
