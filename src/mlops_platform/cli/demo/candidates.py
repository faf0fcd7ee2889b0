"""The candidate models, each trained in stages so that its metrics can be followed."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES: Sequence[Mapping[str, Any]] = (
    {"name": "logistic-strong-penalty", "algorithm": "logistic_regression", "C": 0.01},
    {"name": "logistic-weak-penalty", "algorithm": "logistic_regression", "C": 1.0},
    {"name": "forest-shallow", "algorithm": "random_forest", "max_depth": 3},
    {"name": "forest-deep", "algorithm": "random_forest", "max_depth": 12},
    {"name": "boosting-slow", "algorithm": "gradient_boosting", "learning_rate": 0.05},
    {"name": "boosting-fast", "algorithm": "gradient_boosting", "learning_rate": 0.3},
)
_STAGES = 20
_SEED = 7


def stages(
    algorithm: str, params: Mapping[str, Any], x: "NDArray[np.float64]", y: "NDArray[np.bool_]"
) -> Iterator[tuple[int, Any]]:
    """The model after each stage of its training; the last one is the finished model."""
    return _ALGORITHMS[algorithm](params, x, y)


def _logistic_regression(params: Mapping[str, Any], x: Any, y: Any) -> Iterator[tuple[int, Any]]:
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    model = LogisticRegression(**params, warm_start=True, max_iter=1)
    for stage in range(1, _STAGES + 1):
        with warnings.catch_warnings():
            # One iteration at a time does not converge, and need not: the next stage goes on from there.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled, y)
        yield stage, make_pipeline(scaler, model)


def _random_forest(params: Mapping[str, Any], x: Any, y: Any) -> Iterator[tuple[int, Any]]:
    model = RandomForestClassifier(**params, warm_start=True, n_estimators=0, random_state=_SEED, n_jobs=1)
    for stage in range(1, _STAGES + 1):
        model.set_params(n_estimators=5 * stage)
        yield stage, model.fit(x, y)


def _gradient_boosting(params: Mapping[str, Any], x: Any, y: Any) -> Iterator[tuple[int, Any]]:
    model = GradientBoostingClassifier(**params, warm_start=True, n_estimators=0, max_depth=2, random_state=_SEED)
    for stage in range(1, _STAGES + 1):
        model.set_params(n_estimators=5 * stage)
        yield stage, model.fit(x, y)


_ALGORITHMS = {
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
    "gradient_boosting": _gradient_boosting,
}
