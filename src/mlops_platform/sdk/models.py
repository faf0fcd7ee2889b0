"""A fitted model as a folder: its file in the framework's own format, and a manifest that says what it is.

Formats that run code of their author when they are read (pickle, joblib) are named as such in the manifest. No server ever
loads one; `load` does so only on the word of the caller.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from mlops_platform.contracts.registry import ArtifactFormat
from mlops_platform.sdk.content import json_document
from mlops_platform.sdk.errors import MissingPackage, MlopsError
from mlops_platform.sdk.frames import to_rows
from mlops_platform.sdk.loaders import RUNS_CODE, load_file
from mlops_platform.sdk.wire import encode

MANIFEST = "mlops-model.json"
EXAMPLE = "input_example.json"
EXAMPLE_ROWS = 5


class NotAModel(MlopsError):
    """A folder has no manifest of a model, or this cannot be saved as one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How models of one framework are recognised and written."""

    framework: str
    package: str
    """The distribution whose version matters."""
    form: ArtifactFormat
    file: str
    write: Callable[[Any, Path], Any]


def save(
    model: Any,
    folder: Path,
    *,
    form: ArtifactFormat | str | None = None,
    signature: Mapping[str, Any] | None = None,
    example: Any = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model and its manifest into a folder; the manifest. `form` chooses another format than the usual one."""
    kind = _kind(model, ArtifactFormat(form) if form is not None else None)
    folder.mkdir(parents=True, exist_ok=True)
    kind.write(model, folder / kind.file)
    manifest: dict[str, Any] = {
        "manifest": 1,
        "framework": kind.framework,
        "framework_version": found[1] if (found := _installed(kind.package)) is not None else None,
        "format": kind.form.value,
        "runs_code_when_loaded": kind.form in RUNS_CODE,
        "file": kind.file,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "python": platform.python_version(),
        "requirements": _requirements(kind),
    }
    if signature is not None:
        manifest["signature"] = dict(signature)
    if example is not None:
        (folder / EXAMPLE).write_bytes(encode(_rows(example)))
        manifest["input_example"] = EXAMPLE
    if metadata is not None:
        manifest["metadata"] = dict(metadata)
    (folder / MANIFEST).write_bytes(json_document(manifest).data)
    return manifest


def load(folder: Path, *, trust: bool = False) -> Any:
    """The model in a folder that `save` wrote. Raises `UntrustedModel` for a pickle unless its author is trusted."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        file, form = str(manifest["file"]), ArtifactFormat(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotAModel(f"{folder} has no {MANIFEST} that says what it holds: {error}") from error
    if Path(file).name != file:
        raise NotAModel(f"{folder / MANIFEST} names a file outside of its folder: {file!r}.")
    return load_file(folder / file, form, trust=trust)


def told(manifest: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A saved model as the wire has it: what it is, and where it lies among the artifacts of its run."""
    tags = {f"mlops.{key}": str(manifest[key]) for key in ("framework_version", "format", "class") if manifest.get(key)}
    # In addresses of models these signs have a meaning.
    name = path.translate(str.maketrans("/:.%\"'", "------"))
    return {"name": name, "model_type": manifest["framework"], "path": path, "tags": tags}


def signature_of(inputs: Any, outputs: Any = None) -> dict[str, Any]:
    """Names and types of what a model reads and gives, from an array, a table or rows."""
    found: dict[str, Any] = {"inputs": _columns(inputs)}
    if outputs is not None:
        found["outputs"] = _columns(outputs)
    return found


def _columns(data: Any) -> list[dict[str, Any]]:
    if hasattr(data, "schema") and hasattr(data.schema, "names"):  # pyarrow
        return [{"name": field.name, "type": str(field.type)} for field in data.schema]
    if hasattr(data, "columns") and hasattr(data, "dtypes"):  # pandas, polars
        return [{"name": str(name), "type": str(kind)} for name, kind in zip(data.columns, data.dtypes, strict=True)]
    if hasattr(data, "dtype") and hasattr(data, "shape"):
        kind = str(data.dtype).removeprefix("torch.")
        return [{"name": str(getattr(data, "name", None) or ""), "type": kind, "shape": [-1, *data.shape[1:]]}]
    if isinstance(data, Sequence) and data and isinstance(data[0], Mapping):
        return [{"name": str(name), "type": type(value).__name__} for name, value in data[0].items()]
    return [{"name": "", "type": type(data).__name__}]


