"""XGBoost and LightGBM by their own ways and by the way of scikit-learn, while they record themselves."""

import lightgbm
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split

from tests.factories.checks import run_checks
from tests.frameworks.client.harness import platform, recorded

DATA, TARGET = load_breast_cancer(return_X_y=True, as_frame=True)
X, XV, Y, YV = train_test_split(DATA, TARGET, random_state=0)
PARAMS = {"objective": "binary:logistic", "max_depth": 2, "eta": 0.3, "eval_metric": ["logloss", "auc"], "nthread": 1}
LIGHT = {"objective": "binary", "num_leaves": 4, "metric": ["binary_logloss", "auc"], "verbose": -1, "num_threads": 1}


def check_xgboost_train():
    train, valid = xgboost.DMatrix(X, label=Y), xgboost.DMatrix(XV, label=YV)
    with recorded("xgboost") as run_id:
        booster = xgboost.train(
            PARAMS, train, 200, evals=[(train, "train"), (valid, "valid")], early_stopping_rounds=3, verbose_eval=False
        )
    again = xgboost.train(
        PARAMS, train, 200, evals=[(train, "train"), (valid, "valid")], early_stopping_rounds=3, verbose_eval=False
    )
    assert booster.save_raw() == again.save_raw(), "the recording changed the model"
    loaded = platform.tracking.load_model(run_id)
    assert np.array_equal(loaded.predict(valid), booster.predict(valid))
    return {
        "run": run_id,
        "rounds": booster.num_boosted_rounds(),
        "best": booster.best_iteration,
        "score": booster.best_score,
    }


def check_xgboost_of_a_matrix_without_names():
    with recorded("nameless") as run_id:
        xgboost.train(PARAMS, xgboost.DMatrix(X.to_numpy(), label=Y), 2)
    return run_id


def check_xgboost_of_a_matrix_that_keeps_no_rows():
    with recorded("quantile") as run_id:
        xgboost.train(PARAMS, xgboost.QuantileDMatrix(X, label=Y), 2)
    return run_id


def check_xgboost_of_more_rows_than_are_hashed():
    many = np.arange(30_001 * 2, dtype="float32").reshape(-1, 2)
    with recorded("many") as run_id:
        xgboost.train({"nthread": 1}, xgboost.DMatrix(many, label=many[:, 0]), 1)
    return run_id


def check_xgboost_by_the_way_of_scikit_learn():
    model = xgboost.XGBClassifier(
        n_estimators=50, max_depth=2, early_stopping_rounds=3, n_jobs=1, eval_metric=["logloss", "auc"]
    )
    with recorded("xgb-sklearn") as run_id:
        model.fit(X, Y, eval_set=[(X, Y), (XV, YV)], verbose=False)
    loaded = platform.tracking.load_model(run_id)
    guessed = loaded.predict(xgboost.DMatrix(XV), iteration_range=(0, model.best_iteration + 1))
    assert np.array_equal(guessed > 0.5, model.predict(XV).astype(bool))
    return {"run": run_id, "rounds": model.get_booster().num_boosted_rounds(), "best": model.best_iteration}


def check_xgboost_in_a_grid_search():
    search = GridSearchCV(xgboost.XGBClassifier(n_estimators=3, n_jobs=1), {"max_depth": [1, 2]}, cv=2)
    with recorded("xgb-grid") as run_id:
        search.fit(X, Y)
    return run_id


def check_lightgbm_train():
    def train():
        data = lightgbm.Dataset(X, label=Y)
        valid = lightgbm.Dataset(XV, label=YV, reference=data)
        stop = lightgbm.early_stopping(3, verbose=False)
        return lightgbm.train(LIGHT, data, 200, valid_sets=[data, valid], valid_names=["train", "valid"], callbacks=[stop])

    with recorded("lightgbm") as run_id:
        booster = train()
    assert booster.model_to_string() == train().model_to_string(), "the recording changed the model"
    loaded = platform.tracking.load_model(run_id)
    assert np.allclose(loaded.predict(XV), booster.predict(XV, num_iteration=booster.best_iteration))
    return {"run": run_id, "best": booster.best_iteration}


def check_lightgbm_by_the_way_of_scikit_learn():
    model = lightgbm.LGBMRegressor(n_estimators=8, num_leaves=4, verbose=-1, n_jobs=1)
    with recorded("lgbm-sklearn") as run_id:
        model.fit(X, Y.astype(float), eval_set=[(XV, YV.astype(float))], eval_names=["valid"])
    return run_id


def check_frames_with_categories():
    frame = pd.DataFrame({"a": np.arange(60.0), "b": pd.Categorical(["x", "y", "z"] * 20)})
    with recorded("categories") as run_id:
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(frame, np.arange(60) % 2)
    return run_id


def check_an_error_of_the_library_comes_through():
    data = xgboost.DMatrix(X, label=Y)
    platform.tracking.autolog("broken")
    try:
        with pytest.raises(xgboost.core.XGBoostError, match="no:such"):
            xgboost.train({"objective": "no:such"}, data, 1)
    finally:
        platform.tracking.autolog(disable=True)


def check_off_is_as_before():
    names = [(xgboost, "train"), (xgboost.sklearn, "train"), (lightgbm, "train"), (lightgbm.sklearn, "train")]
    names += [(xgboost.XGBModel, "fit"), (lightgbm.LGBMModel, "fit"), (lightgbm.LGBMClassifier, "fit")]
    before = [vars(owner)[name] for owner, name in names]
    platform.tracking.autolog()
    assert all(vars(owner)[name] is not one for (owner, name), one in zip(names, before, strict=True))
    platform.tracking.autolog(disable=True)
    assert [vars(owner)[name] for owner, name in names] == before


run_checks(globals())
platform.close()
