"""The vanilla pipeline: its names, its files, its resume; one job an experiment, and a grid of
them."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project, stored, weights
from slurm_cluster import SlurmCluster

from basic import grid, schedule, train

QUICK = ["--epochs", "2", "--threads", "1"]
LONG = ["--epochs", "500", "--threads", "1"]


def args_of(*argv: str) -> Any:
    return train.experiment_parser().parse_args(argv)


def test_a_terminal_of_another_encoding(tmp_path: Path):
    code = f"from basic import train; train.log_to(train.Path({str(tmp_path / 'log')!r})); train.log.info('a · b')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.stdout, done.stderr) == ("a ? b\n", "") and "a · b" in (
        tmp_path / "log"
    ).read_text("utf-8")


# --- arguments and names ---


def test_defaults_are_those_of_conf():
    files = [ROOT / "conf" / f"{name}.yaml" for name in ("engine", "task/images", "config")]
    conf = {key: value for file in files for key, value in yaml.safe_load(file.read_text()).items()}
    data = yaml.safe_load((ROOT / "conf" / "data" / "digits.yaml").read_text())
    optim, schedule_ = conf["optim"], conf["schedule"]
    assert vars(args_of()) == {
        "seed": conf["seed"],
        "tag": conf["tag"],
        "model": conf["model"],
        "model_args": conf["model_args"],
        "data": data["name"],
        "data_args": {},
        "batch_size": data["batch_size"],
        "augment": data["augment"],
        "optim": optim["name"],
        "lr": optim["lr"],
        "momentum": optim["momentum"],
        # YAML 1.1 reads 5e-4 as text, OmegaConf as a number
        "weight_decay": float(optim["weight_decay"]),
        "schedule": schedule_["name"],
        "warmup_epochs": schedule_["warmup_epochs"],
        "patience": schedule_["patience"],
        "factor": schedule_["factor"],
        "label_smoothing": conf["loss"]["label_smoothing"],
        "epochs": conf["trainer"]["max_epochs"],
        "accelerator": conf["trainer"]["accelerator"],
        "threads": conf["threads"],
    }
    excluded = conf["dora"]["exclude"]
    assert all(key.replace("data_args", "data") in excluded for key in train.NOT_IN_NAME)


def test_data_by_name_are_those_of_conf():
    conf = yaml.safe_load((ROOT / "conf" / "data" / "digits.yaml").read_text())
    ours, theirs = train.load_data(**train.data_of(args_of())).train, train.load_data(**conf).train
    assert ours.augmentation == theirs.augmentation
    assert next(ours.epoch())[0].equal(next(theirs.epoch())[0])


@pytest.mark.parametrize(
    "argv, name",
    [
        ([], "default"),
        (["--lr", "0.1", "--epochs", "30"], "lr=0.1,epochs=30"),
        (["--epochs", "30", "--lr", ".10"], "lr=0.1,epochs=30"),
        (["--lr", "0.05"], "default"),
        (["--threads", "1"], "default"),
        (["--no-augment"], "augment=False"),
        (
            ["--data", "cifar10", "--data-args", "crop=0", "folder=/somewhere"],
            "data=cifar10,data_args.crop=0",
        ),
        (["--model-args", "width=64", "a=b"], "model_args.a=b,model_args.width=64"),
        (["--tag", "../x,lr=0.1 ü"], "tag=..%2Fx%2Clr%3D0.1%20%C3%BC"),
    ],
)
def test_name(argv: list[str], name: str):
    assert train.name_of(args_of(*argv)) == name


VALUES = {
    "seed": st.integers(),
    "tag": st.none() | st.text(max_size=300),
    "lr": st.floats(0, 10),
    "model": st.text(),
    "model_args": st.dictionaries(
        st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.integers() | st.none()
    ),
}
NAMESPACES = st.fixed_dictionaries(VALUES)


@given(NAMESPACES, NAMESPACES)
def test_names_are_safe_and_tell_experiments_apart(one: dict, other: dict):
    names = []
    for values in (one, other):
        args = args_of()
        vars(args).update(values)
        names.append(train.name_of(args))
    assert all(
        re.fullmatch(r"[\w.,=%~-]{1,200}", name, re.ASCII) and not name.startswith(".")
        for name in names
    )
    same = repr(sorted(one["model_args"].items())) == repr(
        sorted(other["model_args"].items())
    ) and all(one[key] == other[key] for key in one if key != "model_args")
    assert (names[0] == names[1]) == same


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--lrr", "0.1"], "unrecognized arguments: --lrr 0.1: did you mean --lr?"),
        (["--lr", "x"], "argument --lr: invalid float value: 'x'"),
        (["--lr=-1"], "optim.lr=-1.0: it takes 0 or more."),
        (["--epochs", "0"], "--epochs and --threads take 1 or more"),
        (["--optim", "sdg"], "argument --optim: invalid choice: 'sdg' (choose from"),
        (["--model", "resnet1"], 'unknown model "resnet1": did you mean resnet18'),
        (["--model-args", "heads=3"], "unexpected keyword argument 'heads'"),
        (["--model-args", "depth"], 'argument --model-args: "depth" is not KEY=VALUE'),
        (["--data-args", "corp=3"], "data.corp: digits has no such key"),
        (["--data", "digit"], 'unknown data set "digit": did you mean digits?'),
        (["--batch-size", "1"], "batch_size=1"),
        (["--epo", "3"], "unrecognized arguments: --epo 3"),
    ],
)
def test_mistake_is_told_in_one_line(
    argv: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("DORA_DIR", str(tmp_path / "outputs"))
    with pytest.raises(SystemExit) as leaving:
        train.main(argv)
    error = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


# --- one experiment ---


def basic(project: Project, *argv: str, code: int | None = 0, module: str = "train") -> str:
    return project.run("python", "-m", f"basic.{module}", *argv, code=code)


@pytest.mark.slow
def test_a_run_leaves_the_files_that_all_pipelines_have(project: Project):
    output = basic(project, *QUICK)
    folder = project.out / "basic" / "epochs=2"
    history, result = stored(folder / "history.json"), stored(folder / "result.json")
    assert [set(entry) for entry in history] == [{"train", "valid"}] * 2
    assert all(set(entry[split]) == {"loss", "acc"} for entry in history for split in entry)
    assert set(result) == {"best", "test", "epochs", "steps", "reason"}
    assert (result["epochs"], result["steps"], result["reason"]) == (2, 2 * 19, "max_epochs")
    assert weights(folder / "last.ckpt").keys() == weights(folder / "best.ckpt").keys()
    log = (folder / "train.log").read_text()
    assert all(line in log for line in output.splitlines())
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]

    again = basic(project, *QUICK)
    assert "finished" in again and "nothing to do" in again
    assert stored(folder / "result.json") == result

    assert "epoch 1/2" in basic(project, *QUICK, "--restart")
    assert stored(folder / "history.json") == history
    assert stored(folder / "result.json") == result


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_run_goes_on_bit_for_bit(project: Project, tmp_path: Path):
    argv = ["--epochs", "6", "--threads", "1", "--model-args", "width=48"]
    process = project.start("python", "-m", "basic.train", *argv)
    folder = project.out / "basic" / "model_args.width=48,epochs=6"
    wait(lambda: (folder / "history.json").exists())
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "interrupted" in output and "Traceback" not in output
    assert "resumed at epoch" in basic(project, *argv)

    straight = Project(tmp_path / "straight")
    basic(straight, *argv)
    other = straight.out / "basic" / folder.name
    for name in ("history.json", "result.json"):
        assert stored(folder / name) == stored(other / name)
    mine, theirs = weights(folder / "last.ckpt"), weights(other / "last.ckpt")
    assert all(mine[key].equal(theirs[key]) for key in theirs)


@pytest.mark.slow
def test_an_exception_is_in_the_log(project: Project):
    code = (
        "from basic import train\n"
        "def broken(*args): raise RuntimeError('the disk is on fire')\n"
        "train.evaluate = broken\n"
        f"train.main({QUICK!r})"
    )
    process = project.start("python", "-c", code)
    output = process.communicate()[0]
    assert process.returncode == 1
    log = (project.out / "basic" / "epochs=2" / "train.log").read_text()
    assert "Traceback" in log and "the disk is on fire" in log
    assert output.count("Traceback") == 1


@pytest.mark.slow
def test_an_edited_default_is_not_mixed_into_an_old_run(project: Project):
    basic(project, *QUICK)
    path = project.out / "basic" / "epochs=2" / "args.json"
    train.write_json(path, stored(path) | {"momentum": 0.8})
    assert "made with momentum=0.8; it is 0.9 now" in basic(project, *QUICK, code=1)


def test_two_at_once_do_not_write_the_same_files(project: Project):
    folder = project.out / "basic" / "default"
    folder.mkdir(parents=True)
    with train.FileLock(folder / ".lock"):
        assert "is being trained by another process" in basic(project, code=1)
    assert not (folder / "last.ckpt").exists()


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path):
    train.write_json(tmp_path / "a.json", [1])
    with pytest.raises(KeyboardInterrupt), train.written_aside(tmp_path / "a.json") as aside:
        aside.write_text("[1, 2")
        raise KeyboardInterrupt
    assert stored(tmp_path / "a.json") == [1]


def test_best_is_the_first_of_equals():
    history = [
        {"train": {}, "valid": {"loss": loss, "acc": acc}}
        for loss, acc in [(3, 0.1), (1, 0.9), (2, 0.9)]
    ]
    assert train.best_of(history) == {"epoch": 2, "loss": 1, "acc": 0.9, "value": 0.9}


def test_evaluation_keeps_no_graph_and_leaves_the_statistics(tmp_path: Path):
    import torch

    data = train.load_data("digits", 64, True)
    model = train.build_model("small", 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metrics = train.evaluate(model, data.valid, torch.device("cpu"))
    assert math.isfinite(metrics["loss"]) and not model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


# --- one job an experiment ---


def wait(predicate: Any, timeout: float = 120) -> Any:
    end = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.05)
    return value


def test_schedule_and_grid_are_short():
    """Dora under the hood, for learning."""
    assert (
        sum(len(Path(str(module.__file__)).read_text().splitlines()) for module in (schedule, grid))
        < 350
    )


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Project]:
    """The project with submitit's local executor; whatever it started is ended."""
    project = Project(tmp_path / "outputs", env={"DORA_CLUSTER": "local"})
    yield project
    for path in (project.out / "basic").glob("*/job.json"):
        if process := schedule.process_of(stored(path)):
            for each in [process, *process.children(recursive=True)]:
                each.kill()


