"""What ends a training early, and what it trains: diverged, stopped early, averaged, compiled."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from project import QUICK, Project, weights

from dora_train.engine.experiment.records import State
from dora_train.module import Classifier


@pytest.mark.slow
def test_a_run_that_diverges_has_failed(project: Project):
    output = project.dora("run", *QUICK, "optim.lr=1e6", code=1)
    assert output.splitlines()[-2].startswith("diverged in epoch ") and "Traceback" not in output
    state = project.xp.state()
    assert state.state is State.FAILED and state.cause.startswith("diverged in epoch ")
    assert f"({state.cause}" in project.dora("run", *QUICK, "optim.lr=1e6", code=1).replace(
        "last time: ", "("
    )
    assert all(math.isfinite(entry["train"]["loss"]) for entry in project.xp.history()), (
        "it is not saved"
    )


@pytest.mark.slow
def test_a_run_that_diverges_within_an_epoch_saves_nothing_of_it(project: Project):
    args = [
        "run",
        "threads=1",
        "optim.lr=1e6",
        "checkpoint.every_minutes=0.000001",
        "trainer.max_epochs=2",
    ]
    assert "diverged in epoch 1: the train loss is" in project.dora(*args, code=1)
    assert "diverged in epoch 1" in project.dora(*args, code=1), "the same again"
    assert "finished" in project.dora(
        "run", "threads=1", "optim.lr=1e6", "trainer.max_epochs=2", "stop_on_nan=false"
    )


@pytest.mark.slow
def test_a_run_that_stopped_early_is_complete(project: Project):
    args = [
        "run",
        "threads=1",
        "optim.lr=1e-9",
        "early_stopping.patience=2",
        "trainer.max_epochs=9",
    ]
    assert "finished (stopped early)" in project.dora(*args)
    assert project.xp.state().state is State.COMPLETED and len(project.xp.history()) == 3
    assert "nothing to do" in project.dora(*args)


@pytest.mark.slow
def test_the_average_is_what_is_validated_kept_and_tested(project: Project):
    project.dora(
        "run",
        "threads=1",
        "trainer.max_epochs=2",
        "ema.decay=0.9",
        "trainer.check_val_every_n_epoch=2",
    )
    last = torch.load(project.xp.last_checkpoint, weights_only=True)
    best = torch.load(project.xp.best_checkpoint, weights_only=True)
    assert not {"current_model_state", "averaging_state"} & best.keys()
    key = "model.5.weight"
    assert best["state_dict"][key].equal(last["state_dict"][key])
    assert not last["current_model_state"][key].equal(last["state_dict"][key])


@pytest.mark.slow
def test_the_average_has_the_precision_of_the_weights(project: Project):
    project.dora(
        "run", *QUICK, "ema.decay=0.9", "trainer.precision=bf16-true", "trainer.accelerator=cpu"
    )
    assert weights(project.xp.best_checkpoint)["model.5.weight"].dtype == torch.bfloat16


@pytest.mark.slow
def test_compiled_and_channels_last_weights_keep_their_names(project: Project):
    project.dora("run", *QUICK, "compile=true", "channels_last=true")
    names = weights(project.xp.best_checkpoint).keys()
    assert "model.0.0.weight" in names and not [name for name in names if "_orig_mod" in name]
    assert project.xp.result()


@pytest.mark.parametrize(
    "override, message",
    [
        ("ema.decay=2", "ema.decay=2: it takes a number between 0 and 1"),
        (
            "early_stopping.patience=0",
            "early_stopping.patience=0: it takes a whole number of epochs",
        ),
        ("loss.label_smoothing=1", "loss.label_smoothing=1.0: it takes"),
    ],
)
@pytest.mark.slow
def test_values_that_make_no_sense(project: Project, override: str, message: str):
    output = project.dora("run", override, code=1)
    assert message in output and len(output.splitlines()) == 1
    assert not project.experiments()


@pytest.mark.slow
def test_the_loss_is_that_of_a_sample_however_many_batches_make_a_step(project: Project):
    project.dora(
        "run", *QUICK, "optim.lr=0", "trainer.accumulate_grad_batches=4", "trainer.accelerator=cpu"
    )
    entry = project.xp.history()[0]
    assert entry["train"]["loss"] == pytest.approx(entry["valid"]["loss"], rel=0.1)


def test_a_warm_up_lasts_epochs_as_they_are_trained():
    """Of as many batches as the trainer is limited to, and of as many to a step."""
    module = Classifier(
        torch.nn.Linear(2, 3),
        {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0},
        {"name": "cosine", "warmup_epochs": 2.0},
        {"label_smoothing": 0.0},
    )
    batches = [(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))] * 9
    trainer = pl.Trainer(
        max_epochs=4,
        limit_train_batches=7,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert (
        module.factor.warmup_steps == 8 and module.factor.total_steps == trainer.global_step == 16
    )


# --- where the time goes ---


def test_every_moment_is_counted_once_for_the_innermost_part():
    from dora_train.engine.run.profile import WhereTimeGoes

    now = iter(range(100))
    profile = WhereTimeGoes(torch.device("cpu"), lambda: next(now))  # 0
    with profile.profile("run_training_batch"):  # 1
        with profile.profile("[LightningModule]Classifier.optimizer_step"):  # 2
            with profile.profile("[Strategy]SingleDeviceStrategy.training_step"):  # 3, 4
                pass
    assert profile.seconds == {"the rest": 3, "optimizer": 2, "forward": 1}  # 5, 6
    lines = profile.lines(began=-3, steps=2)  # 7
    assert lines[0] == "where the time went: 10.0 s, 2 steps" and len(lines) == 11
    assert lines[1].split() == ["start", "3.00", "s", "30.0%"]
    assert lines[3].split() == ["forward", "1.00", "s", "10.0%", "500.00", "ms", "a", "step"]


@pytest.mark.slow
def test_debug_profile_says_where_the_time_went(project: Project):
    output = project.dora("run", "debug=profile", "threads=1", "trainer.accelerator=cpu")
    shares = {
        line.split("  ")[1].strip(): float(line.split("%")[0].split()[-1])
        for line in output.splitlines()
        if line.startswith("  ") and "%" in line
    }
    parts = [
        "start",
        "data",
        "forward",
        "backward",
        "optimizer",
        "validation",
        "test",
        "logging",
        "checkpoint",
    ]
    assert list(shares) == [*parts, "the rest"] and sum(shares.values()) == pytest.approx(
        100, abs=0.6
    )
    assert all(shares[part] > 0 for part in parts), "an action of Lightning's was renamed"
    assert "where the time went" in project.xp.log.read_text()
