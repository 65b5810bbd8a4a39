"""Killed anywhere, any number of times: the same bits as the run that nobody disturbed.

Random kills and kills at every kind of point, on the real `dora run`. `make chaos` makes hundreds
of them: DORA_TRAIN_CHAOS=N. What fails names the seed of its kill points; when exactly a kill came,
only its clock knew.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from data_files import write_image_folder
from forked import Fault, Run
from project import Project, stored

from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State
from dora_train.engine.run.checkpoints import previous

CHAOS = int(os.environ.get("DORA_TRAIN_CHAOS", "0"))
SEED = int(os.environ.get("DORA_TRAIN_SEED", "0")) or random.randrange(10**6)
TINY = [
    "threads=1",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.limit_train_batches=5",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]
EVERY_STEP = "checkpoint.every_minutes=0.000001"  # a checkpoint at each step
FILES = [
    "data=image_folder",
    "data.root={images}",
    "data.image_size=16",
    "data.crop=2",
    "data.batch_size=8",
    "data.max_gb=0",
]  # too large to be packed: decoded anew in each epoch
VARIANTS = {
    "momentum, cosine, augmentation": [],
    "within the epoch": [EVERY_STEP],
    "adam, constant": ["optim.name=adam", "optim.lr=0.002", "schedule.name=none", EVERY_STEP],
    "adamw, warm-up alone": [
        "optim.name=adamw",
        "optim.lr=0.002",
        "schedule.name=none",
        "schedule.warmup_epochs=2.5",
    ],
    "accumulation": [
        "trainer.accumulate_grad_batches=2",
        EVERY_STEP,
        "trainer.gradient_clip_val=1.0",
    ],
    "max_steps": ["trainer.max_steps=13", "trainer.max_epochs=-1", EVERY_STEP],
    "accumulation over the end": [
        "trainer.accumulate_grad_batches=3",
        "trainer.max_steps=7",
        EVERY_STEP,
    ],
    "seldom validated": ["trainer.check_val_every_n_epoch=2", EVERY_STEP],
    "seldom saved": ["checkpoint.every_epochs=3", "trainer.max_epochs=5"],
    "seldom both": [
        "checkpoint.every_epochs=3",
        "trainer.check_val_every_n_epoch=2",
        "trainer.max_epochs=5",
        "checkpoint.keep=last",
    ],
    "dropout": ["seed=3", EVERY_STEP],
    "averaged weights": ["ema.decay=0.8", EVERY_STEP, "trainer.accumulate_grad_batches=2"],
    "averaged weights, seldom saved": [
        "ema.decay=0.8",
        "checkpoint.every_epochs=3",
        "loss.label_smoothing=0.1",
    ],
    "plateau": [
        "schedule.name=plateau",
        "schedule.patience=0",
        "schedule.factor=0.5",
        "optim.lr=0.001",
        EVERY_STEP,
    ],
    "onecycle, stopped early": [
        "schedule.name=onecycle",
        "early_stopping.patience=2",
        "trainer.max_epochs=8",
        EVERY_STEP,
    ],
    "stopped early, seldom saved": [
        "early_stopping.patience=1",
        "checkpoint.every_epochs=3",
        "optim.lr=0.0001",
    ],
    "held back by min_epochs": [
        "+trainer.min_epochs=6",
        "early_stopping.patience=1",
        "trainer.max_epochs=9",
        # the second epoch stands still, the others improve
        "optim.lr=0.01",
        EVERY_STEP,
    ],
    "held back by min_steps": [
        "+trainer.min_steps=13",
        "early_stopping.patience=1",
        "optim.lr=0.0001",
        EVERY_STEP,
    ],
    "validated within the epoch": ["+trainer.val_check_interval=2", EVERY_STEP],
    "validated within the epoch, averaged": [
        "+trainer.val_check_interval=3",
        "ema.decay=0.8",
        EVERY_STEP,
    ],
    "validated by steps": [
        "trainer.check_val_every_n_epoch=null",
        "+trainer.val_check_interval=7",
        "trainer.max_epochs=-1",
        "trainer.max_steps=30",
        EVERY_STEP,
    ],
    "validated between the batches of a step": [
        "+trainer.val_check_interval=3",
        "trainer.accumulate_grad_batches=2",
        EVERY_STEP,
    ],
    "float64": ["trainer.precision=64-true", EVERY_STEP],
    "the same batches": ["trainer.overfit_batches=2", EVERY_STEP],
    "a DataLoader": [*FILES, "data.num_workers=0", EVERY_STEP],
    "a DataLoader with two workers": [*FILES, "data.num_workers=2", EVERY_STEP],
}
HEAD = "nn.Flatten()"
STEP = "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:"
EVAL_STEP = "def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:"
TEST_STEP = "def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:"
POINTS: dict[str, Fault] = {
    "in a batch": ("train", 8),
    "in the first batch": ("train", 1),
    "in the last batch": ("train", 20),
    "in validation": ("eval", 5),
    "in the sanity check": ("eval", 1),
    "in the test": ("eval", 12),
    "in the first checkpoint": ("torch.save", 1),
    "in best.ckpt": ("torch.save", 3),
    "in last.ckpt": ("torch.save", 4),
    "in TensorBoard's file": ("events", 12),
}

pytestmark = pytest.mark.slow


# --- what is compared ---


def same(one: Experiment, other: Experiment) -> None:
    """Bit for bit: weights, optimizer, history, result, what best.ckpt and TensorBoard and CSV
    hold."""
    assert one.history() == other.history()
    assert one.result() == other.result()
    for name in ("last.ckpt", "best.ckpt"):
        mine, theirs = checkpoint(one.folder / name), checkpoint(other.folder / name)
        for key in (
            "state_dict",
            "current_model_state",
            "averaging_state",
            "optimizer_states",
            "epoch",
            "global_step",
        ):
            assert equal(mine.get(key), theirs.get(key)), f"{key} of {name}"
    assert one.metrics_csv.read_bytes() == other.metrics_csv.read_bytes()
    assert scalars(one) == scalars(other)


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def equal(one: Any, other: Any) -> bool:
    """Whether nested dicts and lists of tensors and numbers are the same."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def scalars(xp: Experiment) -> dict[str, list[tuple[int, float]]]:
    """All that TensorBoard shows, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(xp.folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


# --- undisturbed runs, made once ---


class References:
    """A project for each variant, and its undisturbed run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[tuple[str, ...], tuple[Experiment, float]] = {}
        self.dropout = Project.copy(folder / "dropout")
        self.dropout.edit("dora_train/model.py", HEAD, f"{HEAD}, nn.Dropout(0.3)")
        write_image_folder(
            folder / "images", {"train": {"cat": 25, "dog": 25}, "valid": {"cat": 9, "dog": 9}}
        )

    def args(self, name: str) -> list[str]:
        return TINY + [word.format(images=self.folder / "images") for word in VARIANTS[name]]

    def project(self, name: str, out: Path) -> Project:
        return Project(out, self.dropout.root if name == "dropout" else Project(out).root)

    def run(self, name: str, args: list[str]) -> tuple[Experiment, float]:
        """(the experiment, seconds from its claim to its end)."""
        key = (name, *args)
        if key not in self.known:
            project = self.project(name, self.folder / f"undisturbed {len(self.known)}")
            finish(project, args)
            state = project.xp.state()
            assert state.ended and state.started
            self.known[key] = project.xp, state.ended - state.started
        return self.known[key]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(tmp_path_factory.mktemp("references"))


