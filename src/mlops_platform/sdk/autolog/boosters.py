"""XGBoost and LightGBM: the metrics of every round, by a callback that `train` is given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from mlops_platform.sdk import datasets
from mlops_platform.sdk.autolog import patches
from mlops_platform.sdk.autolog.session import TRAINING, VALIDATION, Fit, Session
from mlops_platform.sdk.calls import named_arguments

Record = Callable[[Mapping[str, float], int], None]
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
MOST_POSITIONAL = 8
"""After these stand the callbacks: who gives them by position keeps them as they are."""
PARAMETERS = ("num_boost_round", "early_stopping_rounds")


def install(session: Session) -> None:
    """Wrap `xgboost.train` and `lightgbm.train`, when they are there or when they come."""
    for name, make in (("xgboost", xgboost_callback), ("lightgbm", lightgbm_callback)):
        patches.when_imported(name, _installer(session, name, make))
        patches.when_imported(f"{name}.sklearn", _installer_within(session, name, make))


def _installer(session: Session, name: str, make: Callable[[Record], Any]) -> Callable[[Any], None]:
    def loaded(module: Any) -> None:
        train = module.train

        def around(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
            return _recorded(session, name, make, (train, arguments, named))

        patches.wrap(module, "train", around)

    return loaded


def _installer_within(session: Session, name: str, make: Callable[[Record], Any]) -> Callable[[Any], None]:
    """The libraries' ways of scikit-learn train by a name of their own, within the training that is recorded already."""

    def around(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
        fit = session.around_me()
        # Not the candidates of a search, nor the steps of a pipeline: their rounds would be mixed up.
        if fit is not None and _is_of(fit.subject, name):
            _give_callback(fit, make, arguments, named)
        return nullcontext()

    return lambda module: patches.wrap(module, "train", around)


def _is_of(subject: Any, library: str) -> bool:
    return any(base.__module__.partition(".")[0] == library for base in type(subject).__mro__)


@contextmanager
def _recorded(
    session: Session,
    name: str,
    make: Callable[[Record], Any],
    call: Call,
) -> Iterator[Fit | None]:
    if session.is_nested():
        # The training that this one is a part of is recorded.
        yield None
        return
    _, arguments, named = call
    with session.training(name) as fit:
        patches.quietly(_before, session, fit, call)
        _give_callback(fit, make, arguments, named)
        yield fit
        patches.quietly(_after, session, fit)


def _give_callback(fit: Fit, make: Callable[[Record], Any], arguments: Sequence[Any], named: dict[str, Any]) -> None:
    callback = patches.quietly(make, lambda values, step: fit.metrics(values, step=step))
    if callback is not None and len(arguments) <= MOST_POSITIONAL:
        named["callbacks"] = [*(named.get("callbacks") or []), callback]


def _before(session: Session, fit: Fit, call: Call) -> None:
    given = named_arguments(*call)
    chosen = {key: given[key] for key in PARAMETERS if given.get(key) is not None}
    fit.params({**dict(given.get("params") or {}), **chosen})
    if not session.options.log_datasets:
        return
    data = given.get("dtrain", given.get("train_set"))
    patches.quietly(_dataset, fit, data, TRAINING)
    evaluated = [pair[0] for pair in given.get("evals") or ()] or given.get("valid_sets") or ()
    for each in evaluated if isinstance(evaluated, list | tuple) else [evaluated]:
        if each is not data:
            patches.quietly(_dataset, fit, each, VALIDATION)


def _dataset(fit: Fit, data: Any, context: str) -> None:
    if type(data).__name__ == "DMatrix":
        rows, kept = data.num_row(), data
        if rows > datasets.HASHED_ROWS:
            kept = data.slice(list(range(0, rows, -(-rows // datasets.HASHED_ROWS))))
        names = data.feature_names or [f"f{number}" for number in range(data.num_col())]
        kinds = data.feature_types or ["float"] * len(names)
        columns = [{"name": str(name), "type": str(kind)} for name, kind in zip(names, kinds, strict=True)]
        labels = kept.get_label()
        schema = {"inputs": columns}
        fit.dataset(kept.get_data(), labels if len(labels) else None, context=context, rows=rows, schema=schema)
    elif getattr(data, "data", None) is not None and not isinstance(data.data, str):
        # LightGBM gives its raw data up when it trains; other matrices of XGBoost do not give it back at all.
        fit.dataset(data.data, getattr(data, "label", None), context=context)


def _after(session: Session, fit: Fit) -> None:
    booster = fit.answer
    scores = _importance(booster)
    if scores:
        ranked = sorted(scores.items(), key=lambda pair: -pair[1])
        fit.document("feature_importance.json", {"kind": "gain", "columns": ["feature", "importance"], "data": ranked})
    stopped = stopping_of(booster)
    if stopped:
        fit.metrics(stopped)
    if session.options.log_models and booster is not None:
        fit.model(booster)


def stopping_of(booster: Any) -> dict[str, float]:
    """The round that early stopping found best, and its score. XGBoost raises when nobody asked for it."""
    found: dict[str, float] = {}
    for name in ("best_iteration", "best_score"):
        try:
            value = getattr(booster, name)
        except AttributeError:
            continue
        if isinstance(value, int | float) and not (name == "best_iteration" and value <= 0):
            found[name] = value
    return found


def _importance(booster: Any) -> dict[str, float]:
    if hasattr(booster, "get_score"):
        return {str(name): float(value) for name, value in booster.get_score(importance_type="gain").items()}
    if hasattr(booster, "feature_importance"):
        values = booster.feature_importance(importance_type="gain")
        return {str(name): float(value) for name, value in zip(booster.feature_name(), values, strict=True)}
    return {}


def xgboost_callback(record: Record) -> Any:
    """A callback of XGBoost that records the evaluations of every round as `<set>-<metric>`."""
    from xgboost.callback import TrainingCallback

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
