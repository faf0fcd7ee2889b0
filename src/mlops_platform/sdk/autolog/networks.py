"""Keras and Lightning: the metrics of every epoch, by a callback that `fit` is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mlops_platform.sdk.autolog import patches
from mlops_platform.sdk.autolog.session import Fit, Session, is_number

Record = Callable[[Mapping[str, float], int], None]
KERAS_PARAMETERS = ("epochs", "batch_size", "validation_split", "steps_per_epoch", "initial_epoch", "shuffle")
MOST_POSITIONAL = 5
"""Of Keras: after these stand the callbacks. Who gives them by position keeps them as they are."""
LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


def install(session: Session) -> None:
    """Wrap `keras.Model.fit` and the `Trainer.fit` of Lightning, when they are there or when they come."""
    patches.when_imported("keras", lambda module: patches.wrap(*_keras_fit(module), _keras(session, module)))
    for name in LIGHTNING:
        patches.when_imported(name, _lightning(session))


def _keras_fit(module: Any) -> tuple[type, str]:
    # `fit` stands in a class that the model inherits from.
    return next(base for base in module.Model.__mro__ if "fit" in vars(base)), "fit"


def _keras(session: Session, module: Any) -> patches.Around:
    @contextmanager
    def recorded(model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Fit | None]:
        if session.is_nested():
            yield None
            return
        with session.training(type(model).__name__) as fit:
            optimizer = getattr(model, "optimizer", None)
            patches.quietly(fit.params, {key: named[key] for key in KERAS_PARAMETERS if key in named})
            if optimizer is not None:
                patches.quietly(fit.params, {f"optimizer_{key}": it for key, it in optimizer.get_config().items()})
            callback = patches.quietly(
                keras_callback, lambda values, step: fit.metrics(values, step=step), module.callbacks.Callback
            )
            if callback is not None and len(arguments) <= MOST_POSITIONAL:
                named["callbacks"] = _with(named.get("callbacks"), callback)
            yield fit
            if session.options.log_models:
                patches.quietly(fit.model, model)

    def around(model: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
        return recorded(model, arguments, named)

    return around


def _with(given: Any, callback: Any) -> Any:
    """A list and one more; a ready container of Keras takes it itself."""
    if hasattr(given, "append") and not isinstance(given, list):
        given.append(callback)
        return given
    return [*(given if isinstance(given, list | tuple) else [given] if given is not None else []), callback]


def keras_callback(record: Record, base: type) -> Any:
    """A callback of Keras that records what each epoch ended with."""

    def on_epoch_end(_: Any, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        patches.quietly(record, {key: float(value) for key, value in (logs or {}).items()}, epoch)

    return type("Recording", (base,), {"on_epoch_end": on_epoch_end})()


def _lightning(session: Session) -> Callable[[Any], None]:
    @contextmanager
    def recorded(trainer: Any, model: Any, base: type) -> Iterator[Fit | None]:
        if session.is_nested():
            yield None
            return
        with session.training(type(model).__name__) as fit:
            patches.quietly(fit.params, dict(getattr(model, "hparams", None) or {}))
            patches.quietly(fit.params, {"max_epochs": getattr(trainer, "max_epochs", None)})
            callback = patches.quietly(lightning_callback, lambda values, step: fit.metrics(values, step=step), base)
            if callback is not None:
                trainer.callbacks.append(callback)
            try:
                yield fit
            finally:
                if callback is not None:
                    trainer.callbacks.remove(callback)
            if session.options.log_models:
                patches.quietly(fit.model, model)

    def loaded(module: Any) -> None:
        def around(trainer: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
            model = arguments[0] if arguments else named.get("model")
            return recorded(trainer, model, module.Callback)

        patches.wrap(module.Trainer, "fit", around)

    return loaded


def lightning_callback(record: Record, base: type) -> Any:
    """A callback of Lightning that records what each epoch of training and validation ended with."""

    def ended(_: Any, trainer: Any, __: Any) -> None:
        if not getattr(trainer, "sanity_checking", False):
            values = {key: float(value) for key, value in trainer.callback_metrics.items() if is_number(value)}
            patches.quietly(record, values, trainer.current_epoch)

    return type("Recording", (base,), {"on_train_epoch_end": ended, "on_validation_epoch_end": ended})()