@pytest.mark.slow
def test_local_job(local: Project):
    folder = local.out / "basic" / "epochs=500"
    job = lambda: stored(folder / "job.json")  # noqa: E731
    commands = [local.start("python", "-m", "basic.schedule", *LONG) for _ in range(2)]  # at once
    # the pipe closes
    outputs = sorted(command.communicate(timeout=60)[0].split()[1] for command in commands)
    assert outputs[0] == "submitted" or outputs[1] == "submitted"
    assert outputs.count("submitted") == 1
    assert len(list((folder / "submitit").glob("*_submitted.pkl"))) == 1
    first = job()

    wait(lambda: (folder / "history.json").exists())
    assert schedule.state_of(folder) == "running"
    assert "running" in basic(local, *LONG, "--retry", module="schedule"), (
        "one that runs gets no other"
    )
    assert job() == first

    assert "cancelled" in basic(local, *LONG, "--cancel", module="schedule")
    assert schedule.process_of(first) is None and not schedule.is_training(folder)
    assert "cancelled" in basic(local, *LONG, module="schedule"), "asked again, it shows the state"
    assert job()["token"] == first["token"]

    done = len(stored(folder / "history.json"))
    assert "submitted" in basic(local, *LONG, "--retry", module="schedule")
    assert job()["token"] != first["token"]
    wait(lambda: len(stored(folder / "history.json")) > done)
    assert "resumed at epoch" in (folder / "train.log").read_text()
    basic(local, *LONG, "--cancel", module="schedule")


