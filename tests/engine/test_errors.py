"""A user's mistake: at most four lines, no traceback, what is near, an exit code, and nothing on
disk."""

from __future__ import annotations

import re
import subprocess

import pytest
from forked import Run
from omegaconf import OmegaConf
from project import BIN, QUICK, ROOT, Project

from dora_train.engine.errors import UserError, did_you_mean, near, shortened
from dora_train.engine.experiment.records import State

MISTAKES = [
    (
        ["optim.lrr=0.1"],
        'unknown key "optim.lrr": did you mean optim.lr?\noptim has: name, lr, momentum',
    ),
    (["lr=0.1"], 'unknown key "lr": did you mean optim.lr?'),
    (["optim.lr=abc"], "optim.lr=abc: it takes a number (default: 0.05)."),
    (["seed=true"], "seed=true: it takes a whole number (default: 0)."),
    (["optim.lr"], '"optim.lr" has no value: write optim.lr=VALUE.'),
    (["optim.lr=???"], "optim.lr has no value yet (???)"),
    (["optim.lr=0.1,0.2"], "names several values; one run takes one."),
    (["model=resnt18"], 'unknown model "resnt18": did you mean resnet18'),
    (["model_args.foo=3"], "small cannot be built with foo=3"),
    (["data=digit"], 'unknown data "digit": did you mean digits?'),
    (["debug=fats"], 'unknown debug "fats": did you mean fast?'),
    (["optim=adam"], "optim=adam: it takes a dict: {key: value}. Did you mean optim.name=adam?"),
    (["optim.name=sdg"], 'unknown optim.name "sdg"'),
    (["schedule.name=cosin"], 'unknown schedule.name "cosin"'),
    (["trainer.max_epochs=-1"], "needs an end"),
    (
        ["trainer.val_check_interval=7"],
        "trainer.val_check_interval is not listed in conf/: write +trainer.val_check_interval=7.",
    ),
    (["+trainer.max_epoch=3"], 'unknown key "trainer.max_epoch": did you mean max_epochs?'),
    (["+trainer.devices=2"], "trainer.devices is not set here"),
    (["trainer=null"], "trainer=null: its settings are needed."),
    (["trainer.strategy=ddp"], "trainer.strategy is not set here"),
    (["trainer.max_time=soon"], "'soon')` is not a valid duration"),
    (["logger=[foo]"], 'unknown logger "foo"'),
    (["dora.dir=elsewhere"], "DORA_DIR=folder"),
    (["best=null"], "best=null: its settings are needed."),
    (["~best"], "~best: a key of the configuration cannot be removed"),
    (
        ["experiment=nope"],
        'unknown experiment "nope".\nexperiment has: cifar10, cifar10_quick, cifar10_resnet18, digits_accurate, mnist.',
    ),
    (["optim.lr=${nope}"], "optim.lr=${nope} does not resolve: Interpolation key 'nope' not found"),
    (["-f", "deadbeef"], 'there is no experiment "deadbeef"'),
    (["-f", "../x"], '"../x" is not a signature'),
    (["-f", "a" * 1000], "is not a signature"),
    (["--ddp_workers", "2"], "--ddp_workers goes with -d"),
    (["-d", "--ddp_workers", "-1"], "--ddp_workers -1: it takes 1 or more."),
    (["--git_save"], "snapshot"),
]


@pytest.mark.parametrize("args, said", MISTAKES, ids=[" ".join(args)[:30] for args, _ in MISTAKES])
def test_a_mistake_is_one_message(args: list[str], said: str, project: Project):
    run = Run(project, "run", *args)
    assert run.wait() == 1 and said in run.text
    assert len(run.text.splitlines()) <= 4 and "Traceback" not in run.text
    assert not project.out.exists(), "nothing is left on disk"


def test_a_gpu_that_is_not_there_stops_the_run(project: Project):
    project.env["CUDA_VISIBLE_DEVICES"] = ""
    output = project.dora("run", "trainer.accelerator=gpu", code=1)
    assert "torch sees no such device" in output and not project.out.exists()


def test_the_cause_that_nccl_gives_in_its_last_line():
    from dora_train.engine.run.leaving import both_ends

    error = RuntimeError(
        "NCCL error in: here\nncclSystemError: a call failed.\nNo space in /dev/shm"
    )
    assert both_ends(error) == "RuntimeError: NCCL error in: here ... No space in /dev/shm"
    assert both_ends(RuntimeError("Connection closed by peer")) == (
        "RuntimeError: Connection closed by peer"
    )
    assert both_ends(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize("gpus, advice", [(None, "nvidia-smi"), (0, "slurm.gpus=1")])
def test_a_job_that_asked_for_no_gpu_is_told_how(gpus: int | None, advice: str, monkeypatch):
    from dora_train.engine.run.checks import check_accelerator

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError) as refused:
        check_accelerator("cuda", gpus)
    assert advice in str(refused.value)


