"""From a model file to the object that it holds.

Reading a pickle runs whatever its author put into it, so formats that are pickles underneath are loaded only on the word
of the caller; the others hold data alone.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mlops_platform.contracts.registry import ArtifactFormat
from mlops_platform.sdk.errors import MissingPackage, MlopsError, UntrustedModel

RUNS_CODE = frozenset({ArtifactFormat.PICKLE, ArtifactFormat.JOBLIB})
"""Formats whose reading runs code of the author."""


class NotLoadable(MlopsError):
    """No loader for this format: download the files and use the framework itself."""


def load_file(path: Path, kind: ArtifactFormat, *, trust: bool) -> Any:
    """The object in a file. Raises `UntrustedModel` for a pickle unless the caller trusts its author."""
    if kind in RUNS_CODE and not trust:
        raise UntrustedModel(
            f"{path.name} is a {kind.value} file: loading it runs code that its author wrote.",
            hint="When you trust the author: load(..., trust=True). Or store it as ONNX, safetensors or skops.",
        )
    loader = _LOADERS.get(kind)
    if loader is None:
        raise NotLoadable(
            f"{path.name} is of the format {kind.value!r}, which has no loader here.",
            hint="Use download(), and load the files with their framework.",
        )
    return loader(path)


def _module(name: str, package: str | None = None) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        wanted = package or name.split(".", maxsplit=1)[0]
        raise MissingPackage(f"Loading this model needs {wanted}.", hint=f"pip install {wanted}") from error


def _pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return _module("pickle").load(file)


def _torch(path: Path) -> Any:
    # Tensors and plain containers only: torch itself refuses the rest.
    return _module("torch").load(path, weights_only=True)


def _keras(path: Path) -> Any:
    # Layers that are code of their author are refused by Keras itself.
    return _module("keras").saving.load_model(path, safe_mode=True)


def _xgboost(path: Path) -> Any:
    booster = _module("xgboost").Booster()
    booster.load_model(path)
    return booster


_LOADERS: Mapping[ArtifactFormat, Callable[[Path], Any]] = {
    ArtifactFormat.PICKLE: _pickle,
    ArtifactFormat.JOBLIB: lambda path: _module("joblib").load(path),
    ArtifactFormat.KERAS: _keras,
    ArtifactFormat.ONNX: lambda path: _module("onnxruntime").InferenceSession(path),
    ArtifactFormat.PYTORCH: _torch,
    ArtifactFormat.SAFETENSORS: lambda path: _module("safetensors.numpy").load_file(path),
    ArtifactFormat.SKOPS: lambda path: _module("skops.io", "skops").load(path),
    ArtifactFormat.XGBOOST: _xgboost,
    ArtifactFormat.LIGHTGBM: lambda path: _module("lightgbm").Booster(model_file=str(path)),
}
