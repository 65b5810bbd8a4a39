"""Somebody else's LightningModule and data, untouched: trained, killed, and the same bits.

The files of tests/engine/foreign know nothing of this project.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Fault, Run, faults_at_random
from ports import EVERY_STEP, QUICK, port
from project import Project, same_run

from dora_train.engine.experiment.folder import Experiment

CHAOS = int(os.environ.get("DORA_TRAIN_CHAOS", 0))  # kills in all
PORTS = {
    "lit": [],
    "lit with workers": ["data.num_workers=2"],
    "lit averaged": ["ema.decay=0.8"],
    "lit validated by steps": [
        "trainer.check_val_every_n_epoch=null",
        "+trainer.val_check_interval=5",
        "best.metric=valid.loss",
        "best.mode=min",
        "early_stopping.patience=9",
    ],
    "gan": ["best.metric=train.g_loss", "best.mode=min"],
    "stream": [
        "best.metric='valid.loss/dataloader_idx_1'",
        "best.mode=min",
        "trainer.max_epochs=-1",
        "trainer.max_steps=33",
    ],
    "stream with workers": [
        "best.metric='valid.loss/dataloader_idx_1'",
        "best.mode=min",
        "data.num_workers=2",
    ],
    "sampled": ["best.metric=valid.mae", "best.mode=min", "tag=weighted"],
    "sampled in turns": ["best.metric=valid.mae", "best.mode=min", "data.num_workers=2"],
}
KILLS: list[Fault] = [
    ("step", 3),
    ("step", 11),
    ("step", 2, 15),
    ("torch.save", 2),
    ("torch.save", 5),
    ("write", 60),
]


class Ports:
    """A port of each kind and its undisturbed run, made once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made: dict[str, tuple[Project, list[str], Experiment]] = {}

    def of(self, kind: str) -> tuple[Project, list[str], Experiment]:
        """(the port, the arguments, its undisturbed experiment)."""
        if kind not in self._made:
            name = kind.partition(" ")[0]
            copied = port(self.folder / kind, name)
            args = ["run", *QUICK, *PORTS[kind]]
            run = Run(copied, *args)
            assert run.wait() == 0, run.text
            self._made[kind] = copied, args, copied.xp
        return self._made[kind]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Ports:
    return Ports(tmp_path_factory.mktemp("ports"))


def states(experiment: Experiment) -> str:
    """What the optimizers, schedulers and callbacks hold at the end."""
    content: dict[str, Any] = torch.load(experiment.last_checkpoint, weights_only=True)
    torch.set_printoptions(precision=17)
    return str([content["optimizer_states"], content["lr_schedulers"], content["global_step"]])


def same(one: Experiment, other: Experiment) -> None:
    same_run(one, other)
    assert states(one) == states(other)


# --- killed anywhere ---


