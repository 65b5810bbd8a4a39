"""Which files a run resumes with:

`best.ckpt` is the best of the history that counts, or it is said what is lost.
"""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.checkpoint import held_epoch, holds_objects, read_checkpoint
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.run.checkpoints import (
    AtomicCheckpointIO,
    Checkpoints,
    keep_previous,
    next_best,
    previous,
    thin_out,
)
from dora_train.engine.run.history import RULE
from dora_train.engine.run.resume import find_resume, take_up, weights_to_test
from dora_train.engine.run.room import Room
from dora_train.engine.run.signals import Signals


@pytest.fixture
def xp(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path)


def at_end(epochs: int, best: int, within: bool = False) -> dict[str, Any]:
    """A checkpoint of the end of an epoch, or `within` the next one; its weights are that epoch's
    number."""
    current = {"ready": epochs + within, "processed": epochs}
    history = {
        "history": [{"valid": {"acc": 0.1 * epoch}} for epoch in range(epochs)],
        "best": {"epoch": best, "acc": 0.5, "value": 0.5} if best else {},
    }
    return {
        "epoch": epochs - 1,
        "global_step": 10 * epochs,
        "callbacks": {"History": history},
        "state_dict": {"w": torch.tensor([epochs + 0.5 * within])},
        "optimizer_states": [],
        "loops": {"fit_loop": {"epoch_progress": {"current": current}}},
    }


def put(xp: Experiment, **files: Any) -> None:
    """best=3 holds epoch 3; last=(5, 3) is the end of epoch 5, the best is 3; "broken" is
    damaged."""
    paths = {
        "best": xp.best_checkpoint,
        "waiting": next_best(xp),
        "last": xp.last_checkpoint,
        "before": previous(xp.last_checkpoint),
    }
    for name, what in files.items():
        if what == "broken":
            paths[name].write_bytes(b"PK no zip")
        else:
            content = at_end(*what) if isinstance(what, tuple) else at_end(what, what)
            AtomicCheckpointIO().save_checkpoint(content, paths[name])


def taken_up(xp: Experiment) -> tuple[str, int | None, str]:
    """(from which file, the epoch of best.ckpt then, the warning); and that a second look finds the
    same."""
    resume = find_resume(xp)
    take_up(xp, resume)
    again = find_resume(xp)
    assert again.epoch == resume.epoch and again.best in (None, xp.best_checkpoint)
    assert not next_best(xp).exists()
    held = held_epoch(xp.best_checkpoint)
    if held:
        content = torch.load(xp.best_checkpoint, weights_only=True)
        assert content["state_dict"]["w"].item() == held and "loops" not in content
    return resume.checkpoint.name if resume.checkpoint else "", held, resume.warning


LOST = "so the weights of epoch 3, the best in last.ckpt, are lost"
CASES = [
    # what is there -> from which file, the epoch of best.ckpt, what is said
    ({}, ("", None, "")),
    ({"last": (5, 3), "best": 3}, ("last.ckpt", 3, "")),
    # killed in epoch 8, saved seldom
    ({"last": (5, 3), "best": 3, "waiting": 7}, ("last.ckpt", 3, "")),
    ({"last": (5, 5), "best": 3, "waiting": 5}, ("last.ckpt", 5, "")),  # killed between two files
    ({"last": (5, 5, True), "best": 3, "waiting": 5}, ("last.ckpt", 5, "")),
    (
        {"last": (5, 5), "best": 8},
        ("last.ckpt", 5, "best.ckpt is of epoch 8: written again from last.ckpt"),
    ),
    (
        {"last": (5, 5), "best": "broken"},
        ("last.ckpt", 5, "best.ckpt is damaged: written again from last.ckpt"),
    ),
    (
        {"last": (5, 4), "before": (4, 4)},
        ("last.ckpt", 4, "best.ckpt is missing: written again from previous.ckpt"),
    ),
    (
        {"last": (5, 3), "best": 8},
        ("last.ckpt", 8, "best.ckpt is of epoch 8, which is trained again"),
    ),
    (
        {"last": (5, 3), "before": (4, 3)},
        ("", None, f"best.ckpt is missing, {LOST}: starting anew"),
    ),
    (
        {"last": (5, 3), "before": (2, 2)},
        (
            "previous.ckpt",
            2,
            f"best.ckpt is missing, {LOST}: going on from the one before it; "
            "best.ckpt is missing: written again from previous.ckpt",
        ),
    ),
    (
        {"last": (5, 3), "before": (2, 0), "best": "broken"},
        ("previous.ckpt", None, f"best.ckpt is damaged, {LOST}: going on from the one before it"),
    ),
    (
        {"last": (5, 3, True), "before": (5, 3), "best": 4},
        ("", None, f"best.ckpt is of epoch 4, {LOST}: starting anew"),
    ),
    (
        {"last": "broken", "before": (4, 2), "best": 2},
        ("previous.ckpt", 2, "last.ckpt is damaged: going on from the one before it"),
    ),
    (
        {"last": "broken", "before": (4, 2), "best": 5},
        (
            "previous.ckpt",
            5,
            "last.ckpt is damaged: going on from the one before it; "
            "best.ckpt is of epoch 5, which is trained again",
        ),
    ),
    (
        {"before": (4, 2), "best": 2},
        ("previous.ckpt", 2, "last.ckpt is missing: going on from the one before it"),
    ),
    ({"last": "broken", "best": 4}, ("", None, "last.ckpt is damaged: starting anew")),
    ({"last": "broken", "before": "broken"}, ("", None, "last.ckpt is damaged: starting anew")),
    ({"best": 4, "waiting": 6}, ("", None, "")),  # killed before the first last.ckpt
    ({"last": (5, 0), "best": 4}, ("last.ckpt", None, "")),  # nothing was validated in what counts
]