@pytest.mark.slow
def test_killed_between_the_submission_and_its_record(
    local: Project, monkeypatch: pytest.MonkeyPatch
):
    """The job came to life, but nobody wrote down its id; the one that takes its place is the only
    one to train."""
    code = (
        "import os\nfrom basic import schedule, train\nwrite = train.write_json\n"
        "def dies(path, job):\n    os._exit(9) if job['id'] else write(path, job)\n"
        "train.write_json = dies\n"
        f"schedule.submit(train.parse(schedule.job_parser(), {LONG!r}), __import__('pathlib').Path({{folder!r}}))"
    )
    folder = local.out / "basic" / "epochs=500"
    folder.mkdir(parents=True)
    lock = train.FileLock(local.out / "basic" / f".slot-{os.uname().nodename}-0")
    slots = [lock] + [
        train.FileLock(f"{lock.lock_file[:-1]}{n}") for n in range(1, os.cpu_count() or 1)
    ]
    for slot in slots:
        slot.acquire()  # the orphan has to wait
    assert local.start("python", "-c", code.format(folder=str(folder))).wait(60) == 9
    orphan = stored(folder / "job.json")["token"]
    assert schedule.state_of(folder) == "lost"
    assert "submitted" in basic(local, *LONG, "--retry", module="schedule")
    for slot in slots:
        slot.release()
    wait(lambda: (folder / "history.json").exists())
    assert len(list((folder / "submitit").glob("*_submitted.pkl"))) == 2
    wait(lambda: len(list((folder / "submitit").glob("*_result.pkl"))) == 1)  # the orphan has left
    assert (folder / "train.log").read_text().count("  new") == 1
    assert stored(folder / "job.json")["token"] != orphan


