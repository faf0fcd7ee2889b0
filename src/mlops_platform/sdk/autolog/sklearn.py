"""scikit-learn: every `fit` of an estimator, with what a search tried as runs of its own.

Classes are wrapped and instances are not touched: what is pickled is the name of the class and the state of the instance.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from mlops_platform.sdk import datasets, models
from mlops_platform.sdk.autolog import patches
from mlops_platform.sdk.autolog.session import VALIDATION, Fit, Session, plain

METHODS = ("fit", "fit_transform", "fit_predict")
RESULTS = ("n_iter_", "inertia_", "best_score_", "oob_score_", "best_iteration_", "best_iteration", "best_score")
SCORED_ROWS = 100_000
MOST_FEATURES = 10_000


def install(session: Session) -> None:
    """Wrap what is loaded, and what will be defined or imported later."""

    def base_loaded(module: Any) -> None:
        base = module.BaseEstimator
        around = _around(session)
        for found in [base, *_below(base)]:
            _wrap(found, around)

        def defined(subclass: Any, **named: Any) -> None:
            super(base, subclass).__init_subclass__(**named)
            patches.quietly(_wrap, subclass, around)

        patches.replace(base, "__init_subclass__", classmethod(cast("Any", defined)))

    patches.when_imported("sklearn.base", base_loaded)


def _below(base: type) -> Iterator[type[Any]]:
    subclass: type[Any]
    for subclass in base.__subclasses__():
        yield subclass
        yield from _below(subclass)


def _wrap(found: type, around: patches.Around) -> None:
    for name in METHODS:
        # Descriptors (a method that is there only for some settings) are left as they are.
        if type(vars(found).get(name)).__name__ == "function":
            patches.wrap(found, name, around)


def _around(session: Session) -> patches.Around:
    def around(estimator: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> AbstractContextManager[Any]:
        if session.is_nested():
            return _nothing()
        inputs = arguments[0] if arguments else named.get("X")
        targets = arguments[1] if len(arguments) > 1 else named.get("y")
        return _recorded(session, estimator, inputs, targets, named.get("eval_set") or ())

    return around


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _recorded(session: Session, estimator: Any, inputs: Any, targets: Any, validation: Sequence[Any]) -> Iterator[Fit]:
    name = type(estimator).__name__
    with session.training(name, estimator) as fit:
        # Before the training, which may change what it is given.
        patches.quietly(_before, session, fit, estimator, inputs, targets)
        if session.options.log_datasets:
            # What XGBoost and LightGBM evaluate on; the training data, which is often among it, is told already.
            for pair in validation:
                patches.quietly(_validation, fit, pair)
        began = time.perf_counter()
        yield fit
        fit.notes["seconds"] = time.perf_counter() - began
        for part in (_scores, _importance, _search, _model):
            patches.quietly(part, session, fit, estimator, inputs, targets)


def _before(session: Session, fit: Fit, estimator: Any, inputs: Any, targets: Any) -> None:
    kind = type(estimator)
    fit.tags({"estimator_name": kind.__name__, "estimator_class": f"{kind.__module__}.{kind.__qualname__}"})
    found = estimator.get_params(deep=True)
    # A step or a wrapped estimator is told by its own parameters; here its class is enough.
    fit.params({key: type(value).__name__ if hasattr(value, "get_params") else value for key, value in found.items()})
    if session.options.log_datasets and inputs is not None:
        fit.dataset(inputs, targets)


def _validation(fit: Fit, pair: Any) -> None:
    fit.dataset(pair[0], pair[1] if len(pair) > 1 else None, context=VALIDATION)


def _scores(_: Session, fit: Fit, estimator: Any, inputs: Any, targets: Any) -> None:
    values: dict[str, Any] = {"training_seconds": fit.notes["seconds"]}
    if targets is not None and hasattr(estimator, "predict"):
        some, expected = _sample(inputs, SCORED_ROWS), _sample(targets, SCORED_ROWS)
        values |= _quality(estimator, some, expected)
        if hasattr(estimator, "score"):
            values["training_score"] = estimator.score(some, expected)
    for name in RESULTS:
        value = getattr(estimator, name, None)
        if value is not None and getattr(value, "size", 1) == 1:
            values[name.rstrip("_")] = value.item() if hasattr(value, "item") else value
    if not values.get("best_iteration", True):  # LightGBM's word for no early stopping
        del values["best_iteration"]
    fit.metrics(values)


def _quality(estimator: Any, inputs: Any, targets: Any) -> dict[str, float]:
    from sklearn import metrics
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(estimator):
        guessed = estimator.predict(inputs)
        named: dict[str, Any] = {"average": "weighted", "zero_division": 0}
        found = {
            "training_accuracy": metrics.accuracy_score(targets, guessed),
            "training_precision": metrics.precision_score(targets, guessed, **named),
            "training_recall": metrics.recall_score(targets, guessed, **named),
            "training_f1": metrics.f1_score(targets, guessed, **named),
        }
        if hasattr(estimator, "predict_proba"):
            labels = getattr(estimator, "classes_", None)
            found["training_log_loss"] = metrics.log_loss(targets, estimator.predict_proba(inputs), labels=labels)
        return found
    if is_regressor(estimator):
        guessed = estimator.predict(inputs)
        squared = metrics.mean_squared_error(targets, guessed)
        return {
            "training_mse": squared,
            "training_rmse": squared**0.5,
            "training_mae": metrics.mean_absolute_error(targets, guessed),
            "training_r2": metrics.r2_score(targets, guessed),
        }
    return {}


def _importance(_: Session, fit: Fit, estimator: Any, inputs: Any, __: Any) -> None:
    best = getattr(estimator, "best_estimator_", estimator)
    last = best.steps[-1][1] if hasattr(best, "steps") else best
    values = getattr(last, "feature_importances_", None)
    kind = "importance"
    if values is None and getattr(last, "coef_", None) is not None:
        coefficients = last.coef_
        dense = coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients
        values, kind = (abs(dense).mean(axis=0) if getattr(dense, "ndim", 1) > 1 else abs(dense)), "mean |coefficient|"
    if values is None or len(values) > MOST_FEATURES:
        return
    names = getattr(last, "feature_names_in_", None)
    if names is None or len(names) != len(values):
        columns = [str(name) for name in getattr(inputs, "columns", [])] if last is best else []
        names = columns if len(columns) == len(values) else [f"x{number}" for number in range(len(values))]
    ranked = sorted(zip(map(str, names), map(float, values), strict=True), key=lambda pair: -pair[1])
    fit.document("feature_importance.json", {"kind": kind, "columns": ["feature", "importance"], "data": ranked})


def _search(session: Session, fit: Fit, estimator: Any, _: Any, __: Any) -> None:
    results = getattr(estimator, "cv_results_", None)
    if not isinstance(results, Mapping) or "params" not in results:
        return
    if hasattr(estimator, "best_params_"):
        fit.params({f"best_{key}": value for key, value in estimator.best_params_.items()})
    rank = next((key for key in results if key.startswith("rank_test_")), None)
    order = sorted(range(len(results["params"])), key=lambda number: results[rank][number] if rank else number)
    for number in order[: session.options.most_children]:
        numbers = {
            key: values[number]
            for key, values in results.items()
            if key.startswith(("mean_", "std_", "rank_")) and getattr(values, "dtype", None) is not None
        }
        session.child(fit, f"candidate-{number}", results["params"][number], numbers)
    if len(order) > session.options.most_children:
        fit.tags({"mlops.autolog.candidates_left_out": str(len(order) - session.options.most_children)})
    table = {key: [plain(it) for it in values] for key, values in results.items() if key != "params"}
    fit.document(
        "cv_results.json", {"columns": list(table), "data": [list(row) for row in zip(*table.values(), strict=True)]}
    )


def _model(session: Session, fit: Fit, estimator: Any, inputs: Any, _: Any) -> None:
    if not session.options.log_models:
        return
    about: dict[str, Any] = {}
    if session.options.log_datasets and inputs is not None:
        about["example"] = _sample(inputs, models.EXAMPLE_ROWS) if hasattr(inputs, "shape") else None
    best = getattr(estimator, "best_estimator_", None)
    fit.model(estimator if best is None else best, **about)


def _sample(data: Any, most: int) -> Any:
    return data if datasets.rows_of(data) <= most else datasets.spread(data, most)
