"""Training scripts as people wrote them for MLflow: `mlflow.autolog()` and no word of this platform."""

import lightgbm
import lightning
import mlflow  # type: ignore[import-not-found]
import numpy as np
import torch
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from tests.factories.checks import run_checks

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
mlflow.set_experiment("frameworks")
mlflow.autolog()


def check_grid_search():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0, 10.0]}, cv=2)
    with mlflow.start_run(run_name="grid") as run:
        search.fit(X, Y)
    loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(loaded.predict(X), search.predict(X))
    return {"run": run.info.run_id, "best": search.best_params_["logisticregression__C"], "score": search.best_score_}


def check_xgboost():
    train, valid = xgboost.DMatrix(X[:400], label=Y[:400]), xgboost.DMatrix(X[400:], label=Y[400:])
    params = {"objective": "binary:logistic", "max_depth": 2, "eval_metric": "auc", "nthread": 1}
    with mlflow.start_run(run_name="xgboost") as run:
        booster = xgboost.train(
            params, train, 100, evals=[(train, "train"), (valid, "valid")], early_stopping_rounds=3, verbose_eval=False
        )
    loaded = mlflow.xgboost.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(loaded.predict(valid), booster.predict(valid))
    return {"run": run.info.run_id, "rounds": booster.num_boosted_rounds(), "best": booster.best_iteration}


def check_lightgbm():
    train = lightgbm.Dataset(X, label=Y)
    params = {"objective": "binary", "metric": "auc", "num_leaves": 4, "verbose": -1, "num_threads": 1}
    with mlflow.start_run(run_name="lightgbm") as run:
        booster = lightgbm.train(params, train, 7, valid_sets=[train], valid_names=["train"])
    loaded = mlflow.lightgbm.load_model(f"runs:/{run.info.run_id}/model")
    assert np.array_equal(loaded.predict(X), booster.predict(X))
    return run.info.run_id


class Net(lightning.LightningModule):
    def __init__(self, width=3):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(30, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def training_step(self, batch, _):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self.layers(batch[0])[:, 0], batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def forward(self, inputs):
        return self.layers(inputs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def check_lightning():
    inputs = torch.tensor(StandardScaler().fit_transform(X), dtype=torch.float32)
    loader = DataLoader(TensorDataset(inputs, torch.tensor(Y.to_numpy(), dtype=torch.float32)), batch_size=64)
    torch.manual_seed(3)
    model = Net()
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    with mlflow.start_run(run_name="lightning") as run:
        lightning.Trainer(max_epochs=3, **quiet).fit(model, loader)
    # Its pickle is of a class of this script: by its author's word, as everywhere.
    loaded = mlflow.pytorch.load_model(f"runs:/{run.info.run_id}/model")
    with torch.no_grad():
        assert torch.equal(loaded(inputs), model(inputs))
    return run.info.run_id


run_checks(globals())
