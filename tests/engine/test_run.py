"""`dora run`, as a user sees it: what it prints, what it leaves on disk, how it goes on."""

from __future__ import annotations

import base64
import csv
import json
import re
import signal
import time
import zlib
from typing import Any

import pytest
import torch
from forked import Run
from project import QUICK, SIGNALS, Project, same_run, sig_of, stored, weights

from dora_train.engine.experiment.records import State
from dora_train.engine.experiment.share import exported
from dora_train.engine.run.ranks import free_port

SIX = ["trainer.max_epochs=6", "threads=1", "optim.lr=0.1"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run of six epochs that nobody disturbed."""
    project = Project(tmp_path_factory.mktemp("reference") / "outputs")
    project.dora("run", *SIX)
    return project


def test_a_run_says_what_it_is_and_how_it_went(project: Project):
    lines = project.dora("run", *QUICK).splitlines()
    assert re.fullmatch(r"XP [0-9a-f]{8}  debug=fast threads=1  new  .*/xps/[0-9a-f]{8}", lines[0])
    assert (
        "small (57 k parameters) on digits (1,199 train, 299 valid, 299 test) · cpu, 1 thread"
        in lines[1]
    )
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == 2
    assert re.match(
        r"epoch 1/2  train loss \d.\d{3} acc \d.\d{3} │ valid loss \d.\d{3} acc \d.\d{3}  best",
        epochs[0],
    )
    assert re.match(
        r"finished · best valid acc \d.\d{3} @\d · test acc \d.\d{3} · \d+ s", lines[-3]
    )
    assert f"dora info -f {sig_of(lines[0])}" in lines[-2]
    assert not [line for line in lines if "\x1b" in line], "colour codes in a pipe"


def test_a_run_leaves_a_whole_folder(reference: Project):
    xp = reference.xp
    history = xp.history()
    assert len(history) == 6
    assert all(entry.keys() == {"train", "valid"} for entry in history), (
        "train and valid together, nothing else"
    )
    assert all(entry[split].keys() == {"loss", "acc"} for entry in history for split in entry)
    result = xp.result()
    assert result and result.keys() == {"best", "test", "epochs", "steps", "reason"}
    assert result["reason"] == "max_epochs"
    assert result["best"]["acc"] == max(entry["valid"]["acc"] for entry in history)
    assert xp.state().state is State.COMPLETED
    birth = stored(xp.folder / "birth.json")
    assert birth["argv"] == SIX and birth["threads"] == 1 and birth["rule"] == 2
    assert (
        birth["config"]["optim"]["lr"] == 0.1
        and "slurm" not in birth["config"]
        and "threads" not in birth["config"]
    )
    assert {"python", "torch", "pytorch-lightning"} <= birth["versions"].keys() and birth["code"][
        "commit"
    ]


def test_checkpoints_hold_the_history_and_run_no_code(reference: Project):
    last = torch.load(reference.xp.last_checkpoint, weights_only=True)
    assert last["callbacks"]["History"]["history"] == reference.xp.history()
    assert weights(reference.xp.best_checkpoint).keys() == last["state_dict"].keys()


def test_a_finished_run_has_nothing_to_do(reference: Project):
    files = {path: path.stat().st_mtime_ns for path in reference.xp.folder.iterdir()}
    output = reference.dora("run", *SIX)
    assert "nothing to do" in output and "finished" in output
    assert {path: path.stat().st_mtime_ns for path in reference.xp.folder.iterdir()} == files


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SIGNALS, "SIGKILL"])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    name: str, project: Project, reference: Project
):
    signum = getattr(signal, name)
    code, output = project.killed("run", *SIX, epoch=2, signum=signum, delay=0.05)
    assert code == (-9 if name == "SIGKILL" else 128 + signum), output
    assert project.xp.state().state is not State.COMPLETED
    if name != "SIGKILL":
        assert project.xp.state().state is State.INTERRUPTED and name in project.xp.state().cause
    output = project.dora("run", *SIX)
    assert "resumes at epoch" in output and "attempt 2" in output
    same_run(project.xp, reference.xp)
    with open(project.xp.metrics_csv) as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("123456")


@pytest.mark.slow
def test_tensorboard_is_continuous_over_a_resume(project: Project, reference: Project):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    project.killed("run", *SIX, epoch=3, signum=signal.SIGKILL)
    project.dora("run", *SIX)
    events = EventAccumulator(str(project.xp.folder)).Reload()
    steps = [event.step for event in events.Scalars("valid/acc")]
    assert steps == [19 * epoch for epoch in range(1, 7)]
    values = [event.value for event in events.Scalars("valid/acc")]
    assert values == pytest.approx([entry["valid"]["acc"] for entry in reference.xp.history()])


@pytest.mark.slow
def test_by_signature_with_overrides_and_anew(project: Project):
    sig = sig_of(project.dora("run", *QUICK))
    assert "nothing to do" in project.dora("run", "-f", sig[:4])
    assert "nothing to do" in project.dora("run", "-f", sig, "threads=2"), (
        "what does not count changes nothing"
    )
    assert "nothing to do" in project.dora("run", *QUICK, "sbatch.reservation=lab")
    other = sig_of(project.dora("run", "-f", sig, "seed=1"))
    assert other != sig and stored(project.out / "xps" / other / "birth.json")["argv"] == [
        *QUICK,
        "seed=1",
    ]
    assert "  new  " in project.dora("run", "--clear", "-f", sig)


@pytest.mark.slow
def test_two_ranks_count_every_sample_once(project: Project):
    """The metrics of two ranks are those of one; sums are taken in another order, hence the
    tolerance."""
    args = ["trainer.max_epochs=2", "threads=1", "trainer.accelerator=cpu", "data.augment=false"]
    project.dora("run", *args)
    one = project.xp
    one_history, one_result = one.history(), one.result()
    output = project.dora("run", "--clear", "-d", "--ddp_workers", "2", *args)
    assert "2 ranks" in output
    two = one.history()
    assert two[0]["train"]["loss"] == pytest.approx(one_history[0]["train"]["loss"], rel=0.05)
    assert (two[1]["valid"]["acc"] * 299) == pytest.approx(
        round(two[1]["valid"]["acc"] * 299), abs=1e-6
    )
    assert one_result and one.result()["steps"] == one_result["steps"], (
        "a batch size is that of all ranks"
    )
    assert "nothing to do" in project.dora("run", "-d", "--ddp_workers", "2", *args)


@pytest.mark.slow
def test_torchrun_and_dora_start_the_same_run(project: Project):
    args = [*QUICK, "trainer.accelerator=cpu"]
    project.dora("run", "-d", "--ddp_workers", "2", *args)
    history = project.xp.history()
    output = project.run(
        "torchrun",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
        "-m",
        "dora",
        "run",
        "--clear",
        *args,
    )
    assert "  new  " in output and "2 ranks" in output
    assert project.xp.history() == history


def test_a_rank_leaves_its_group_at_the_end():
    """Once in many runs, gloo's threads abort a process that ends without having left: too seldom
    to wait for."""
    import torch.distributed

    from dora_train.engine.run.cluster_environment import leave_group

    leave_group()
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1
    )
    leave_group()
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_a_signal_to_one_of_two_ranks_ends_both(project: Project):
    args = [
        "run",
        "-d",
        "--ddp_workers",
        "2",
        "trainer.accelerator=cpu",
        "threads=1",
        "trainer.max_epochs=20",
    ]
    code, output = project.killed(*args, epoch=2, signum=signal.SIGTERM)
    assert code == 143, output
    assert project.xp.state().state is State.INTERRUPTED
    assert "resumed at epoch" in project.dora("run", "-f", project.xp.sig, "--", code=0)


@pytest.mark.slow
def test_a_second_run_says_who_holds_it(project: Project):
    args = ["run", "trainer.max_epochs=200", "threads=1"]
    first = Run(project, *args)
    while not any(xp.history() for xp in project.experiments()):
        assert first.poll() is None, first.text
        time.sleep(0.01)
    output = project.dora(*args, code=1)
    assert re.match(
        r"XP [0-9a-f]{8} is running on .*, process \d+, since .* \(epoch \d+ of 200\)\.", output
    )
    assert f"dora info -f {project.xp.sig} -C" in output
    assert f"process {first.process.pid}" in project.dora("info", "-f", project.xp.sig)
    assert "asked to stop" in project.dora("info", "-f", project.xp.sig, "-C")
    assert first.wait(60) == 143, first.text
    assert "cancelled" in project.dora("info", "-f", project.xp.sig)


def test_a_failed_run_keeps_its_cause_and_its_traceback(copy: Project):
    copy.edit(
        "dora_train/module.py",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:",
        "def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:\n"
        "        if self.current_epoch == 1: raise RuntimeError('the seam came apart')",
    )
    output = copy.dora("run", *QUICK, code=1)
    assert "Traceback" in output, "a bug shows where it is"
    assert copy.xp.state().state is State.FAILED
    assert copy.xp.state().cause == "RuntimeError: the seam came apart"
    assert "Traceback" in copy.xp.log.read_text()
    assert "the seam came apart" in copy.dora("info", "-f", copy.xp.sig)


def test_what_returns_before_its_end_is_not_finished(copy: Project):
    copy.edit("dora_train/train.py", "    return train(module, data, cfg)", "    return None")
    output = copy.dora("run", *QUICK, code=1)
    assert "before" in output and "reached its end" in output
    assert copy.xp.state().state is State.FAILED


@pytest.mark.parametrize("given, code, state", [(0, 1, State.INTERRUPTED), (3, 3, State.FAILED)])
def test_a_run_that_leaves_with_an_exit_code_is_not_finished(
    copy: Project, given: int, code: int, state: State
):
    """One that fails by itself is not started again by itself."""
    copy.edit(
        "dora_train/train.py",
        "    return train(module, data, cfg)",
        f"    raise SystemExit({given})",
    )
    copy.dora("run", *QUICK, code=code)
    assert (copy.xp.state().state, copy.xp.state().cause) == (state, f"left with exit code {given}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "limit, reason",
    [
        (["trainer.max_epochs=-1", "trainer.max_steps=30", "schedule.name=none"], "max_steps"),
        (
            ["trainer.max_epochs=-1", "trainer.max_time=00:00:00:02", "schedule.name=none"],
            "max_time",
        ),
    ],
)
def test_other_ends(project: Project, limit: list[str], reason: str):
    output = project.dora("run", "threads=1", *limit)
    assert f"finished ({reason})" in output
    assert project.xp.state().state is State.COMPLETED and project.xp.result()["reason"] == reason  # type: ignore[index]
    assert "nothing to do" in project.dora("run", "threads=1", *limit)


@pytest.mark.slow
def test_max_steps_resumes_to_the_same_bits(project: Project, tmp_path):
    args = ["run", "threads=1", "trainer.max_steps=100", "trainer.max_epochs=-1"]
    undisturbed = Project(tmp_path / "undisturbed")
    undisturbed.dora(*args)
    project.killed(*args, epoch=2, signum=signal.SIGTERM)
    project.dora(*args)
    same_run(project.xp, undisturbed.xp)


@pytest.mark.slow
def test_the_default_values_changed(copy: Project):
    sig = sig_of(copy.dora("run", *QUICK))
    copy.edit("conf/task/images.yaml", "momentum: 0.9 ", "momentum: 0.95 ")
    output = copy.dora("run", *QUICK, code=1)
    assert output.splitlines()[0] == (
        f"XP {sig} was made when optim.momentum was 0.9; it is 0.95 now: not the same experiment."
    )
    assert "nothing to do" in copy.dora("run", "-f", sig), "by its signature it keeps its meaning"
    assert sig_of(copy.dora("run", *QUICK, "tag=anew")) != sig, "a word makes it another experiment"
    copy.env["DORA_DRIFT"] = "old"
    assert "nothing to do" in copy.dora("run", *QUICK)
    del copy.env["DORA_DRIFT"]
    copy.edit("conf/config.yaml", "exclude: [threads,", "exclude: [optim.momentum, threads,")
    assert "nothing to do" in copy.dora("run", *QUICK), "a key that counts no more"


def test_a_broken_configuration_leaves_readers_working(copy: Project):
    sig = sig_of(copy.dora("run", *QUICK))
    (copy.root / "conf" / "config.yaml").write_text("seed: [1\n  optim: {")
    assert len(copy.dora("run", code=1).splitlines()) <= 4
    assert "completed" in copy.dora("info", "-f", sig)
    assert copy.dora("export", sig).strip()


@pytest.mark.slow
def test_debug_overfit_learns_its_batches_by_heart(project: Project):
    """The same two batches in every epoch, and the validation sees them too."""
    project.dora("run", "debug=overfit", "threads=1")
    last = project.xp.history()[-1]
    assert last["train"]["acc"] == last["valid"]["acc"] == 1.0


@pytest.mark.slow
def test_export_and_import(project: Project, tmp_path):
    sig = sig_of(project.dora("run", *QUICK))
    text = project.dora("export", sig)
    other = Project(tmp_path / "other")
    code, said = imported(text, other)
    assert code == 0 and sig in said, said
    assert other.xp.sig == sig and "  new  " in other.dora("run", "-f", sig)


@pytest.mark.slow
def test_metrics_go_along_where_they_are_asked_for(reference: Project, tmp_path):
    ours = reference.xp
    text = Project(reference.out, env={"DORA_EXPORT_METRICS": "1"}).dora("export", ours.sig)
    other = Project(tmp_path / "other")
    for _ in range(2):  # the second time it is there already
        code, said = imported(text, other)
        assert code == 0 and ours.sig in said, said
    assert other.xp.birth() == ours.birth() and other.xp.result() == ours.result()
    assert other.xp.history() == ours.history() and other.xp.confusion() == ours.confusion()
    assert "nothing to do" in other.dora("run", "-f", ours.sig)
    assert f"{ours.result()['test']['acc']:.4g}" in other.dora("info", "-f", ours.sig)


def dump(value: Any) -> str:
    """As `dora export` writes it, whatever there is to write."""
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@pytest.mark.parametrize(
    "text", ["garbage", dump({"a": 1}), dump([[1]]), dump([{"birth": {"sig": "../../x"}}])]
)
def test_what_is_no_export_is_refused(project: Project, text: str):
    code, said = imported(text, project)
    assert code == 1 and "not an export of Dora" in said and "Traceback" not in said, said
    assert not project.out.exists()


def test_a_record_under_a_foreign_name_is_refused(
    project: Project, reference: Project, monkeypatch
):
    monkeypatch.setenv("DORA_EXPORT_METRICS", "1")
    record = exported([], reference.xp)
    record["birth"]["sig"] = "../../x"
    code, said = imported(dump([record]), project)
    assert code == 1 and "Nothing is imported" in said and not project.out.exists(), said


def imported(text: str, project: Project) -> tuple[int, str]:
    """What `dora import` ends with and says, if it is given this text."""
    run = Run(project, "import", given=text + "\n")
    return run.wait(), run.text


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_run(project: Project):
    """`dora run | head -1`"""
    process = project.start("dora", "run", *QUICK)
    assert process.stdout and "XP" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert project.xp.state().state is State.COMPLETED and "finished" in project.xp.log.read_text()


@pytest.mark.slow
def test_other_versions_than_before_are_said(project: Project):
    args = ["run", *QUICK, "checkpoint.every_minutes=0.000001"]
    first = Run(project, *args, fault=("step", 3, signal.SIGTERM))
    assert first.wait() != 0 and "other versions" not in first.text
    start = project.xp.folder / "attempts/1.start.json"
    record = stored(start)
    assert record["versions"] == project.xp.birth().versions
    record["versions"]["torch"] = "2.0.0"
    start.write_text(json.dumps(record))
    said = f"other versions than in the attempt before: torch 2.0.0 -> {torch.__version__}"
    assert said.partition("+")[0] in project.dora(*args)
    assert "dora_train 1." in project.dora("info", "-f", project.xp.sig)
