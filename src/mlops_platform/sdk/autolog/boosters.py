"""XGBoost and LightGBM: the metrics of every round, by a callback that `train` is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from mlops_platform.sdk.autolog import patches
from mlops_platform.sdk.autolog.session import Fit, Session

Record = Callable[[Mapping[str, float], int], None]
MOST_POSITIONAL = 8
"""After these stand the callbacks: who gives them by position keeps them as they are."""
PARAMETERS = ("num_boost_round", "early_stopping_rounds")


def install(session: Session) -> None:
    """Wrap `xgboost.train` and `lightgbm.train`, when they are there or when they come."""
    for name, make in (("xgboost", xgboost_callback), ("lightgbm", lightgbm_callback)):
        patches.when_imported(f"{name}", _installer(session, name, make))


def _installer(session: Session, name: str, make: Callable[[Record], Any]) -> Callable[[Any], None]:
    def around(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
        return _recorded(session, name, make, arguments, named)

    def loaded(module: Any) -> None:
        patches.wrap(module, "train", around)

    return loaded


@contextmanager
def _recorded(
    session: Session, name: str, make: Callable[[Record], Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> Iterator[Fit | None]:
    if session.is_nested():
        # The scikit-learn face of the library trains by this function: that training is recorded there.
        yield None
        return
    with session.training(name) as fit:
        given = arguments[0] if arguments else named.get("params", {})
        patches.quietly(fit.params, {**dict(given), **{key: named[key] for key in PARAMETERS if key in named}})
        callback = patches.quietly(make, lambda values, step: fit.metrics(values, step=step))
        if callback is not None and len(arguments) <= MOST_POSITIONAL:
            named["callbacks"] = [*(named.get("callbacks") or []), callback]
        yield fit
        patches.quietly(_after, session, fit)


def _after(session: Session, fit: Fit) -> None:
    booster = fit.answer
    scores = _importance(booster)
    if scores:
        ranked = sorted(scores.items(), key=lambda pair: -pair[1])
        fit.document("feature_importance.json", {"kind": "gain", "columns": ["feature", "importance"], "data": ranked})
    best = getattr(booster, "best_iteration", None)
    if isinstance(best, int) and best > 0:
        fit.metrics({"best_iteration": best})
    if session.options.log_models and booster is not None:
        fit.model(booster)


def _importance(booster: Any) -> dict[str, float]:
    if hasattr(booster, "get_score"):
        return {str(name): float(value) for name, value in booster.get_score(importance_type="gain").items()}
    if hasattr(booster, "feature_importance"):
        values = booster.feature_importance(importance_type="gain")
        return {str(name): float(value) for name, value in zip(booster.feature_name(), values, strict=True)}
    return {}


def xgboost_callback(record: Record) -> Any:
    """A callback of XGBoost that records the evaluations of every round as `<set>-<metric>`."""
    from xgboost.callback import TrainingCallback  # type: ignore[import-not-found]  # there when it is called

    class Recording(TrainingCallback):  # type: ignore[misc]  # its base has no types here
        """Records what XGBoost evaluated."""

        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]) -> bool:
            patches.quietly(record, evaluations(evals_log), epoch)
            return False

    return Recording()


def evaluations(log: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, float]:
    """The last value of each metric of each set. A value of cross-validation comes with its deviation."""
    return {
        f"{data}-{metric}": float(values[-1][0] if isinstance(values[-1], tuple) else values[-1])
        for data, by_metric in log.items()
        for metric, values in by_metric.items()
        if values
    }


def lightgbm_callback(record: Record) -> Callable[[Any], None]:
    """A callback of LightGBM, which is a function, that records the evaluations of every round."""

    def callback(env: Any) -> None:
        found = {f"{entry[0]}-{entry[1]}": float(entry[2]) for entry in env.evaluation_result_list or []}
        patches.quietly(record, found, env.iteration)

    callback.order = 25  # type: ignore[attr-defined]  # after the evaluations, before early stopping ends the round
    return callback