@pytest.mark.parametrize(
    "given, said",
    [
        ("trainer.max_epochs=0", "trainer.max_epochs=0: nothing would be trained."),
        ("trainer.max_time=00:00:00:00", "trainer.max_time=00:00:00:00: nothing would be trained."),
        (
            "trainer.max_epochs=-2",
            "Lightning's Trainer refuses a value of trainer: `max_epochs` must be",
        ),
        (
            "trainer.limit_train_batches=few",
            "trainer.limit_train_batches=few: it takes a number, 0 or more.",
        ),
        (
            "trainer.accumulate_grad_batches=0",
            "trainer.accumulate_grad_batches=0: it takes more than 0.",
        ),
        ("trainer.precision=foo", "Precision 'foo' is invalid"),
        ("trainer.accelerator=foo", "invalid accelerator name"),
        ("best.metric=acc", "best.metric=acc: it is a metric of history.json"),
        ("best.mode=up", "best.mode=up: it is max or min."),
        ("threads=0", "threads=0: it takes 1 or more."),
    ],
)
def test_a_value_that_lightning_would_trip_over(given: str, said: str):
    from dora_train.engine.run.checks import check_run

    files = [ROOT / "conf" / f"{name}.yaml" for name in ("engine", "task/images", "config")]
    cfg = OmegaConf.create({})
    for file in files:
        content = OmegaConf.load(file)
        content.pop("defaults", None)
        cfg.merge_with(content)
    check_run(cfg)
    cfg.merge_with_dotlist([given])
    with pytest.raises(UserError) as refused:
        check_run(cfg)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) <= 4


def test_a_metric_that_nothing_measures_is_said_after_the_first_epoch(project: Project):
    output = project.dora("run", *QUICK, "best.metric=valid.f1", "best.mode=max", code=1)
    assert output.endswith(
        "best.metric=valid.f1: valid has no such metric.\nvalid has: loss, acc.\n"
    )
    assert project.xp.state().state is State.FAILED


def test_outputs_that_cannot_be_written(project: Project):
    project.out.write_text("a file")
    for verb in ("run", "launch"):
        output = project.dora(verb, *QUICK, code=1)
        assert output.startswith(f"cannot write {project.out}") and "DORA_DIR=folder" in output, (
            output
        )
        assert len(output.splitlines()) == 2


@pytest.mark.parametrize(
    "args, said",
    [
        (
            ["grid", "seeds", "optim", "--dry_run"],
            "no experiment of seeds is named like optim.\ne.g. ",
        ),
        (["launch", "code=snapshots"], "code=snapshots: a job runs a snapshot, or the live files"),
        (["launch", "job.nodes=0"], "a job needs at least 0 GPUs and 1 node"),
    ],
    ids=["pattern", "code", "nodes"],
)
def test_a_mistake_about_jobs_is_one_message(args: list[str], said: str, project: Project):
    project.env |= {"DORA_CLUSTER": "local"}
    output = project.dora(*args, code=1)
    assert said in output and len(output.splitlines()) <= 4, output


def test_a_reader_that_leaves_is_no_error(project: Project):
    """`dora info -l | head -1`, and whatever else prints."""
    done = subprocess.run(
        f"{BIN}/dora grid mysweep --dry_run | true",
        shell=True,
        text=True,
        cwd=project.root,
        env=project.env | {"DORA_CLUSTER": "local"},
        capture_output=True,
    )
    assert done.stderr == ""


def test_settings_of_dora_that_make_no_sense_are_refused(copy: Project):
    for setting, instead in [
        ("git_save: true", "code: snapshot"),
        ("local_code: true", "code: snapshot"),
        ("shared: /tmp", "DORA_DIR"),
        ("nonsense: 1", "unknown key"),
    ]:
        copy.edit("conf/config.yaml", "\ndora:\n", f"\ndora:\n  {setting}\n")
        output = copy.dora("run", code=1)
        assert instead in output and len(output.splitlines()) <= 4, output
        copy.edit("conf/config.yaml", f"  {setting}\n", "")


def test_near():
    assert near("lr", ["optim.lr", "seed"]) == ["optim.lr"]
    assert near("OPTIM.LR", ["optim.lr", "seed"]) == ["optim.lr"]
    assert near("zzz", ["optim.lr", "seed"]) == []
    assert did_you_mean("zzz", ["seed"]) == "."
    assert shortened("abcdef", 2) == "a, b ... (4 more)"


def test_a_user_error_has_no_empty_lines():
    assert str(UserError("a", "", "b")) == "a\nb"


def test_a_grid_is_told_of_a_refused_keyword_before_its_jobs_are(copy: Project):
    copy.env["DORA_CLUSTER"] = "local"
    copy.edit(
        "grids/mysweep.py",
        "for batch_size in",
        'launcher("trainer.devices=2")\n    for batch_size in',
    )
    output = copy.dora("grid", "mysweep", code=1)
    assert re.match(r"grids/mysweep.py:\d+: trainer.devices is not set here", output), output
    assert not (copy.out / "xps").exists()