@pytest.mark.parametrize("files, wanted", CASES, ids=[str(files) for files, _ in CASES])
def test_best_is_that_of_the_history_that_counts(
    files: dict[str, Any], wanted: Any, xp: Experiment
):
    put(xp, **files)
    assert taken_up(xp) == wanted


def test_what_is_not_used_is_kept_under_another_name_and_the_history_follows(xp: Experiment):
    put(xp, last=(5, 3), before=(2, 2))
    last = xp.last_checkpoint.read_bytes()
    xp.write_history([{}] * 7)
    half = xp.folder / ".last.ckpt.abc.tmp"
    half.touch()
    taken_up(xp)
    assert (xp.folder / "unused.last.ckpt").read_bytes() == last and not xp.last_checkpoint.exists()
    assert len(xp.history()) == 2 and previous(xp.last_checkpoint).exists() and not half.exists()


@pytest.mark.parametrize(
    "files, said",
    [
        ({"best": 8}, "best.ckpt is of epoch 8"),
        ({}, "best.ckpt is missing"),
        ({"best": "broken"}, "best.ckpt is damaged"),
    ],
)
def test_no_other_weights_are_tested_than_the_result_names(
    files: dict[str, Any], said: str, xp: Experiment
):
    put(xp, last=(9, 5), **files)
    with pytest.raises(UserError, match=f"{said}: the weights of epoch 5, the best, are lost."):
        weights_to_test(xp, {"epoch": 5, "value": 0.1})
    assert not find_resume(xp).content, "the next attempt does not come here again"
    put(xp, best=5)
    assert weights_to_test(xp, {"epoch": 5, "value": 0.1}) == xp.best_checkpoint
    assert weights_to_test(xp, {}) == xp.last_checkpoint, "no epoch is the best"


def test_what_a_checkpoint_of_before_does_not_know_it_counts_as_it_did(xp: Experiment):
    put(xp, last=(5, 0))
    assert (
        find_resume(xp).rule == 1 and find_resume(Experiment(xp.folder / "new")).rule == RULE == 3
    )


# --- writing ---


class Saving:
    """A trainer that writes an epoch's checkpoint: what `Checkpoints` asks of one."""

    def __init__(self, history: Any):
        self.history, self.written = history, []
        self.strategy = SimpleNamespace(barrier=lambda name: None)

    def save_checkpoint(self, path: Path) -> None:
        self.written.append(path.name)
        epochs = len(self.history.entries)
        AtomicCheckpointIO().save_checkpoint(at_end(epochs, self.history.best), path)


def test_a_new_best_waits_until_last_knows_of_it(xp: Experiment):
    """At any time, what is on disk belongs together: the best of three epochs, of which every
    second is saved."""
    history = SimpleNamespace(
        entries=[], epochs=0, best=0, improved=False, by_validation=False, gather=lambda: None
    )
    trainer: Any = Saving(history)
    room = Room(xp.folder, 0, print, Signals())
    checkpoints = Checkpoints(xp, history, True, 2, lambda: None, room)  # type: ignore[arg-type]
    seen = []
    for best in (1, 1, 3, 3, 3, 3, 7):
        history.entries.append({"valid": {"acc": 0.5}})
        history.improved, history.best = best == len(history.entries), best
        checkpoints.on_entry(trainer, None)  # type: ignore[arg-type]
        history.epochs += 1
        checkpoints.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        resume = find_resume(xp)
        assert not resume.warning and resume.best_entry.get("epoch", 0) == (
            held_epoch(xp.best_checkpoint) or 0
        )
        seen.append(resume.best_entry.get("epoch", 0))
    assert seen == [0, 1, 1, 3, 3, 3, 3] and trainer.written.count("best.next.ckpt") == 3
    checkpoints.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert held_epoch(xp.best_checkpoint) == 7 == held_epoch(xp.last_checkpoint)