def test_state_of_what_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A scheduler that does not answer, or a job of another machine, is no proof that the job is
    gone."""
    monkeypatch.setattr(schedule, "ask", lambda *command: None)
    job = {"name": "basic-1", "cluster": "slurm", "id": "7", "host": "here"}
    train.write_json(tmp_path / "job.json", job)
    assert schedule.state_of(tmp_path) == "unknown"
    train.write_json(
        tmp_path / "job.json", job | {"cluster": "local", "host": "elsewhere", "born": 0}
    )
    assert schedule.state_of(tmp_path) == "unknown"


@pytest.mark.parametrize(
    "squeue, sacct, state",
    [
        ("7 PENDING\n", "", "waiting"),
        ("7 RUNNING\n", "", "waiting"),  # started, but not yet at the experiment's lock
        ("7 FAILED\n", "", "failed"),
        ("", "TIMEOUT\n", "timeout"),
        ("", "CANCELLED by 0\n", "cancelled"),
        ("", "COMPLETED\n", "failed"),  # without a result
        ("", "", "lost"),
    ],
)
def test_slurm_states(
    squeue: str, sacct: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        schedule, "ask", lambda program, *_: {"squeue": squeue, "sacct": sacct}[program]
    )
    train.write_json(
        tmp_path / "job.json", {"name": "basic-1", "cluster": "slurm", "id": "7", "host": "here"}
    )
    assert schedule.state_of(tmp_path) == state


def test_cluster_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule.shutil, "which", lambda name: f"/usr/bin/{name}")
    for answer, wish, found in [
        ("n1", "auto", "slurm"),
        (None, "auto", "local"),
        ("n1", "local", "local"),
        ("n1", "", "slurm"),
        ("n1", "slurm", "slurm"),
    ]:
        monkeypatch.setattr(schedule, "ask", lambda *command, answer=answer: answer)
        monkeypatch.setenv("DORA_CLUSTER", wish)
        assert schedule.cluster_here() == found
    monkeypatch.setattr(schedule, "ask", lambda *command: None)
    for wish in ("slurm", "slrum"):
        monkeypatch.setenv("DORA_CLUSTER", wish)
        with pytest.raises(SystemExit, match=wish):
            schedule.cluster_here()


@pytest.mark.slow
@pytest.mark.slurm
def test_slurm_job(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = Project(tmp_path / "outputs", env=cluster.env)
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    folder = project.out / "basic" / "epochs=500"
    assert "submitted  slurm" in basic(project, *LONG, module="schedule")
    job = stored(folder / "job.json")
    assert schedule.state_of(folder) in ("waiting", "running")
    assert stored(folder / "job.json") == job
    wait(lambda: (folder / "history.json").exists())
    assert "running  slurm" in basic(project, *LONG, module="schedule")
    assert len(cluster.live_jobs()) == 1

    # as if the command was killed after sbatch
    train.write_json(folder / "job.json", job | {"id": ""})
    basic(project, *LONG, "--cancel", module="schedule")
    cluster.wait_state(job["id"], "CANCELLED", live=True)
    wait(lambda: schedule.state_of(folder) == "cancelled")
    assert "submitted  slurm" in basic(project, *LONG, "--retry", module="schedule")
    wait(lambda: "resumed at epoch" in (folder / "train.log").read_text())
    assert len(cluster.live_jobs()) == 2


# --- the grid ---


@pytest.mark.slow
def test_grid(tmp_path: Path):
    root = tmp_path / "project"
    for name in ("basic", "dora_train"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(tmp_path / "outputs", root, {"DORA_CLUSTER": "local"})
    project.edit("basic/grid.py", "[0.02, 0.05, 0.1]", "[0.05, 0.1]")
    project.edit("basic/grid.py", '"--epochs", "10"', '"--epochs", "2"')
    names = [
        "model_args.width=16,epochs=2",
        "model_args.width=32,epochs=2",
        "model_args.width=32,lr=0.1,epochs=2",
    ]
    output = project.run("python", "-m", "basic.grid")
    assert [line.split()[:2] for line in output.splitlines()[1:]] == [
        [name, "submitted"] for name in names
    ]

    project.edit("basic/grid.py", "[16, 32]", "[32]")
    output = project.run("python", "-m", "basic.grid")
    assert output.startswith(f"left the grid: {names[0]}  ")
    assert [line.split()[0] for line in output.splitlines()[2:]] == names[1:]
    assert "left" not in project.run("python", "-m", "basic.grid")

    folders = [project.out / "basic" / name for name in names]
    wait(lambda: all((folder / "result.json").exists() for folder in folders[1:]), timeout=180)
    output = project.run("python", "-m", "basic.grid")
    for line, folder in zip(output.splitlines()[1:], folders[1:]):
        name, state, epoch, _, _, best = line.split()
        assert (name, state, epoch) == (folder.name, "completed", "2")
        assert float(best) == round(stored(folder / "result.json")["best"]["acc"], 3)

    project.edit("basic/grid.py", "[0.05, 0.1]", "[]")
    assert "the grid is empty" in project.run("python", "-m", "basic.grid", code=1)


def test_help_names_every_argument():
    done = subprocess.run(
        [sys.executable, "-m", "basic.schedule", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert all(
        f"--{key.replace('_', '-')}" in done.stdout
        for key in vars(schedule.job_parser().parse_args([]))
    )
