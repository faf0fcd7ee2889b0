"""Keras and Lightning: the metrics of every epoch, by a callback that `fit` is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mlops_platform.sdk.autolog import patches
from mlops_platform.sdk.autolog.session import VALIDATION, Fit, Session, is_number
from mlops_platform.sdk.calls import named_arguments

Record = Callable[[Mapping[str, float], int], None]
KERAS_PARAMETERS = ("epochs", "batch_size", "validation_split", "steps_per_epoch", "initial_epoch", "shuffle")
MOST_POSITIONAL = 5
"""Of Keras: after these stand the callbacks. Who gives them by position keeps them as they are."""
LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
STOPPING_PARAMETERS = ("monitor", "patience", "min_delta")
STOPPING_RESULTS = {
    "stopped_epoch": "stopped_epoch",
    "best_epoch": "best_epoch",
    "best": "best_score",  # of Keras
    "best_score": "best_score",  # of Lightning
}


def install(session: Session) -> None:
    """Wrap `keras.Model.fit` and the `Trainer.fit` of Lightning, when they are there or when they come."""
    patches.when_imported("keras", lambda module: patches.wrap(*_keras_fit(module), _keras(session, module)))
    for name in LIGHTNING:
        patches.when_imported(name, _lightning(session))


def _keras_fit(module: Any) -> tuple[type, str]:
    # `fit` stands in a class that the model inherits from.
    return next(base for base in module.Model.__mro__ if "fit" in vars(base)), "fit"


def _keras(session: Session, module: Any) -> patches.Around:
    owner, name = _keras_fit(module)
    train = vars(owner)[name]

    @contextmanager
    def recorded(model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Fit | None]:
        if session.is_nested():
            yield None
            return
        with session.training(type(model).__name__, model) as fit:
            given = patches.quietly(named_arguments, train, (model, *arguments), named) or {}
            patches.quietly(_before_keras, session, fit, model, given)
            callback = patches.quietly(
                keras_callback, lambda values, step: fit.metrics(values, step=step), module.callbacks.Callback
            )
            if callback is not None and len(arguments) <= MOST_POSITIONAL:
                named["callbacks"] = _with(named.get("callbacks"), callback)
            yield fit
            patches.quietly(_stopped, fit, _callbacks_of(given.get("callbacks")))
            if session.options.log_models:
                patches.quietly(fit.model, model)

    def around(model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
        return recorded(model, arguments, named)

    return around


def _before_keras(session: Session, fit: Fit, model: Any, given: Mapping[str, Any]) -> None:
    fit.params({key: given[key] for key in KERAS_PARAMETERS if key in given})
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        config = {**optimizer.get_config(), "name": type(optimizer).__name__}
        fit.params({f"optimizer_{key}": value for key, value in config.items()})
    if hasattr(model, "count_params") and getattr(model, "built", False):
        fit.params({"model_parameters": model.count_params()})
    _stopping(fit, _callbacks_of(given.get("callbacks")))
    if session.options.log_datasets and hasattr(given.get("x"), "shape"):
        # Generators and loaders are read once: what they give is the training's.
        fit.dataset(given["x"], given.get("y"))
        validation = given.get("validation_data")
        if isinstance(validation, tuple) and hasattr(validation[0], "shape"):
            fit.dataset(validation[0], validation[1] if len(validation) > 1 else None, context=VALIDATION)


def _callbacks_of(given: Any) -> list[Any]:
    found = getattr(given, "callbacks", given)
    return list(found) if isinstance(found, list | tuple) else [] if found is None else [found]


def _stopping(fit: Fit, callbacks: list[Any]) -> None:
    for each in callbacks:
        if type(each).__name__ == "EarlyStopping":
            fit.params({f"early_stopping_{key}": getattr(each, key, None) for key in STOPPING_PARAMETERS})


def _stopped(fit: Fit, callbacks: list[Any]) -> None:
    for each in callbacks:
        if type(each).__name__ == "EarlyStopping":
            found = {ours: getattr(each, theirs) for theirs, ours in STOPPING_RESULTS.items() if hasattr(each, theirs)}
            fit.metrics(found)


def _with(given: Any, callback: Any) -> Any:
    """A list and one more; a ready container of Keras takes it itself."""
    if hasattr(given, "append") and not isinstance(given, list):
        given.append(callback)
        return given
    return [*_callbacks_of(given), callback]


def keras_callback(record: Record, base: type) -> Any:
    """A callback of Keras that records what each epoch ended with."""

    def on_epoch_end(_: Any, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        patches.quietly(record, {key: float(value) for key, value in (logs or {}).items()}, epoch)

    return type("Recording", (base,), {"on_epoch_end": on_epoch_end})()


def _lightning(session: Session) -> Callable[[Any], None]:
    def loaded(module: Any) -> None:
        train = vars(module.Trainer)["fit"]

        @contextmanager
        def recorded(trainer: Any, given: Mapping[str, Any]) -> Iterator[Fit | None]:
            # Of several processes that train one model together the first one records it.
            if session.is_nested() or not getattr(trainer, "is_global_zero", True):
                yield None
                return
            model = given.get("model")
            with session.training(type(model).__name__, model) as fit:
                patches.quietly(_before_lightning, session, fit, trainer, given)
                callback = patches.quietly(
                    lightning_callback, lambda values, step: fit.metrics(values, step=step), module.Callback
                )
                if callback is not None:
                    trainer.callbacks.append(callback)
                try:
                    yield fit
                finally:
                    if callback in trainer.callbacks:
                        trainer.callbacks.remove(callback)
                patches.quietly(_after_lightning, fit, trainer)
                if session.options.log_models:
                    patches.quietly(fit.model, getattr(trainer, "lightning_module", None) or model)

        def around(trainer: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
            return recorded(trainer, named_arguments(train, (trainer, *arguments), named))

        patches.wrap(module.Trainer, "fit", around)

    return loaded


def _before_lightning(session: Session, fit: Fit, trainer: Any, given: Mapping[str, Any]) -> None:
    model: Any = given.get("model")
    fit.params(dict(getattr(model, "hparams", None) or {}))
    fit.params({"max_epochs": getattr(trainer, "max_epochs", None)})
    if hasattr(model, "parameters"):
        fit.params({"model_parameters": sum(each.numel() for each in model.parameters())})
    _stopping(fit, trainer.callbacks)
    if session.options.log_datasets:
        _loaded_data(fit, given.get("train_dataloaders"), {})
        _loaded_data(fit, given.get("val_dataloaders"), {"context": VALIDATION})


def _loaded_data(fit: Fit, loader: Any, about: Mapping[str, Any]) -> None:
    """What a loader reads, when it is tensors. Other data sets make their items when asked: that may cost, or draw lots."""
    found = _tensors(getattr(loader, "dataset", None))
    if found:
        fit.dataset(found[0], found[1] if len(found) > 1 else None, **about)


def _tensors(data: Any) -> list[Any]:
    if hasattr(data, "indices") and hasattr(data, "dataset"):  # a part of another one
        return [each[data.indices] for each in _tensors(data.dataset)]
    return list(getattr(data, "tensors", None) or ())


def _after_lightning(fit: Fit, trainer: Any) -> None:
    for number, optimizer in enumerate(getattr(trainer, "optimizers", None) or ()):
        prefix = "optimizer_" if not number else f"optimizer{number + 1}_"
        fit.params({f"{prefix}name": type(optimizer).__name__})
        # As the training was given them, not as a schedule left them.
        fit.params({f"{prefix}{key}": value for key, value in optimizer.defaults.items()})
    _stopped(fit, trainer.callbacks)


def lightning_callback(record: Record, base: type) -> Any:
    """A callback of Lightning that records what each epoch of training ended with, its validation included."""
    of_validation: set[str] = set()
    before: dict[str, float] = {}
    validated = False

    def numbers(trainer: Any) -> dict[str, float]:
        return {key: float(value) for key, value in trainer.callback_metrics.items() if is_number(value)}

    def on_validation_start(_: Any, trainer: Any, __: Any) -> None:
        nonlocal before
        before = patches.quietly(numbers, trainer) or {}

    def on_validation_end(_: Any, trainer: Any, __: Any) -> None:
        nonlocal validated
        if not getattr(trainer, "sanity_checking", False):
            validated = True
            now = patches.quietly(numbers, trainer) or {}
            # By their texts: NaN is the same as NaN here.
            of_validation.update(key for key, value in now.items() if str(before.get(key)) != str(value))

    def on_train_epoch_end(_: Any, trainer: Any, __: Any) -> None:
        nonlocal validated
        # What an earlier epoch was validated with is still shown, and is not this epoch's.
        values = {
            key: value
            for key, value in (patches.quietly(numbers, trainer) or {}).items()
            if validated or key not in of_validation
        }
        validated = False
        patches.quietly(record, values, trainer.current_epoch)

    hooks = {
        "on_validation_start": on_validation_start,
        "on_validation_epoch_end": on_validation_end,
        "on_train_epoch_end": on_train_epoch_end,
    }
    return type("Recording", (base,), hooks)()
