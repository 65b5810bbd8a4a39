"""Every key of conf/config.yaml with values of every kind: each runs, or is refused in a few lines.

What is refused leaves no folder. What is accepted is the same experiment if the same command comes
again.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked import Run
from project import ROOT, Project

from dora_train.engine.config import limits
from dora_train.engine.config import refused as replaced
from dora_train.engine.config.compose import Composer
from dora_train.engine.config.values import flatten, same, unflatten
from dora_train.engine.dora.main import TrainMain
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.records import State

KINDS = [
    "null",
    "{a: 1}",
    "{}",
    "[1,2]",
    "[]",
    "-1",
    "0",
    "5",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "1e30",
    "true",
    "abc",
    "''",
]
COMPOSER = Composer(ROOT / "conf", "config", "1.3")
LEAVES = [key for key in COMPOSER.keys() if not key.startswith("dora.")]
KEYS = sorted({key.rpartition(".")[0] for key in LEAVES if "." in key}) + LEAVES


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainMain]:
    """The project's main, with its outputs in a folder of the test's."""
    from dora_train.train import main

    monkeypatch.setattr(main.dora, "dir", tmp_path / "outputs")
    yield main


def refusal(main: TrainMain, *overrides: str) -> str:
    """What `dora run` says of these overrides before it makes a folder; empty if it runs them."""
    from dora_train.engine.run.checks import check_run

    try:
        xp = main.get_xp(overrides)
        main.check(xp)
        check_run(xp.cfg)
    except UserError as error:
        assert len(str(error).splitlines()) <= 4, error
        return str(error)
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_a_key_with_any_value(key: str, main: TrainMain):
    for override in [f"~{key}", *(f"{key}={value}" for value in KINDS)]:
        if refusal(main, override):
            continue
        sig = main.create(main.get_xp([override])).sig
        again = main.get_xp([override])
        assert again.sig == sig and not main.drift(again), override
        main.create(again)
        stored = main.get_xp(main.get_argv_from_sig(sig))
        counted = [main.frozen.counted(xp.values) for xp in (again, stored)]
        assert same(*counted) and not main.drift(stored), override
    assert refusal(main, "optim.lr=abc") and len(list(main.dora.dir.glob("xps/*"))) < len(KINDS) + 1


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["best=null"], "best=null: its settings are needed."),
        (
            ["~best"],
            "~best: a key of the configuration cannot be removed, only its value can change.",
        ),
        (["~best.metric"], "~best.metric: a key of the configuration cannot be removed"),
        (["~optim.name"], "~optim.name: a key of the configuration cannot be removed"),
        (
            ["~trainer.precision"],
            "~trainer.precision: a key of the configuration cannot be removed",
        ),
        (["~threads"], "~threads: a key of the configuration cannot be removed"),
        (["ema=null"], "ema=null: its settings are needed."),
        (["loss=null"], "loss=null: its settings are needed."),
        (["slurm=null"], "slurm=null: its settings are needed."),
        (["+best.metrc=1"], 'unknown key "best.metrc": did you mean best.metric'),
        (["+checkpoint.x=1"], 'unknown key "checkpoint.x"'),
        (
            ["+schedule.x=1"],
            "schedule.x: there is no such key. schedule has: name, warmup_epochs, patience,",
        ),
        (["+seed.x=1"], 'unknown key "seed.x": did you mean seed?'),
        (["+=1"], '"+=1" names no key: write KEY=VALUE.'),
        (["tag={1: 2}"], "tag={1: 2}: the key 1 of a dict must be text without a dot."),
        (["tag=[{a.b: 1}]"], "tag=[{a.b: 1}]: the key 'a.b' of a dict must be text without a dot."),
        (["tag={null: 1}"], "tag={null: 1}: the key None of a dict must be text without a dot."),
        (["optim.lr=inf"], "optim.lr=inf: it takes a finite number."),
        (["optim.lr=nan"], "optim.lr=nan: it takes 0 or more."),
        (["schedule.warmup_epochs=-1"], "schedule.warmup_epochs=-1.0: it takes 0 or more."),
        (["schedule.warmup_epochs=nan"], "schedule.warmup_epochs=nan: it takes 0 or more."),
        (
            ["data.crop=1e30"],
            "data.crop=1000000000000000019884624838656: it takes no more than 10,000.",
        ),
        (
            ["early_stopping.patience=true"],
            "early_stopping.patience=true: it takes a whole number of epochs",
        ),
        (["threads=100000"], "threads=100000: it takes no more than 1,024."),
        (["checkpoint.keep=foo"], "checkpoint.keep=foo: it is all, last or best."),
        (
            ["checkpoint.every_minutes=-1"],
            "checkpoint.every_minutes=-1.0: it takes a number, 0 or more.",
        ),
        (
            ["checkpoint.every_minutes=nan"],
            "checkpoint.every_minutes=nan: it takes a number, 0 or more.",
        ),
        (["cluster=abc"], "cluster=abc: it is auto, slurm or local."),
        (["local.jobs=1.5"], "local.jobs=1.5: it takes a whole number."),
        (["job.tasks_per_node=[1,2]"], "job.tasks_per_node=[1,2]: it takes a whole number."),
        (["slurm.gpus=-1"], "slurm.gpus=-1: a job needs at least 0 GPUs and 1 node."),
        (["slurm.cpus_per_gpu=0"], "slurm.cpus_per_gpu=0: it takes 1 or more."),
        (["slurm.account={a: 1}"], "slurm.account={a:1}: it takes text."),
        (
            ["trainer.max_time=5"],
            "trainer.max_time=5: it takes DD:HH:MM:SS, e.g. 00:01:30:00 for an hour and a half.",
        ),
        (
            ["trainer.max_time={minutes: 0}"],
            "trainer.max_time={minutes:0}: nothing would be trained.",
        ),
        (
            ["trainer.limit_train_batches=true"],
            "trainer.limit_train_batches=true: it takes a number, 0 or more.",
        ),
        (
            ["trainer.limit_val_batches=1.5"],
            "trainer.limit_val_batches=1.5: it takes a fraction of an epoch, at most 1.0",
        ),
        (["trainer.accumulate_grad_batches=1e30"], "it takes no more than 1,000,000."),
        (["+trainer.val_check_interval=0"], "trainer.val_check_interval=0: it takes more than 0."),
        (["+trainer.min_steps=abc"], "trainer.min_steps=abc: it takes a whole number."),
        (["+trainer.detect_anomaly=abc"], "trainer.detect_anomaly=abc: it takes true or false."),
        (
            ["+trainer.num_sanity_val_steps=-5"],
            "trainer.num_sanity_val_steps=-5: it takes -1 or more.",
        ),
        (
            ["+trainer.sync_batchnorm=true", "trainer.accelerator=cpu"],
            "torch synchronises batch norm on GPUs only.",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_said_of_a_value(overrides: list[str], said: str, main: TrainMain):
    assert said in refusal(main, *overrides)
    assert not main.dora.dir.exists()


def test_a_value_of_a_wrong_type_in_the_configuration_itself():
    """Its defaults give the types of overrides; nothing gives theirs."""
    values: list[Any] = [None, "auto", True, 1.5, [1], {"a": 1}, float("nan")]
    for key in limits.TAKES:
        for value in values:
            with contextlib.suppress(UserError):
                limits.check_values(unflatten([(key, value)]))
    with pytest.raises(UserError, match="slurm.time=2-00:00: it takes a whole number."):
        limits.check_values({"slurm": {"time": "2-00:00"}})


def test_a_resumed_run_is_held_to_the_keys_that_may_change(main: TrainMain):
    """`dora run -f SIG checkpoint=null`: nothing is composed but what does not count."""
    sig = main.create(main.get_xp(["seed=1"])).sig
    for override, said in [
        ("checkpoint=null", "checkpoint=null: its settings are needed."),
        ("~checkpoint.keep", "cannot be removed"),
        ("+checkpoint.x=1", "unknown key"),
    ]:
        with pytest.raises(UserError, match=said):
            main.get_xp(main.get_argv_from_sig(sig) + [override])


@pytest.mark.parametrize(
    "one, other, equal",
    [
        (float("nan"), float("nan"), True),
        ([1, float("nan")], [1, float("nan")], True),
        ([{"a": float("nan")}], [{"a": float("nan")}], True),
        (float("nan"), 1.0, False),
        ([1], [1, 2], False),
        ({"a": 1}, {"b": 1}, False),
        (1, 1.0, True),
        (None, float("nan"), False),
    ],
)
def test_same(one: Any, other: Any, equal: bool):
    assert same(one, other) is equal


@pytest.mark.parametrize(
    "override", ["tag=nan", "trainer.limit_test_batches=0", "trainer.limit_val_batches=0"]
)
def test_an_odd_value_that_runs(override: str, project: Project):
    for words in ("finished · ", "nothing to do"):
        run = Run(project, "run", override, "trainer.max_epochs=1", "threads=1")
        assert (
            run.wait() == 0 and words in run.text and "nan" not in run.text.replace(override, "")
        ), run.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "data.batch_size=1e30",
        "data.crop=10000",
        "data.cutout=10000",
        "seed=-1",
        "seed=1e30",
        "optim.lr=0",
        "schedule.warmup_epochs=1e30",
        "trainer.max_steps=1e30",
        "trainer.limit_train_batches=10.0",
        "trainer.accumulate_grad_batches=1000000",
        "trainer.gradient_clip_val=inf",
        "trainer.check_val_every_n_epoch=1e30",
        "checkpoint.every_epochs=1e30",
        "checkpoint.every_minutes=1e30",
        "+trainer.val_check_interval=0.001",
        "+trainer.log_every_n_steps=0",
        "+trainer.num_sanity_val_steps=-1",
        "+trainer.detect_anomaly=true",
        "tag={a: [nan]}",
    ],
)
def test_a_value_at_the_edge_runs(override: str, project: Project):
    for words in ("finished", "nothing to do"):
        run = Run(project, "run", override, "trainer.max_epochs=2", "threads=1")
        assert run.wait() == 0 and words in run.text, run.text


# --- batches: known once the data is ---


def limited(**limits: Any) -> str:
    """What is said of limits on 19 batches of training, 5 of validation and 4 of the test."""
    from dora_train.engine.run.checks import check_batches

    settings = {
        "limit_train_batches": 1.0,
        "limit_val_batches": 1.0,
        "limit_test_batches": 1.0,
        "overfit_batches": 0.0,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
    }
    try:
        lengths = {"train": 19, "valid": 5, "test": 4}
        check_batches(SimpleNamespace(**settings | limits), lengths)
    except UserError as error:
        return str(error)
    return ""


def test_a_fraction_that_leaves_no_batch():
    assert limited(limit_train_batches=0.001).splitlines() == [
        "trainer.limit_train_batches=0.001: that leaves no batch of 19.",
        "give at least 0.053, or a whole number of batches",
    ]
    assert "limit_val_batches=0.1: that leaves no batch of 5.\ngive at least 0.2," in limited(
        limit_val_batches=0.1
    )
    assert "limit_test_batches=0.2: that leaves no batch of 4." in limited(limit_test_batches=0.2)
    assert "overfit_batches=0.1: that leaves no batch of 5." in limited(
        overfit_batches=0.1, limit_train_batches=0.1, limit_val_batches=0.1
    )
    assert not limited(limit_train_batches=0.053, limit_val_batches=0.2, limit_test_batches=0.25)
    assert not limited(limit_val_batches=0, limit_test_batches=0.0)


def test_a_validation_that_would_never_be():
    assert limited(val_check_interval=20).startswith(
        "trainer.val_check_interval=20: an epoch has 19 batches, so it would never validate.\n"
        "give at most 19,"
    )
    assert "an epoch has 4 batches" in limited(val_check_interval=5, limit_train_batches=4)
    assert not limited(val_check_interval=19) and not limited(val_check_interval=0.001)


def test_a_run_without_a_batch_fails_in_a_line(project: Project):
    for _ in range(2):
        run = Run(project, "run", "trainer.limit_train_batches=0.001", "threads=1")
        assert (
            run.wait() == 1 and len(run.text.splitlines()) <= 4 and "Traceback" not in run.text
        ), run.text
    assert project.xp.state().state is State.FAILED
    assert (
        project.xp.state().cause == "trainer.limit_train_batches=0.001: that leaves no batch of 19."
    )


# --- Lightning's Trainer ---


def test_every_keyword_of_the_trainer_works_or_is_refused_by_name(main: TrainMain):
    import pytorch_lightning as pl

    there = {
        key.partition(".")[2] for key, _ in flatten(COMPOSER.defaults) if key.startswith("trainer.")
    }
    for name in list(inspect.signature(pl.Trainer.__init__).parameters)[1:]:
        if name in replaced.TRAINER:
            assert (
                refusal(main, f"+trainer.{name}=1")
                == f"trainer.{name} is not set here: {replaced.TRAINER[name]}."
            )
        else:
            assert name in there or name in limits.TRAINER_TAKES, (
                f"nobody has decided on trainer.{name}"
            )


@pytest.mark.parametrize(
    "override",
    [
        "+trainer.gradient_clip_algorithm=norm",
        "+trainer.min_epochs=2",
        "+trainer.inference_mode=false",
        "+trainer.enable_autolog_hparams=false",
        "+trainer.val_check_interval=0.5",
        "+trainer.min_steps=3",
    ],
)
def test_a_keyword_that_the_configuration_does_not_name(override: str, main: TrainMain):
    assert refusal(main, override) == ""
