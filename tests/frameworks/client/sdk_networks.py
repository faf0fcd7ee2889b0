"""Keras (on PyTorch) and Lightning, while they record themselves."""

from typing import Any

import keras
import lightning
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

from tests.factories.checks import run_checks
from tests.frameworks.client.harness import TROUBLE, platform, recorded

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("float32")
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def a_keras_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


def check_keras():
    model = a_keras_model()
    with recorded("keras") as run_id:
        history = model.fit(X, Y, 16, 3, validation_data=(X[:16], Y[:16]), verbose=0)
    again = a_keras_model().fit(X, Y, 16, 3, validation_data=(X[:16], Y[:16]), verbose=0)
    assert history.history == again.history, "the recording changed the training"
    loaded = platform.tracking.load_model(run_id)
    assert np.allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    return {"run": run_id, "loss": history.history["loss"], "val_loss": history.history["val_loss"]}


def check_keras_that_stops_early():
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, min_delta=1e9)
    callbacks = [stop]
    with recorded("keras-stop") as run_id:
        a_keras_model().fit(X, Y, epochs=9, validation_split=0.5, callbacks=callbacks, verbose=0)
    assert callbacks == [stop]
    return {"run": run_id, "stopped": stop.stopped_epoch}


def check_keras_with_a_loader():
    loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)[:, None]), batch_size=16)
    with recorded("keras-loader") as run_id:
        a_keras_model().fit(loader, epochs=1, verbose=0)
    return run_id


def check_keras_with_a_model_that_cannot_be_saved():
    class Odd(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, inputs):
            return self.layer(inputs)

        def save(self, *_, **__):
            raise ValueError("cannot be saved")

    model = Odd()
    model.compile("sgd", "mse")
    platform.tracking.autolog("frameworks")
    with platform.tracking.run("frameworks", run_name="odd") as run:
        model.fit(X, Y, epochs=1, verbose=0)
    platform.tracking.autolog(disable=True)
    assert any("cannot be saved" in message for message in TROUBLE), TROUBLE
    return run.id


def a_module(library):
    base: Any = library.LightningModule

    class Net(base):
        def __init__(self, width=3, lr=0.1):
            super().__init__()
            self.save_hyperparameters()
            self.layers = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

        def _loss(self, batch):
            return torch.nn.functional.binary_cross_entropy_with_logits(self.layers(batch[0])[:, 0], batch[1])

        def training_step(self, batch, _):
            loss = self._loss(batch)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, _):
            self.log("val_loss", self._loss(batch))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.5)

    torch.manual_seed(3)
    return Net()


def loaders():
    data = TensorDataset(torch.tensor(X), torch.tensor(Y))
    train, valid = random_split(data, [48, 16], generator=torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=16), DataLoader(valid, batch_size=16)


class Watch:
    """What the training itself says of each epoch."""

    def __init__(self, library):
        seen: list[dict[str, float]] = []
        self.seen = seen

        base: Any = library.Callback

        class Callback(base):
            def on_train_epoch_end(self, trainer, _):
                seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})

        self.callback = Callback()


def trained(library, **options):
    watch, model, given = Watch(library), a_module(library), loaders()
    trainer = library.Trainer(max_epochs=4, callbacks=[watch.callback], **QUIET, **options)
    trainer.fit(model, *given)
    return model, trainer, watch.seen


def check_lightning():
    with recorded("lightning") as run_id:
        model, trainer, seen = trained(lightning)
    assert "Recording" not in {type(each).__name__ for each in trainer.callbacks}
    plain, _, same = trained(lightning)
    assert seen == same, "the recording changed the training"
    weights = platform.tracking.load_model(run_id)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert weights.keys() == plain.state_dict().keys()
    return {"run": run_id, "seen": seen}


def check_the_older_name_of_lightning():
    with recorded("pytorch_lightning") as run_id:
        _, _, seen = trained(pytorch_lightning)
    return {"run": run_id, "seen": seen}


def check_lightning_that_validates_every_second_epoch():
    with recorded("every-second") as run_id:
        trained(lightning, check_val_every_n_epoch=2)
    return run_id


def check_lightning_that_stops_early():
    stop = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9)
    trainer = lightning.Trainer(max_epochs=9, callbacks=[stop], **QUIET)
    with recorded("lightning-stop") as run_id:
        trainer.fit(a_module(lightning), *loaders())
    return {"run": run_id, "stopped": stop.stopped_epoch}


def check_data_that_is_made_when_asked_is_not_asked():
    class Lots(Dataset):
        asked = 0

        def __len__(self):
            return 32

        def __getitem__(self, number):
            Lots.asked += 1
            return torch.tensor(X[number]), torch.tensor(Y[number])

    trainer = lightning.Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET)
    with recorded("lots") as run_id:
        trainer.fit(a_module(lightning), DataLoader(Lots(), batch_size=16))
    assert Lots.asked == 32
    return run_id


def check_an_error_in_a_step_comes_through():
    class Broken(lightning.LightningModule):
        def training_step(self, *_):
            raise RuntimeError("broken on purpose")

        def configure_optimizers(self):
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)

    platform.tracking.autolog("broken")
    try:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            lightning.Trainer(max_epochs=1, **QUIET).fit(Broken(), loaders()[0])
    finally:
        platform.tracking.autolog(disable=True)


def check_off_is_as_before():
    owner = next(base for base in keras.Model.__mro__ if "fit" in vars(base))
    names = [(owner, "fit"), (lightning.Trainer, "fit"), (pytorch_lightning.Trainer, "fit")]
    before = [vars(owner)[name] for owner, name in names]
    platform.tracking.autolog()
    assert all(vars(owner)[name] is not one for (owner, name), one in zip(names, before, strict=True))
    platform.tracking.autolog(disable=True)
    assert [vars(owner)[name] for owner, name in names] == before


run_checks(globals())
platform.close()