def finish(project: Project, args: list[str]) -> str:
    run = Run(project, "run", *args)
    assert run.wait() == 0, run.text
    return run.text


def attempts(project: Project) -> int:
    return sum(
        path.stem.isdigit() for xp in project.experiments() for path in xp.attempts.glob("*.json")
    )


def is_finished(project: Project) -> bool:
    return any(xp.state().state is State.COMPLETED for xp in project.experiments())


def killed_at_random(
    project: Project, args: list[str], delay: float, signum: int = signal.SIGKILL
) -> bool:
    """Whether a kill, `delay` seconds after the run's claim, hit a living process with work
    left."""
    before = attempts(project)
    run = Run(project, "run", *args)
    deadline = time.monotonic() + 120
    while attempts(project) == before and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    sent = run.kill(signum)
    code = run.wait()
    if code == 0 or (signum == signal.SIGKILL and is_finished(project)):  # a moment too late
        assert is_finished(project), run.text
        return False
    assert sent and not is_finished(project), run.text
    assert code == (-9 if signum == signal.SIGKILL else 128 + signum), run.text
    return True


def killed_by(fault: Fault, project: Project, args: list[str]) -> None:
    """A run that ends itself at a point, with work left."""
    run = Run(project, "run", *args, fault=fault)
    assert run.wait() == -9 and not is_finished(project), run.text


# --- kills ---