def _rows(example: Any) -> Any:
    first = example[:EXAMPLE_ROWS] if hasattr(example, "__getitem__") and not isinstance(example, Mapping) else example
    if hasattr(first, "tolist"):
        return first.tolist()
    return to_rows(first) if hasattr(first, "to_dict") or hasattr(first, "to_pylist") else first


def _kind(model: Any, form: ArtifactFormat | None) -> Kind:
    owners = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    names = {base.__name__ for base in type(model).__mro__}
    usual = next((kind for owner, name, kind in _KINDS if owner in owners and (name is None or name in names)), _PICKLE)
    if form is None or form is usual.form:
        return usual
    other = _BY_FORM.get(form)
    if other is None:
        raise NotAModel(
            f"A {type(model).__name__} is not written as {form.value} here.", hint=f"Usual: {usual.form.value}."
        )
    return Kind(usual.framework, usual.package, form, other.file, other.write)


def _module(name: str, package: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingPackage(f"Saving this model needs {package}.", hint=f"pip install {package}") from error


def _pickle(model: Any, path: Path) -> None:
    import pickle

    with path.open("wb") as file:
        pickle.dump(model, file, protocol=5)


def _booster(model: Any, path: Path) -> None:
    booster = model.booster_ if hasattr(model, "booster_") else model
    booster.save_model(str(path))


_PICKLE = Kind("python", "mlops-platform", ArtifactFormat.PICKLE, "model.pkl", _pickle)
_JOBLIB = Kind(
    "scikit-learn",
    "scikit-learn",
    ArtifactFormat.JOBLIB,
    "model.joblib",
    lambda model, path: _module("joblib", "joblib").dump(model, path),
)
_SKOPS = Kind(
    "scikit-learn",
    "scikit-learn",
    ArtifactFormat.SKOPS,
    "model.skops",
    lambda model, path: _module("skops.io", "skops").dump(model, path),
)
_KINDS: Sequence[tuple[str, str | None, Kind]] = (
    ("xgboost", None, Kind("xgboost", "xgboost", ArtifactFormat.XGBOOST, "model.ubj", _booster)),
    ("lightgbm", None, Kind("lightgbm", "lightgbm", ArtifactFormat.LIGHTGBM, "model.txt", _booster)),
    (
        "keras",
        "Model",
        Kind("keras", "keras", ArtifactFormat.KERAS, "model.keras", lambda model, path: model.save(str(path))),
    ),
    (
        "torch",
        "Module",
        # The weights and no more: a whole module would be a pickle of its code.
        Kind(
            "pytorch",
            "torch",
            ArtifactFormat.PYTORCH,
            "weights.pt",
            lambda model, path: _module("torch", "torch").save(model.state_dict(), path),
        ),
    ),
    (
        "onnx",
        None,
        Kind(
            "onnx",
            "onnx",
            ArtifactFormat.ONNX,
            "model.onnx",
            lambda model, path: path.write_bytes(model.SerializeToString()),
        ),
    ),
    ("sklearn", None, _JOBLIB),
)
"""By the package that a base class comes from, and its name where the package has other things too. Most special first."""

_BY_FORM: Mapping[ArtifactFormat, Kind] = {
    ArtifactFormat.PICKLE: _PICKLE,
    ArtifactFormat.JOBLIB: _JOBLIB,
    ArtifactFormat.SKOPS: _SKOPS,
}


def _installed(package: str) -> tuple[str, str] | None:
    """The distribution that brought a package, and its version. Its name may be another: `xgboost-cpu` has xgboost too."""
    try:
        return package, version(package)
    except PackageNotFoundError:
        brought_by = packages_distributions().get(package, ())
        return next(((name, version(name)) for name in brought_by), None)


def _requirements(kind: Kind) -> list[str]:
    wanted = {kind.package, kind.form.value if kind.form in {ArtifactFormat.JOBLIB, ArtifactFormat.SKOPS} else kind.package}
    return sorted("==".join(found) for package in wanted if (found := _installed(package)) is not None)
