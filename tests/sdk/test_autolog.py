"""Training code that records itself: everything of it arrives, and nothing of it reaches the training."""

import asyncio
import io
import multiprocessing
import pickle
import sys
import threading
import types
import warnings
from multiprocessing.pool import ThreadPool
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlops_platform.sdk import Platform
from mlops_platform.sdk.autolog import boosters, networks, patches, switch
from mlops_platform.sdk.autolog.patches import AutologWarning
from mlops_platform.sdk.datasets import describe
from mlops_platform.sdk.models import load
from mlops_platform.sdk.offline import recorded
from tests.conftest import Platform as RunningPlatform

X, Y = make_classification(200, 6, random_state=0)


@pytest.fixture
def client(settings_for):
    with Platform(settings=settings_for("http://127.0.0.1:1", offline=True)) as made:
        made.tracking.autolog("auto")
        try:
            yield made
        finally:
            switch.off()


def runs(client):
    """What has been recorded, oldest first, with the folder of each."""
    client.tracking._delivery.recorder.flush()
    return [one.summary() | {"folder": one.folder} for one in recorded(client.settings.offline_runs)]


class TestScikitLearn:
    def test_a_fit_is_a_run_with_all_that_is_known_of_it(self, client):
        model = LogisticRegression(C=0.5).fit(X, Y)
        (run,) = runs(client)
        assert (run["experiment"], run["status"], run["tags"]["estimator_name"]) == (
            "auto",
            "FINISHED",
            "LogisticRegression",
        )
        assert (run["parameters"]["C"], run["parameters"]["fit_intercept"]) == (0.5, True)
        assert run["metrics"]["training_score"] == model.score(X, Y) == run["metrics"]["training_accuracy"]
        assert {"training_f1", "training_log_loss", "training_precision", "training_recall", "n_iter"} <= set(
            run["metrics"]
        )
        assert len(run["tags"]["mlops.dataset.digest"]) == 64
        assert {"dataset.json", "feature_importance.json", "model/mlops-model.json"} <= set(run["artifacts"])
        assert [dataset["digest"] for dataset in run["datasets"]] == [run["tags"]["mlops.dataset.digest"]]
        assert [model["path"] for model in run["models"]] == ["model"]
        loaded = load(run["folder"] / "artifacts" / "model", trust=True)
        assert (loaded.predict(X) == model.predict(X)).all()
        manifest = (run["folder"] / "artifacts" / "model" / "mlops-model.json").read_text()
        assert '"float64"' in manifest and "input_example.json" in manifest  # noqa: PT018

    def test_a_regression_has_its_own_measures(self, client):
        LinearRegression().fit(X, X[:, 0] * 2)
        (run,) = runs(client)
        assert run["metrics"]["training_r2"] == pytest.approx(1)
        assert run["metrics"]["training_rmse"] == pytest.approx(0, abs=1e-9)

    def test_a_search_has_a_run_for_each_candidate(self, client):
        search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=2).fit(X, Y)
        parent, *children = runs(client)
        assert len(children) == 3
        assert {child["parameters"]["C"] for child in children} == {0.1, 1.0, 10.0}
        best = next(child for child in children if child["metrics"]["rank_test_score"] == 1)
        assert best["metrics"]["mean_test_score"] == search.best_score_ == parent["metrics"]["best_score"]
        assert parent["parameters"]["best_C"] == search.best_params_["C"]
        assert "cv_results.json" in parent["artifacts"]
        beginnings = [one for one in recorded(client.settings.offline_runs) if one.parent_id]
        assert {one.parent_id for one in beginnings} == {parent["id"]}

    def test_what_cannot_be_json_is_a_parameter_all_the_same(self, client):
        class Odd(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
            def __init__(self, missing=float("nan"), layers=(64, 32), kind=dict, inner=None):
                self.missing, self.layers, self.kind, self.inner = missing, layers, kind, inner

            def fit(self, inputs):
                return self

        client.tracking.autolog("auto", log_models=False)
        Odd(inner=[object()]).fit(X)
        parameters = runs(client)[0]["parameters"]
        assert (parameters["missing"], parameters["layers"], parameters["kind"]) == ("NaN", [64, 32], "dict")
        assert parameters["inner"].startswith("[<object")

    def test_children_have_a_limit(self, client):
        client.tracking.autolog("auto", most_children=1)
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=2).fit(X, Y)
        parent, child = runs(client)
        assert child["metrics"]["rank_test_score"] == 1
        assert parent["tags"]["mlops.autolog.candidates_left_out"] == "2"

    @pytest.mark.parametrize(
        "make",
        [
            lambda: make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
            lambda: RandomForestClassifier(5, n_jobs=2),
            lambda: VotingClassifier([("a", LogisticRegression()), ("b", LogisticRegression(C=2))], n_jobs=2),
        ],
    )
    @pytest.mark.parametrize("backend", ["threading", "sequential"])
    def test_parts_of_a_training_are_no_runs_of_their_own(self, client, make, backend):
        with joblib.parallel_backend(backend):
            make().fit(X, Y)
        assert len(runs(client)) == 1

    def test_fit_transform_and_fit_predict_are_trainings_too(self, client):
        PCA(2).fit_transform(X)
        KMeans(2, n_init=1).fit_predict(X)
        assert [run["tags"]["estimator_name"] for run in runs(client)] == ["PCA", "KMeans"]

    def test_an_open_run_takes_the_trainings_apart(self, client):
        with client.tracking.run("mine") as mine:
            LogisticRegression(C=1).fit(X, Y)
            LogisticRegression(C=2).fit(X, Y)
        (run,) = runs(client)
        assert run["id"] == mine.id
        assert (run["parameters"]["C"], run["parameters"]["fit2.C"]) == (1.0, 2.0)
        assert {"model/mlops-model.json", "fit2/model/mlops-model.json"} <= set(run["artifacts"])

    def test_a_training_that_fails_is_a_failed_run_and_the_same_error(self, client):
        with pytest.raises(ValueError, match="inconsistent numbers"):
            LogisticRegression().fit(X, Y[:-1])
        assert [run["status"] for run in runs(client)] == ["FAILED"]

    def test_a_class_of_ones_own_is_recorded_when_it_is_defined_later(self, client):
        class Mine(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
            def __init__(self, width=3):
                self.width = width

            def fit(self, inputs, targets):
                self.classes_ = np.unique(targets)
                return self

            def predict(self, inputs):
                return np.zeros(len(inputs), int)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutologWarning)  # a class within a function cannot be pickled
            Mine().fit(X, Y)
        (run,) = runs(client)
        assert run["parameters"] == {"width": 3}
        assert run["metrics"]["training_accuracy"] == np.mean(Y == 0)

    def test_threads_have_runs_of_their_own(self, client):
        with ThreadPool(4) as pool:
            pool.map(lambda c: LogisticRegression(C=c).fit(X, Y), [1.0, 2.0, 3.0, 4.0])
        assert sorted(run["parameters"]["C"] for run in runs(client)) == [1.0, 2.0, 3.0, 4.0]

    def test_a_forked_worker_records_a_training_of_its_own(self, client):
        worker = multiprocessing.get_context("fork").Process(target=LogisticRegression(C=7).fit, args=(X, Y))
        worker.start()
        worker.join(30)
        assert worker.exitcode == 0
        assert [run["parameters"]["C"] for run in runs(client)] == [7]