def test_a_checkpoint_is_kept_where_a_file_has_no_second_name(
    xp: Experiment, monkeypatch: pytest.MonkeyPatch
):
    put(xp, last=(2, 2))

    def refused(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    keep_previous(xp.last_checkpoint)
    assert held_epoch(previous(xp.last_checkpoint)) == 2 and xp.last_checkpoint.exists()


def test_the_last_weights_stay_where_no_epoch_is_the_best(xp: Experiment):
    put(xp, last=(2, 0), before=(1, 0))
    (xp.folder / "unused.last.ckpt").touch()
    thin_out(xp, "best")
    assert [path.name for path in xp.folder.glob("*.ckpt")] == ["last.ckpt"]


@pytest.mark.parametrize(
    "error", [RuntimeError("the state of my optimizer is odd"), TypeError("cannot pickle it")]
)
def test_an_error_that_is_not_the_disks_is_a_bug(
    error: Exception, xp: Experiment, monkeypatch: pytest.MonkeyPatch
):
    def save(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(type(error), match=str(error)):
        AtomicCheckpointIO().save_checkpoint({}, xp.last_checkpoint)
    assert list(xp.folder.iterdir()) == [], "nothing half written is left"


@pytest.mark.parametrize(
    "number, hint", [(errno.ENOSPC, "free some space"), (errno.EIO, "remove the cause")]
)
def test_what_the_disk_says_is_said(
    number: int, hint: str, xp: Experiment, monkeypatch: pytest.MonkeyPatch
):
    """torch's writer raises a RuntimeError without the disk's number: the disk is asked once
    more."""

    def save(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("unexpected pos 640 vs 598")

    def fsync(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError) as refused:
        AtomicCheckpointIO().save_checkpoint({}, xp.last_checkpoint)
    assert os.strerror(number) in str(refused.value) and hint in str(refused.value)


# --- what a module puts into a checkpoint ---


def test_python_objects_are_read_by_the_run_that_wrote_them(xp: Experiment):
    """Reading them runs code: nobody else's file is trusted with that."""
    content = at_end(5, 3) | {"found": Fraction(1, 3)}
    torch.save(content, xp.last_checkpoint)
    torch.save(at_end(3, 3), xp.best_checkpoint)
    resume = find_resume(xp)
    assert resume.content["found"] == Fraction(1, 3) and not resume.warning
    assert resume.holds_objects and holds_objects(xp.last_checkpoint)
    assert read_checkpoint(xp.last_checkpoint) is None and held_epoch(xp.last_checkpoint) is None
    assert not holds_objects(xp.best_checkpoint) and not holds_objects(xp.folder / "none")


class Gone:
    """Removed, before the checkpoint that holds one is read."""


def test_a_class_that_is_gone_is_no_damage(xp: Experiment, monkeypatch: pytest.MonkeyPatch):
    torch.save(at_end(5, 3) | {"found": Gone()}, xp.last_checkpoint)
    monkeypatch.delattr(f"{__name__}.Gone")
    with pytest.raises(
        UserError, match="last.ckpt is whole, but what it holds cannot be made here"
    ):
        find_resume(xp)
    assert xp.last_checkpoint.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a file to another user, run as root")
def test_objects_in_a_file_of_another_user_are_not_read(xp: Experiment):
    torch.save(at_end(5, 3) | {"found": Fraction(1, 3)}, xp.last_checkpoint)
    os.chown(xp.last_checkpoint, 12345, -1)
    assert read_checkpoint(xp.last_checkpoint, own=True) is None


def test_networks_among_the_hyper_parameters_are_not_saved(xp: Experiment):
    hyper = {"lr": 0.1, "net": torch.nn.Linear(1, 1), "sizes": [1, 2], "of": {"a": Fraction(1, 3)}}
    for path in (xp.last_checkpoint, xp.best_checkpoint):
        AtomicCheckpointIO().save_checkpoint(at_end(3, 3) | {"hyper_parameters": hyper}, path)
        content = torch.load(path, weights_only=True)
        assert content["hyper_parameters"] == {"lr": 0.1, "sizes": [1, 2]}


def test_best_is_plain_whatever_the_module_saves(xp: Experiment):
    content = at_end(3, 3) | {"found": Fraction(1, 3), "plain": {"a": (1, "b", None)}}
    AtomicCheckpointIO().save_checkpoint(content, xp.best_checkpoint)
    AtomicCheckpointIO().save_checkpoint(content, xp.last_checkpoint)
    assert torch.load(xp.best_checkpoint, weights_only=True)["plain"] == {"a": (1, "b", None)}
    assert holds_objects(xp.last_checkpoint), "a resume needs all of it"
