"""Runs that validate within their epochs, or end by their steps: one entry a validation."""

from __future__ import annotations

import csv

import pytest
import torch
from forked import Run
from project import Project, same_run

TINY = ["run", "trainer.accelerator=cpu", "threads=1", "trainer.limit_val_batches=2"]
WITHIN = [*TINY, "trainer.max_epochs=2", "+trainer.val_check_interval=7"]
BY_STEPS = [
    *TINY,
    "trainer.max_epochs=-1",
    "trainer.max_steps=50",
    "trainer.check_val_every_n_epoch=null",
    "+trainer.val_check_interval=15",
]


def finished(project: Project, *args: str) -> str:
    run = Run(project, *args)
    assert run.wait() == 0, run.text
    return run.text


def test_an_entry_for_each_validation(project: Project):
    """19 batches an epoch. Nothing that was trained is averaged twice, or left out before the last
    validation."""
    text = finished(project, *WITHIN)
    history, result = project.xp.history(), project.xp.result()
    assert [entry["step"] for entry in history] == [7, 14, 26, 33]
    assert [list(entry) for entry in history] == [["step", "train", "valid"]] * 4
    assert result["epochs"] == 2 and result["steps"] == 38
    best = max(history, key=lambda entry: entry["valid"]["acc"])
    assert result["best"]["step"] == best["step"] and result["best"]["epoch"] == 2
    assert f"@step {best['step']}" in text and "epoch 1/2  step 7  train loss" in text
    rows = list(csv.DictReader(project.xp.metrics_csv.open()))
    assert [row["step"] for row in rows] == ["7", "14", "26", "33"]
    saved = torch.load(project.xp.best_checkpoint, weights_only=True)
    assert saved["global_step"] == best["step"]


@pytest.mark.slow
def test_the_train_metrics_of_an_entry_are_of_the_steps_since_the_one_before(project: Project):
    """Summed by hand from a run with an entry for each batch."""
    finished(project, *WITHIN[:-1], "+trainer.val_check_interval=1")
    each = project.xp.history()
    other = Project(project.out.parent / "other", project.root)
    finished(other, *WITHIN)
    before = 0
    for entry in other.xp.history():  # the third one reaches over the end of an epoch
        losses = [one["train"]["loss"] for one in each if before < one["step"] <= entry["step"]]
        mean = sum(losses) / len(losses)
        assert entry["train"]["loss"] == pytest.approx(mean, rel=1e-3)  # batches differ by a sample
        before = entry["step"]


def test_a_run_by_steps_shows_steps(project: Project):
    text = finished(project, *BY_STEPS)
    assert [entry["step"] for entry in project.xp.history()] == [15, 30, 45]
    assert "step 15/50  train loss" in text and "\nepoch" not in text
    info = project.dora("info", "-f", project.xp.sig)
    assert "step 50/50" in info and "metrics    step 45: train loss" in info


def test_one_validation_an_epoch_is_an_epoch(project: Project):
    """However it is asked for."""
    finished(project, *TINY, "trainer.max_epochs=2", "+trainer.val_check_interval=19")
    assert [list(entry) for entry in project.xp.history()] == [["train", "valid"]] * 2
    assert "step" not in project.xp.result()["best"]


def test_patience_counts_validations_within_an_epoch(project: Project):
    """Weights that hardly move get no better after the first one."""
    still = ["optim.lr=1e-12", "early_stopping.patience=2", "trainer.limit_val_batches=1"]
    text = finished(project, *WITHIN, *still)
    assert [entry["step"] for entry in project.xp.history()] == [7, 14, 26]
    assert "finished (stopped early)" in text


@pytest.mark.slow
def test_the_best_weights_are_lost(project: Project):
    """They are trained again, from a checkpoint before them or from the start."""
    finished(project, *BY_STEPS)
    killed = Project(project.out.parent / "killed", project.root)
    in_the_test = ("eval", 9)  # after two batches of a sanity check, and of three validations
    assert Run(killed, *BY_STEPS, fault=in_the_test).wait() == -9
    for name in ("best.ckpt", "previous.ckpt"):
        (killed.xp.folder / name).unlink(missing_ok=True)
    text = finished(killed, *BY_STEPS)
    assert (
        "best.ckpt is missing, so the weights of step 45, the best in last.ckpt, are lost" in text
    )
    same_run(killed.xp, project.xp)