class TestTheTrainingIsNotTouched:
    def test_off_is_as_before(self, client):
        assert patches.MARK in vars(vars(LogisticRegression)["fit"])
        client.tracking.autolog(disable=True)
        assert patches.MARK not in vars(vars(LogisticRegression)["fit"])
        assert "__init_subclass__" not in vars(BaseEstimator)
        assert not any(isinstance(finder, patches._Finder) for finder in sys.meta_path)
        LogisticRegression().fit(X, Y)
        assert runs(client) == []

    def test_on_twice_records_once(self, client):
        client.tracking.autolog("auto")
        LogisticRegression().fit(X, Y)
        assert len(runs(client)) == 1

    def test_what_others_wrapped_since_is_left_to_them(self, client):
        ours = LogisticRegression.fit
        LogisticRegression.fit = lambda self, *given: ours(self, *given)  # noqa: PLW0108  # another object
        theirs = LogisticRegression.fit
        try:
            client.tracking.autolog(disable=True)
            assert LogisticRegression.fit is theirs
            LogisticRegression().fit(X, Y)
            assert runs(client) == []
        finally:
            LogisticRegression.fit = ours.__wrapped__

    def test_a_pickle_is_the_same_byte_for_byte(self, client):
        with_it = pickle.dumps(LogisticRegression().fit(X, Y))
        switch.off()
        without = pickle.dumps(LogisticRegression().fit(X, Y))
        assert with_it == without
        assert b"mlops" not in with_it

    def test_the_answer_is_the_same(self, client):
        model = LogisticRegression()
        assert model.fit(X, Y) is model
        recorded_coefficients = model.coef_
        switch.off()
        assert (LogisticRegression().fit(X, Y).coef_ == recorded_coefficients).all()

    @pytest.mark.parametrize("part", ["_before", "_scores", "_importance", "_search", "_model"])
    def test_trouble_of_the_recording_is_a_warning(self, client, monkeypatch, part):
        def broken(*_):
            raise RuntimeError("broken on purpose")

        monkeypatch.setattr(f"mlops_platform.sdk.autolog.sklearn.{part}", broken)
        with pytest.warns(AutologWarning, match="broken on purpose"):
            model = LogisticRegression().fit(X, Y)
        assert model.coef_.shape == (1, 6)

    def test_a_run_that_cannot_begin_is_a_warning(self, client, monkeypatch):
        monkeypatch.setattr(client.tracking, "begin_run", lambda *_, **__: 1 / 0)
        with pytest.warns(AutologWarning, match="division"):
            LogisticRegression().fit(X, Y)
        with pytest.warns(AutologWarning), pytest.raises(ValueError, match="inconsistent"):
            LogisticRegression().fit(X, Y[:-1])

    def test_warnings_that_are_errors_do_not_reach_it_either(self, client, monkeypatch):
        monkeypatch.setattr(client.tracking, "begin_run", lambda *_, **__: 1 / 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            LogisticRegression().fit(X, Y)

    def test_a_model_that_cannot_be_pickled_is_trained_all_the_same(self, client):
        model = LogisticRegression()
        model.lock = threading.Lock()
        with pytest.warns(AutologWarning, match="pickle"):
            model.fit(X, Y)
        (run,) = runs(client)
        assert run["status"] == "FINISHED"


class TestDigests:
    @pytest.mark.parametrize("change", [lambda x: x + 1, lambda x: x[:-1], lambda x: x.astype("float32"), lambda x: x.T])
    def test_another_set_has_another_digest(self, change):
        assert describe(X)["digest"] == describe(X.copy())["digest"]
        assert describe(change(X))["digest"] != describe(X)["digest"]

    def test_lists_and_texts_have_digests_too(self):
        assert describe([["a"], ["b"]])["digest"] != describe([["a"], ["c"]])["digest"]
        assert describe(np.array([["a", None]], dtype=object))["rows"] == 1

    def test_sparse_matrices_have_digests_too(self):
        from scipy.sparse import csr_matrix  # noqa: PLC0415  # only here

        assert describe(csr_matrix(X))["digest"] != describe(csr_matrix(X * 2))["digest"]


class TestOtherLibraries:
    """They are not installed here: what stands in for them has their shape."""

    @pytest.fixture
    def module(self, monkeypatch):
        def make(name, **content):
            made = types.ModuleType(name)
            vars(made).update(content)
            monkeypatch.setitem(sys.modules, name, made)
            return made

        return make

    def test_lightgbm_records_every_round(self, client, module):
        def train(params, data, num_boost_round=2, callbacks=()):
            for number in range(num_boost_round):
                results = [("valid", "l2", 1 / (number + 1), False)]
                for callback in callbacks:
                    callback(types.SimpleNamespace(iteration=number, evaluation_result_list=results))
            booster = type("Booster", (), {"__module__": "lightgbm", "best_iteration": 2})()
            booster.feature_importance = lambda importance_type: [3.0, 1.0]
            booster.feature_name = lambda: ["a", "b"]
            type(booster).save_model = lambda self, path: io.open(path, "w").close()  # noqa: UP020
            return booster

        fake = module("lightgbm", train=train)
        client.tracking.autolog("auto")
        fake.train({"eta": 0.1}, None, num_boost_round=3)
        (run,) = runs(client)
        assert run["parameters"] == {"eta": 0.1, "num_boost_round": 3}
        assert run["metrics"] == {"valid-l2": pytest.approx(1 / 3), "best_iteration": 2}
        assert {"feature_importance.json", "model/model.txt"} <= set(run["artifacts"])

    def test_xgboost_records_every_round(self, client, module):
        class TrainingCallback:
            pass

        def train(params, data, callbacks=()):
            for callback in callbacks:
                assert callback.after_iteration(None, 0, {"eval": {"rmse": [0.5]}}) is False
                callback.after_iteration(None, 1, {"eval": {"rmse": [0.5, (0.25, 0.01)]}})

        fake = module("xgboost", train=train)
        module("xgboost.callback", TrainingCallback=TrainingCallback)
        client.tracking.autolog("auto")
        fake.train({"max_depth": 3}, None)
        (run,) = runs(client)
        assert (run["parameters"], run["metrics"]) == ({"max_depth": 3}, {"eval-rmse": 0.25})

    def test_keras_records_every_epoch(self, client, module):
        class Callback:
            pass

        class Trainer:
            def fit(self, x=None, epochs=1, callbacks=None):
                for epoch in range(epochs):
                    for callback in callbacks:
                        callback.on_epoch_end(epoch, {"loss": 1 / (epoch + 1)})
                return "history"

        class Model(Trainer):
            optimizer = types.SimpleNamespace(get_config=lambda: {"learning_rate": 0.1})

        fake = module("keras", Model=Model, callbacks=types.SimpleNamespace(Callback=Callback))
        client.tracking.autolog("auto", log_models=False)
        assert fake.Model().fit(epochs=2) == "history"
        (run,) = runs(client)
        expected = {"epochs": 2, "optimizer_learning_rate": 0.1, "optimizer_name": "SimpleNamespace"}
        assert (run["parameters"], run["metrics"]) == (expected, {"loss": 0.5})

    @pytest.mark.parametrize("name", networks.LIGHTNING)
    def test_lightning_records_every_epoch_and_leaves_its_callbacks_alone(self, client, module, name):
        class Callback:
            pass

        class Trainer:
            max_epochs = 2

            def __init__(self):
                self.callbacks: list[Any] = ["other"]

            def fit(self, model):
                for self.current_epoch in range(2):
                    self.callback_metrics = {"loss": 0.5 - self.current_epoch / 4}
                    for callback in self.callbacks[1:]:
                        callback.on_train_epoch_end(self, model)

        fake = module(name, Trainer=Trainer, Callback=Callback)
        client.tracking.autolog("auto", log_models=False)
        trainer = fake.Trainer()
        trainer.fit(types.SimpleNamespace(hparams={"lr": 0.1}))
        (run,) = runs(client)
        assert (run["parameters"], run["metrics"]) == ({"lr": 0.1, "max_epochs": 2}, {"loss": 0.25})
        assert trainer.callbacks == ["other"]

    def test_a_library_that_is_imported_later_is_recorded_from_then_on(self, client, monkeypatch, tmp_path):
        (tmp_path / "lightgbm.py").write_text("def train(params, callbacks=()):\n    return None\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
        module = __import__("lightgbm")
        try:
            module.train({"eta": 1})
        finally:
            sys.modules.pop("lightgbm")
        assert [run["parameters"] for run in runs(client)] == [{"eta": 1}]
        assert module.__spec__ is not None
        assert type(module.__spec__.loader).__name__ == "SourceFileLoader"

    def test_callbacks_that_are_given_by_position_stay_what_they_are(self, client, module):
        seen = []
        fake = module("lightgbm", train=lambda *given, callbacks=(): seen.append((given, callbacks)))
        client.tracking.autolog("auto")
        fake.train({}, 1, 2, 3, 4, 5, 6, 7, ["mine"])
        assert seen == [(({}, 1, 2, 3, 4, 5, 6, 7, ["mine"]), ())]

    def test_an_evaluation_of_nothing_is_nothing(self):
        assert boosters.evaluations({"eval": {"rmse": []}}) == {}


async def test_on_a_server_it_is_all_there_when_the_client_closes(sdk_for, platform: RunningPlatform):
    """Nothing of a training waits for the server: runs, candidates and models go by the queue."""
    key, _ = await platform.key(await platform.project())
    async with sdk_for(key) as client:
        client.tracking.autolog("searches")
        try:
            search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
            await asyncio.to_thread(search.fit, X, Y)
        finally:
            client.tracking.autolog(disable=True)
    async with sdk_for(key) as client:
        found = await client.tracking.search(experiments=["searches"], order_by=["start_time ASC"]).all()
        parent = next(run for run in found if run.parent_run_id is None)
        assert [run.parent_run_id for run in found if run is not parent] == [parent.id] * 2
        assert {run.status for run in found} == {"FINISHED"}
        assert parent.metrics["best_score"] == search.best_score_
        (dataset,) = await client.tracking.inputs(parent.id)
        assert (dataset.digest, dataset.context) == (parent.tags["mlops.dataset.digest"], "training")
        assert dataset.profile == '{"rows":200,"columns":6}'
        (made,) = await client.tracking.models(parent.id)
        assert (made.name, made.path, made.model_type) == ("model", "model", "scikit-learn")
        model = await client.tracking.load_model(parent.id, made.path, trust=True)
        assert (model.predict(X) == search.predict(X)).all()