@pytest.mark.slow
@pytest.mark.parametrize("series", range(CHAOS // 60 or 1))
@pytest.mark.parametrize("kind", PORTS)
def test_killed_again_and_again(kind: str, series: int, ports: Ports, tmp_path: Path):
    copied, args, reference = ports.of(kind)
    project = Project(tmp_path / "killed", copied.root)
    kills = random.Random(kind).sample(KILLS, len(KILLS))
    for fault in faults_at_random(f"{kind} {series}", 6) if series else kills:
        run = Run(project, *args, EVERY_STEP, fault=fault)
        if run.wait() == 0:
            break
        assert "Traceback" not in run.text, run.text
    run = Run(project, *args)
    assert run.wait() == 0, run.text
    same(project.xp, reference)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [("step", 5), ("torch.save", 2)])
def test_killed_without_checkpoints_within_an_epoch(fault: Fault, ports: Ports, tmp_path: Path):
    copied, args, reference = ports.of("lit")
    project = Project(tmp_path / "killed", copied.root)
    assert Run(project, *args, fault=fault).wait() == -9
    assert Run(project, *args).wait() == 0
    same(project.xp, reference)


@pytest.mark.slow
def test_workers_change_nothing(ports: Ports):
    """Though each sample draws from three generators."""
    same(ports.of("lit with workers")[2], ports.of("lit")[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lit", "stream", "gan"] if CHAOS else ["lit"])
def test_two_ranks_resume_with_the_same_bits(kind: str, ports: Ports, tmp_path: Path):
    copied, args, alone = ports.of(kind)
    two = ["run", "-d", "--ddp_workers", "2", *args[1:], EVERY_STEP]
    whole = Project(tmp_path / "whole", copied.root)
    whole.dora(*two)
    killed = Project(tmp_path / "killed", copied.root)
    process = killed.start("dora", *two)
    killed.wait_for_checkpoint(process)
    process.kill()
    process.communicate()
    killed.dora(*two)
    same(killed.xp, whole.xp)
    [first, *_], [of_one, *_] = whole.xp.history(), alone.history()
    split, name = {
        "lit": ("valid", "loss"),
        "stream": ("valid", "loss/dataloader_idx_1"),
        "gan": ("train", "d_loss"),
    }[kind]
    # without batch norm, two ranks compute what one does but for the order of sums and dropout
    assert first[split][name] == pytest.approx(of_one[split][name], rel=0.1)


# --- what reaches the history ---


def test_what_is_logged_is_in_the_history(ports: Ports):
    experiment = ports.of("lit")[2]
    assert len(experiment.history()) == 4
    for entry in experiment.history():
        assert list(entry["train"]) == ["loss", "acc", "drawn", "margin"]
        assert list(entry["valid"]) == ["loss", "acc", "acc_best"]
    accuracies = [entry["valid"]["acc"] for entry in experiment.history()]
    best = [entry["valid"]["acc_best"] for entry in experiment.history()]
    assert best == [max(accuracies[: epoch + 1]) for epoch in range(4)]
    assert list(experiment.result()["test"]) == ["loss", "acc"]
    assert experiment.result()["best"]["value"] == max(accuracies)


def test_a_metric_may_come_in_some_steps_only(ports: Ports):
    """And several optimizers count their steps once. There is no validation, and no test."""
    experiment = ports.of("gan")[2]
    for entry in experiment.history():
        assert list(entry) == ["train"] and 0.3 < entry["train"]["d_loss"] < 1.5
    result = experiment.result()
    assert result["test"] == {} and result["steps"] == 4 * 10


def test_a_stream_has_its_samples_counted(ports: Ports):
    experiment = ports.of("stream")[2]
    seen = [entry["train"]["seen"] for entry in experiment.history()]
    assert seen == [130, 260, 330] and experiment.result()["reason"] == "max_steps"


@pytest.mark.slow
def test_callbacks_by_configuration(ports: Ports, tmp_path: Path):
    """As the guide has it. It ends early, by what the module logs; and so it does after a kill."""
    copied, args, _ = ports.of("lit")
    stopping = "_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss,patience:1"
    stopping = f"callbacks=[{{{stopping},min_delta:9}}]"
    whole, killed = (Project(tmp_path / name, copied.root) for name in ("whole", "killed"))
    run = Run(whole, *args, stopping)
    assert run.wait() == 0 and "finished (stopped early)" in run.text, run.text
    assert len(whole.xp.history()) == 2
    assert Run(killed, *args, stopping, EVERY_STEP, fault=("step", 17)).wait() == -9
    assert Run(killed, *args, stopping).wait() == 0
    same(killed.xp, whole.xp)


# --- what is refused ---


def refused(folder: Path, edits: dict[str, str], *more: str, name: str = "lit") -> str:
    """What a port says whose file was edited: {before: after}."""
    copied = port(folder / "refused", name)
    for before, after in edits.items():
        copied.edit(f"dora_train/{name}.py", before, after)
    run = Run(copied, "run", *QUICK, *more)
    assert run.wait() == 1 and "Traceback" not in run.text, run.text
    return run.text


@pytest.mark.parametrize(
    "returned, words",
    [
        ("logits", "a tensor of shape [16, 2], for a batch of 16"),
        ("logits.argmax(1)", "int64 values: labels or predictions?"),
    ],
)
def test_what_is_no_metric_is_refused_at_its_first_step(returned: str, words: str, tmp_path: Path):
    step = "        loss, preds, targets = self.model_step(batch)\n        self.train_loss(loss)"
    edits = {
        step: f"        logits = self.net(batch['x'])\n{step}",
        "return loss\n": f"return {{'loss': loss, 'x': {returned}}}\n",
    }
    assert f'training_step returned "x": {words}' in refused(tmp_path, edits)


def test_a_metric_that_no_validation_gives(tmp_path: Path):
    seldom = "trainer.check_val_every_n_epoch=2"
    text = refused(tmp_path, {}, "best.metric=valid.mse", "best.mode=min", seldom, name="sampled")
    assert "best.metric=valid.mse: valid has no such metric." in text
    assert "valid has: mae" in text and "epoch 1/4" in text


def test_a_loss_of_any_name_that_is_no_number(tmp_path: Path):
    edits = {'self.log("train_margin", loss.sqrt()': 'self.log("kl_loss", loss / 0'}
    assert "diverged in epoch 1: the train kl_loss is inf" in refused(tmp_path, edits)


def test_an_iterator_is_refused(tmp_path: Path):
    edits = {"self.test = [(x[:40]": "self.train = iter(self.train)\n        self.test = [(x[:40]"}
    text = refused(tmp_path, edits, "tag=weighted", name="sampled")
    assert "which can be read once" in text and "a Dataset or a DataLoader" in text