@pytest.mark.parametrize("name", VARIANTS)
def test_random_kills(name: str, references: References, tmp_path: Path):
    args = references.args(name)
    reference, seconds = references.run(name, args)
    draws = random.Random(f"{SEED} {name}")
    wanted, hits, rounds = -(-CHAOS // len(VARIANTS)) if CHAOS else 2, 0, 0
    while hits < wanted:
        project = references.project(name, tmp_path / f"outputs {rounds}")
        rounds += 1
        while hits < wanted:
            signum = draws.choice([signal.SIGKILL] * 3 + [signal.SIGTERM, signal.SIGUSR2])
            if not killed_at_random(project, args, draws.uniform(0, seconds), signum):
                break
            hits += 1
        finish(project, args)
        try:
            same(project.xp, reference)
        except AssertionError as error:
            raise AssertionError(
                f"after {hits} kills with DORA_TRAIN_SEED={SEED}, in {project.xp.folder}"
            ) from error
        shutil.rmtree(project.out)


@pytest.mark.parametrize("point", POINTS)
def test_killed(point: str, references: References, project: Project):
    killed_by(POINTS[point], project, TINY)
    finish(project, TINY)
    same(project.xp, references.run("", TINY)[0])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run(signum: int, references: References, project: Project):
    """SLURM signals each process of a job, a terminal each of its group: a loader's workers must
    outlive it."""
    name = "a DataLoader with two workers"
    args = references.args(name)
    run = Run(project, "run", *args)
    deadline = time.monotonic() + 60
    while not (
        project.experiments()
        and (workers := run.children())
        and project.xp.last_checkpoint.exists()
    ):
        assert run.poll() is None and time.monotonic() < deadline, run.text
        time.sleep(0.002)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.send_signal(signum)
    time.sleep(0.02)  # the run must not have been told to leave before a worker could die of it
    assert run.kill(signum) and run.wait() == 128 + signum, run.text
    assert project.xp.state().state is State.INTERRUPTED, project.xp.state().cause
    finish(project, args)
    same(project.xp, references.run(name, args)[0])


@pytest.mark.parametrize(
    "name", ["momentum, cosine, augmentation", "averaged weights", "a DataLoader with two workers"]
)
def test_signalled_in_validation(name: str, references: References, project: Project):
    """Nothing that was trained is trained again: the next attempt begins with that validation.

    With workers: those of the training wait for more to do, and must not be waited for.
    """
    args = references.args(name)
    run = Run(project, "run", *args, fault=("eval", 5, signal.SIGTERM))
    assert run.wait() == 143, run.text
    assert "resumed at epoch 2, its validation" in finish(project, args)
    same(project.xp, references.run(name, args)[0])


def test_a_failure_with_workers_leaves(copy: Project, references: References):
    """In the batches themselves, whose workers the traceback holds."""
    copy.edit(
        "dora_train/data/batches.py",
        "pixels = self.augmentation.moved(",
        "raise ValueError('no'); (",
    )
    run = Run(copy, "run", *references.args("a DataLoader with two workers"))
    assert run.wait(60) == 1 and "ValueError: no" in run.text, run.text
    assert copy.xp.state().cause == "ValueError: no"


def test_killed_in_validation_after_a_checkpoint_within_it(
    references: References, project: Project
):
    args = [*TINY, EVERY_STEP]
    killed_by(("eval", 6), project, args)
    assert "resumed at epoch 2, its validation" in finish(project, args)
    same(project.xp, references.run("", args)[0])


@pytest.mark.parametrize(
    "name, fault",
    [
        # after a checkpoint within a validation, when the module holds the average
        ("averaged weights", ("eval", 6)),
        ("averaged weights", ("train", 9)),
        ("plateau", ("train", 16)),
        ("stopped early, seldom saved", ("eval", 7)),  # in the test: nothing is left to train
        # patience ended epochs ago, and the last epoch was better
        ("held back by min_epochs", ("train", 29)),
        ("held back by min_steps", ("train", 13)),  # the step after which it may stop
        # in the last one of an epoch, before it has a checkpoint
        ("validated within the epoch", ("eval", 5)),
        ("validated within the epoch, averaged", ("train", 5)),  # none follows in this epoch
        # their gradients are in no checkpoint
        ("validated between the batches of a step", ("eval", 4)),
        ("float64", ("train", 12)),
    ],
)
def test_killed_where_a_feature_could_forget(
    name: str, fault: Fault, references: References, project: Project
):
    args = references.args(name)
    killed_by(fault, project, args)
    finish(project, args)
    same(project.xp, references.run(name, args)[0])


def test_what_a_callback_of_the_users_decided_is_decided(copy: Project, tmp_path: Path):
    """In epoch 2, put off by min_epochs to the end of epoch 3, and killed in the test: nothing is
    left to train."""
    copy.edit(
        "dora_train/module.py",
        "    def forward(",
        """    def configure_callbacks(self):
        def decide(trainer, module):
            trainer.should_stop = trainer.should_stop or trainer.current_epoch == 1
        return [pl.callbacks.LambdaCallback(on_train_epoch_end=decide)]

    def forward(""",
    )
    whole, args = Project(tmp_path / "whole", copy.root), [*TINY, "+trainer.min_epochs=3"]
    finish(whole, args)
    assert len(whole.xp.history()) == 3
    killed_by(("eval", 9), copy, args)
    finish(copy, args)
    same(copy.xp, whole.xp)


@pytest.mark.parametrize("fault", [("train", 6), ("torch.save", 8)])
def test_killed_after_an_epochs_end_where_steps_are_limited(
    fault: Fault, references: References, project: Project
):
    """Lightning takes that checkpoint for one within the epoch, and would add an empty entry."""
    args = references.args("accumulation over the end")
    killed_by(fault, project, args)
    finish(project, args)
    same(project.xp, references.run("accumulation over the end", args)[0])


# --- best.ckpt ---

SELDOM = [*TINY, "checkpoint.every_epochs=3", "trainer.max_epochs=7"]


def test_best_is_of_the_history_that_counts_whatever_the_next_attempt_finds(copy: Project):
    """Killed in epoch 6 with epoch 3 saved; then each epoch is worse than the third, and so are 4
    and 5 done again."""
    killed_by(("train", 28), copy, SELDOM)
    assert len(copy.xp.history()) == 5 and checkpoint(copy.xp.last_checkpoint)["epoch"] == 2
    copy.edit(
        "dora_train/module.py",
        EVAL_STEP,
        f"{EVAL_STEP}\n        if self.trainer.validating:\n"
        "            batch = batch[0], (batch[1] + 5) % 10",
    )
    finish(copy, SELDOM)
    result = copy.xp.result()
    assert result and result["best"]["epoch"] == 3
    assert checkpoint(copy.xp.best_checkpoint)["epoch"] == 2, (
        "the epoch that the result names, from 0"
    )
    assert result["test"] == measured(copy), "the weights that it names are those that were tested"


def measured(project: Project) -> dict[str, float]:
    """The test set on best.ckpt, with the weights taken by hand."""
    from dora_train.data import load_data
    from dora_train.engine.run.history import Averages
    from dora_train.model import build_model
    from dora_train.module import Classifier

    birth = project.xp.birth()
    assert birth is not None
    data = load_data(**birth.config["data"])
    module = Classifier(
        build_model("small", 10, 8),
        birth.config["optim"],
        birth.config["schedule"],
        {"label_smoothing": 0.0},
    ).eval()
    module.load_state_dict(checkpoint(project.xp.best_checkpoint)["state_dict"])
    averages, threads = Averages(), torch.get_num_threads()
    torch.set_num_threads(birth.threads)
    for number, batch in zip(range(2), data.test.epoch()):
        with torch.no_grad():
            averages.add(module.test_step(batch, number), len(batch[1]))
    torch.set_num_threads(threads)
    return averages.means(1)


@pytest.mark.parametrize(
    "name, fault, how, said",
    [
        ("", ("train", 13), "missing", "written again from last.ckpt"),
        ("", ("train", 13), "flipped", "written again from last.ckpt"),
        # in the test: its epoch is past
        ("stopped early, seldom saved", ("eval", 7), "truncated", "starting anew"),
        (
            "averaged weights",
            ("train", 13),
            "missing",
            "starting anew",
        ),  # no file has that epoch's end
    ],
)
def test_a_best_checkpoint_that_is_lost(
    name: str, fault: Fault, how: str, said: str, references: References, project: Project
):
    """It is written again from what holds the same weights, else trained again; in each case it is
    said."""
    args = references.args(name) if name else TINY
    killed_by(fault, project, args)
    xp = project.xp
    if how == "missing":
        xp.best_checkpoint.unlink()
    else:
        damaged(xp.best_checkpoint, how)
    output = finish(project, args)
    assert (
        f"warning: best.ckpt is {'missing' if how == 'missing' else 'damaged'}" in output
        and said in output
    )
    same(xp, references.run(name, args)[0])


def test_a_best_checkpoint_that_goes_while_it_trains(copy: Project, tmp_path: Path):
    """Nothing else is tested in its place; the same command trains it again."""
    whole, args = Project(tmp_path / "whole", copy.root), [*TINY, "optim.lr=0.00001", "seed=1"]
    finish(whole, args)
    assert checkpoint(whole.xp.best_checkpoint)["epoch"] < 3
    hook = (
        "    def on_validation_epoch_end(self):\n        import glob, os\n        if self.current_epoch == 3:\n"
        "            [os.remove(path) for path in glob.glob(f'{self.trainer.default_root_dir}/best*')]\n\n"
    )
    copy.edit("dora_train/module.py", "    def forward(", f"{hook}    def forward(")
    run = Run(copy, "run", *args)
    assert run.wait() == 1 and "best.ckpt is missing: the weights of epoch" in run.text, run.text
    assert copy.xp.result() is None and copy.xp.state().state is State.FAILED
    copy.edit("dora_train/module.py", hook, "")
    assert "starting anew" in finish(copy, args)
    same(copy.xp, whole.xp)


def writes(references: References, project: Project, args: list[str]) -> int:
    """How often a whole run changes a file or a folder."""
    run = Run(project, "run", *args, fault=("count", 0))
    assert run.wait() == 0, run.text
    return int(re.findall(r"write=(\d+)", Path(f"{run.output}.counts").read_text())[0])


def test_killed_before_any_change_on_disk(references: References, tmp_path: Path):
    """Before each of them with `make chaos`; else before some, drawn anew each time, and before the
    last two."""
    args = [*TINY, "trainer.max_epochs=2"]
    total = writes(references, Project(tmp_path / "count"), args)
    assert total > 50
    draws = random.Random(f"{SEED} writes")
    some = {*draws.sample(range(1, total - 1), CHAOS // 10 or 5), total - 1, total}
    for number in range(1, total + 1) if CHAOS > 500 else sorted(some):
        project = Project(tmp_path / f"write {number}")
        run = Run(project, "run", *args, fault=("write", number))
        assert run.wait() == -9, run.text
        assert not is_finished(project) or project.xp.result(), "finished, and no result"
        finish(project, args)
        same(project.xp, references.run("", args)[0])
        assert project.xp.argv(), f"DORA_TRAIN_SEED={SEED}, write {number}"
        assert not list(project.xp.folder.glob(".*.ckpt.*.tmp")), (
            "what a kill left half written is swept up"
        )
        shutil.rmtree(project.out)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_killed_in_the_first_second(signum: int, references: References, project: Project):
    """The real command, while Python still imports."""
    process = project.start("dora", "run", *TINY)
    time.sleep(random.Random(SEED).uniform(0.05, 1))
    assert process.poll() is None
    process.send_signal(signum)
    output = process.communicate(timeout=60)[0]
    assert process.returncode not in (0, None), output
    assert not is_finished(project)
    finish(project, TINY)
    same(project.xp, references.run("", TINY)[0])


def test_an_unseeded_draw_is_seen(copy: Project, tmp_path: Path):
    """The comparison above can fail: a draw of a generator that the steps share is the same in each
    whole run, and another one where an attempt began in between."""
    copy.edit(
        "dora_train/module.py",
        "class Classifier(",
        "import torch\nDRAWS = torch.Generator().manual_seed(0)\n\nclass Classifier(",
    )
    copy.edit(
        "dora_train/module.py",
        STEP,
        f"{STEP}\n        noise = torch.rand((), generator=DRAWS)\n"
        "        batch = batch[0] + noise, batch[1]",
    )
    whole, again = (Project(tmp_path / name, copy.root) for name in ("whole", "again"))
    for project in (whole, again):
        finish(project, TINY)
    same(again.xp, whole.xp)
    killed_by(("train", 12), copy, TINY)
    finish(copy, TINY)
    with pytest.raises(AssertionError):
        same(copy.xp, whole.xp)


@pytest.mark.parametrize(
    "step, fault",
    [
        (STEP, ("train", 12)),
        (EVAL_STEP, ("eval", 6)),  # after a checkpoint within the validation
        (TEST_STEP, ("eval", 12)),  # in the test: nothing is left to train
    ],
    ids=["train", "valid", "test"],
)
def test_what_a_step_draws_by_itself_is_seeded(
    step: str, fault: Fault, copy: Project, tmp_path: Path
):
    """Mixing images, say, from any of the global generators."""
    copy.edit(
        "dora_train/module.py",
        step,
        f"{step}\n        import random, numpy, torch\n"
        "        noise = random.random() + numpy.random.rand() + float(torch.rand(()))\n"
        "        batch = batch[0] + noise, batch[1]",
    )
    whole, args = Project(tmp_path / "whole", copy.root), [*TINY, EVERY_STEP]
    finish(whole, args)
    killed_by(fault, copy, args)
    finish(copy, args)
    same(copy.xp, whole.xp)


# --- two ranks ---

TWO = ["run", "-d", "--ddp_workers", "2", *TINY, EVERY_STEP]


def ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The ranks, in their order."""
    found = [child for child in psutil.Process(process.pid).children() if "RANK" in child.environ()]
    return sorted(found, key=lambda child: child.environ()["RANK"])


def ranks_up(process: subprocess.Popen) -> list[psutil.Process]:
    """Both ranks, once their handlers are installed (before that a signal simply ends them)."""
    deadline = time.monotonic() + 180  # two cold starts beside other tests
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(psutil.Error):
            ranks = ranks_of(process)
            if len(ranks) == 2 and all(catches(rank, signal.SIGTERM) for rank in ranks):
                return ranks
        time.sleep(0.01)
    raise AssertionError(process.communicate()[0])


def catches(process: psutil.Process, signum: int) -> bool:
    mask = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return bool(mask) and bool(int(mask[0], 16) >> (signum - 1) & 1)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    project = Project(tmp_path_factory.mktemp("two") / "outputs")
    project.dora(*TWO)
    return project.xp


def test_two_ranks_survive_what_befalls_one(project: Project, two_ranks: Experiment):
    """One after the other: a signal to one rank before they have met, and kills of one
    (and of both, by make chaos)."""
    process = project.start("dora", *TWO)
    ranks_up(process)[1].send_signal(signal.SIGTERM)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 143, output
    assert project.xp.state().state is State.INTERRUPTED, (
        "the ranks agreed, and none was left waiting"
    )
    for victims in [[1], [0, 1]] if CHAOS else [[1]]:
        process = project.start("dora", *TWO)
        ranks = ranks_up(process)
        before = changed(project.xp.last_checkpoint)
        while changed(project.xp.last_checkpoint) == before:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        for rank in victims:
            ranks[rank].kill()
        output = process.communicate(timeout=60)[0]
        assert process.returncode not in (0, None) and not is_finished(project), output
        assert project.xp.state().state is not State.FAILED, (
            f"a rank that was killed is an accident:\n{output}"
        )
        assert "Traceback" not in output
    project.dora(*TWO)
    same(project.xp, two_ranks)


def changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_rank_that_fails_is_the_cause(copy: Project):
    copy.edit(
        "dora_train/module.py",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:\n"
        "        if self.global_rank == 1 and batch_idx: raise ValueError('only here')",
    )
    copy.dora(*TWO, code=None)
    assert copy.xp.state().state is State.FAILED
    assert copy.xp.state().cause == "rank 1: ValueError: only here"


def test_two_copies_at_once_do_not_meet(project: Project, tmp_path: Path, two_ranks: Experiment):
    other = Project(tmp_path / "elsewhere")
    processes = [each.start("dora", *TWO) for each in (project, other)]
    for process in processes:
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 0, output
    same(project.xp, two_ranks)
    same(other.xp, two_ranks)


# --- what is kept ---


@pytest.mark.parametrize(
    "keep, left",
    [("all", {"best", "last", "previous"}), ("last", {"best", "last"}), ("best", {"best"})],
)
def test_what_a_finished_run_keeps(
    keep: str, left: set[str], project: Project, references: References
):
    killed_by(("train", 13), project, [*TINY, f"checkpoint.keep={keep}"])
    assert {path.stem for path in project.xp.folder.glob("*.ckpt")} == {
        "best",
        "last",
        "previous",
    }, "until it is"
    finish(project, [*TINY, f"checkpoint.keep={keep}"])
    assert {path.stem for path in project.xp.folder.glob("*.ckpt")} == left
    assert project.xp.result() == references.run("", TINY)[0].result()
    assert "nothing to do" in finish(project, TINY)


def test_the_first_line_names_the_epoch_of_the_checkpoint(project: Project):
    """Not that which the attempt before had reached."""
    args = [*TINY, "checkpoint.every_epochs=3", "trainer.max_epochs=5"]
    killed_by(("train", 23), project, args)
    assert project.xp.state().epoch == 4
    assert "resumes at epoch 4 (attempt 2)" in finish(project, args)


# --- damage ---


def interrupted(project: Project, args: list[str] = TINY) -> Experiment:
    """An experiment killed in its third epoch, with a last checkpoint and one before it."""
    killed_by(("train", 13), project, args)
    assert previous(project.xp.last_checkpoint).exists()
    return project.xp


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    how: str, project: Project, references: References
):
    xp = interrupted(project)
    whole = previous(xp.last_checkpoint).read_bytes()
    damaged(xp.last_checkpoint, how)
    content = xp.last_checkpoint.read_bytes()
    killed_by(("torch.save", 2), project, TINY)  # before another is whole, killed again
    assert previous(xp.last_checkpoint).read_bytes() == whole, "the only whole one stays"
    assert content in [path.read_bytes() for path in xp.folder.glob("*.ckpt*")], (
        "nothing is deleted"
    )
    log = (xp.folder / "train.log").read_text()
    assert "going on from the one before it" in log and "resumes at epoch 2 (attempt 2" in log
    finish(project, TINY)
    same(xp, references.run("", TINY)[0])


def test_both_checkpoints_damaged_starts_anew(project: Project, references: References):
    xp = interrupted(project)
    damaged(xp.last_checkpoint, "truncated")
    damaged(previous(xp.last_checkpoint), "flipped")
    said = finish(project, TINY)
    assert "starting anew" in said and "new (attempt 2)" in said
    same(xp, references.run("", TINY)[0])


def test_no_flipped_bit_goes_unseen(project: Project, tmp_path: Path):
    """A file with one bit flipped is refused, or holds the same: never a traceback, never other
    weights."""
    from dora_train.engine.experiment.checkpoint import read_checkpoint

    whole = checkpoint(interrupted(project).last_checkpoint)
    content = project.xp.last_checkpoint.read_bytes()
    draws = random.Random(SEED)
    path = tmp_path / "flipped.ckpt"
    # the directory of the archive
    ends = [len(content) - 1 - draws.randrange(4000) for _ in range(100)]
    for place in [*ends, *(draws.randrange(len(content)) for _ in range(100))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << draws.randrange(8)
        path.write_bytes(bytes(flipped))
        read = read_checkpoint(path)
        assert read is None or equal(read["state_dict"], whole["state_dict"]), f"byte {place}"


def test_a_part_that_claims_to_be_a_folder_is_damage(project: Project, tmp_path: Path):
    """torch would read nothing for it, and say nothing."""
    from dora_train.engine.files import is_whole

    whole = interrupted(project).last_checkpoint
    content = bytearray(whole.read_bytes())
    assert is_whole(whole)
    content[content.rindex(b"PK\x01\x02") + 38] ^= 0x10  # the attributes, in the zip's directory
    flipped = tmp_path / "flipped.ckpt"
    flipped.write_bytes(bytes(content))
    assert not is_whole(flipped)


@pytest.mark.parametrize("content", ["", '[{"train": {"lo', "{}", "null"])
def test_a_corrupt_history_comes_back_from_the_checkpoint(
    content: str, project: Project, references: References
):
    xp = interrupted(project)
    (xp.folder / "history.json").write_text(content)
    assert "warning: history.json is damaged" in finish(project, TINY)
    same(xp, references.run("", TINY)[0])


def full_disk(project: Project, args: list[str], folder: Path) -> str:
    """A run that meets the end of the disk leaves one clear line; `folder` has room for what it
    prints."""
    run = Run(project, "run", *args, folder=folder)
    code = run.wait()
    text = run.text
    assert code not in (0, -9), text
    assert "Traceback" not in text and "Logging error" not in text, text
    assert text.count("cannot write") == 1 and "free some space" in text, text
    assert not is_finished(project)
    return text


def test_a_file_that_may_not_grow(references: References, tmp_path: Path):
    """What needs no root: a limit on the size of a file, which meets the checkpoint alone."""
    project = Project.copy(tmp_path)
    xp = interrupted(project)
    content = xp.last_checkpoint.read_bytes()
    signals = project.root / "dora_train" / "engine" / "run" / "signals.py"
    text = signals.read_text()
    limits = f"({len(content) // 2}, {resource.RLIM_INFINITY})"
    signals.write_text(
        f"{text}\nimport resource; resource.setrlimit(resource.RLIMIT_FSIZE, {limits})\n"
    )
    full_disk(project, TINY, tmp_path)
    assert xp.last_checkpoint.read_bytes() == content
    signals.write_text(text)
    finish(project, TINY)
    same(xp, references.run("", TINY)[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode:
        pytest.skip("a small disk needs root: mount -t tmpfs was refused")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left", [0, 100_000])
def test_a_full_disk(left: int, small_disk: Path, references: References):
    """Nothing can be written at all, or a line of text can and a checkpoint cannot."""
    project = Project(small_disk / "outputs")
    xp = interrupted(project)
    content = xp.last_checkpoint.read_bytes()
    ballast = small_disk / "ballast"
    room = shutil.disk_usage(small_disk).free - left
    with contextlib.suppress(OSError), open(ballast, "wb") as file:
        file.write(bytes(max(0, room)))
    full_disk(project, TINY, small_disk.parent)
    assert xp.last_checkpoint.read_bytes() == content, "the old one stays"
    ballast.unlink()
    finish(project, TINY)
    same(xp, references.run("", TINY)[0])


def test_it_waits_for_room(small_disk: Path, references: References):
    """With DORA_DISK_WAIT, the run itself goes on, and ends with the same bits."""
    project = Project(small_disk / "outputs", env={"DORA_DISK_WAIT": "5"})
    interrupted(project)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))
    run = Run(project, "run", *TINY, folder=small_disk.parent)
    deadline = time.monotonic() + 120
    waits = "Waiting for up to 5 minutes (DORA_DISK_WAIT)"
    while not (run.output.exists() and waits in run.text):
        assert run.poll() is None and time.monotonic() < deadline, run.text
        time.sleep(0.05)
    ballast.unlink()
    assert run.wait() == 0 and "the run goes on" in run.text, run.text
    same(project.xp, references.run("", TINY)[0])
    assert project.xp.state().attempt == 2, "one start after the interruption"


@pytest.mark.parametrize("how", ["a signal", "the time"])
def test_epochs_of_one_batch_are_saved_between_two_checkpoints(how: str, project: Project):
    """`checkpoint.every_epochs=100`: each batch is the last one of its epoch."""
    args = [
        *TINY,
        "trainer.limit_train_batches=1",
        "trainer.max_epochs=8",
        "checkpoint.every_epochs=100",
        "trainer.check_val_every_n_epoch=100",
    ]
    if how == "the time":
        args.append(EVERY_STEP)
    run = Run(project, "run", *args, fault=("step", 5, signal.SIGTERM if how == "a signal" else 9))
    assert run.wait() != 0 and project.xp.last_checkpoint.exists(), run.text
    place = "resumed at epoch 6" if how == "a signal" else "resumed at epoch 5"
    assert place in finish(project, args)


# --- moved ---


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_moved_to_another_folder(
    how: Any, project: Project, references: References, tmp_path: Path
):
    interrupted(project)
    moved = Project(tmp_path / "another place, ä" / "outputs")
    moved.out.parent.mkdir()
    how(project.out, moved.out)
    output = finish(moved, TINY)
    assert "resumed at epoch 3" in output and "floating point" not in output
    same(moved.xp, references.run("", TINY)[0])


def test_where_the_clock_is_behind(project: Project, references: References):
    """TensorBoard reads files by the second of their start; twice, since an order that was mended
    must last."""
    for fault in (("train", 8), ("train", 8)):
        killed_by(fault, project, TINY)
        for path in project.xp.folder.glob("events.out.tfevents.*"):
            *head, second, rest = path.name.split(".", 4)
            path.rename(path.with_name(".".join([*head, str(int(second) + 1000), rest])))
    finish(project, TINY)
    same(project.xp, references.run("", TINY)[0])


def test_another_number_of_workers(project: Project, references: References):
    """From none to two, in the middle of an epoch, and back."""
    none, two = references.args("a DataLoader"), references.args("a DataLoader with two workers")
    for number, args in enumerate((none, two)):
        killed_by(("train", 8 - number), project, args)
    finish(project, none)
    same(project.xp, references.run("a DataLoader", none)[0])


@pytest.mark.parametrize(
    "stored, words",
    [
        ({"ranks": 1, "device": "cuda"}, "on cpu now, on cuda before"),
        ({"ranks": 2, "device": "cpu"}, "1 ranks now, 2 before"),
        ({"ranks": 1, "device": "cpu"}, ""),
        ({}, ""),
    ],
)
def test_another_device_is_said(stored: dict[str, Any], words: str):
    from dora_train.engine.run.announce import moved
    from dora_train.engine.run.ranks import Ranks

    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    said = moved({"callbacks": {"History": stored}}, Ranks(), trainer)
    assert said == (f"{words}: floating point may differ from here on" if words else "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("point", ["in a batch", "in validation", "in the test"])
def test_killed_on_a_gpu(point: str, precision: str, project: Project, tmp_path: Path):
    args = [*TINY, "trainer.accelerator=gpu", f"trainer.precision={precision}", EVERY_STEP]
    whole = Project(tmp_path / "whole")
    for each in (whole, project):
        del each.env["CUDA_VISIBLE_DEVICES"]
    finish(whole, args)
    killed_by(POINTS[point], project, args)
    finish(project, args)
    same(project.xp, whole.xp)


def test_another_number_of_ranks_is_said_once_and_best_survives(
    project: Project, references: References
):
    """The sums of two ranks are rounded otherwise; all else is the same."""
    xp = interrupted(project)
    output = project.dora("run", "-d", "--ddp_workers", "2", *TINY)
    assert output.count("2 ranks now, 1 before: floating point may differ") == 1
    reference = references.run("", TINY)[0]
    assert len(xp.history()) == 4 and xp.history()[:2] == reference.history()[:2]
    for mine, other in zip(xp.history(), reference.history()):
        assert mine["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=0.02)
    best = max(range(4), key=lambda epoch: xp.history()[epoch]["valid"]["acc"])
    assert stored(xp.folder / "result.json")["best"]["epoch"] == best + 1
    assert checkpoint(xp.best_checkpoint)["epoch"] == best


def test_the_same_samples_in_the_same_order_whatever_the_ranks(copy: Project, tmp_path: Path):
    """Each batch's images, by their sums and labels: of two ranks together what one rank had."""
    copy.edit(
        "dora_train/module.py",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:\n"
        "        with open(f'{__import__(\"os\").environ[\"DORA_DIR\"]}/{self.global_rank}.txt', 'a') as seen:\n"
        "            for image, label in zip(*batch):\n"
        "                print(self.current_epoch, batch_idx, int(label), float(image.sum()), file=seen)",
    )
    alone = Project(tmp_path / "alone", copy.root)
    finish(alone, TINY)
    killed_by(("train", 8), copy, [*TINY, EVERY_STEP])
    (copy.out / "0.txt").rename(copy.out / "killed.txt")
    copy.dora("run", "-d", "--ddp_workers", "2", *TINY)

    def lines(*files: Path) -> set[str]:
        return {line for file in files for line in file.read_text().splitlines()}

    wanted, early = lines(alone.out / "0.txt"), lines(copy.out / "killed.txt")
    late = [lines(copy.out / f"{rank}.txt") for rank in (0, 1)]
    assert early | late[0] | late[1] == wanted
    assert not late[0] & late[1] and all("0 0 " not in line[:4] for line in late[0]), (
        "shared, and nothing done twice"
    )
