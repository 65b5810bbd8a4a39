"""Every flag that Dora's own parser declares, and what it does here.

None crashes, none is passed over in silence.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import time

import pytest
from dora.__main__ import get_parser
from grid_project import ASLEEP, GridProject
from project import QUICK, Project, sig_of

PINNED = {
    "": {"--package": "test_package", "--main_module": "test_package", "--verbose": "test_package"},
    "run": {
        "--from_sig": "test_run.py",
        "--ddp": "test_run.py",
        "--ddp_workers": "test_run.py, test_errors.py",
        "--git_save": "refused: test_errors.py",
        "--clear": "test_run.py",
        "argv": "test_run.py",
    },
    "info": {
        "--from_sig": "test_info",
        "--job_id": "test_jobs",
        "--cancel": "test_run.py",
        "--log": "test_info",
        "--tail": "test_info",
        "--metrics": "test_info",
        "argv": "test_info",
    },
    "launch": {
        "--from_sig": "test_jobs",
        "--attach": "test_jobs",
        "--no_tail": "test_jobs",
        "--cancel": "test_jobs",
        "--clear": "test_jobs",
        "--retry": "test_jobs",
        "--replace": "test_jobs",
        "--replace_done": "test_done",
        "--no_git_save": "test_jobs",
        "--gpus": "test_jobs",
        "--partition": "test_jobs",
        "--dev": "test_refused",
        "--comment": "test_grid_slurm.py",
        "--constraint": "test_jobs",
        "argv": "test_jobs",
    },
    "grid": {
        "--retry": "test_grid_slurm.py",
        "--replace": "test_grid",
        "--replace_done": "test_done",
        "--no_git_save": "test_grid",
        "--gpus": "test_grid",
        "--partition": "test_grid",
        "--dev": "test_refused",
        "--comment": "test_grid",
        "--constraint": "test_grid",
        "--cancel": "test_grid_slurm.py",
        "--clear": "test_grid",
        "--interval": "test_done",
        "--no_monitoring": "test_grid",
        "--dry_run": "test_grid_slurm.py",
        "--trim": "test_done",
        "--trim_last": "test_done",
        "--folder": "test_grid",
        "--log": "test_done",
        "--tail": "test_done",
        "--init": "test_grid",
        "grid": "test_grid",
        "patterns": "test_grid",
    },
    "import": {},
    "export": {"sigs": "test_run.py"},
}


def declared() -> dict[str, set[str]]:
    """{verb: the long names of its flags, and of its positional arguments}; the verb "" is the
    command itself."""
    parser = get_parser()
    [verbs] = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]

    def names(of: argparse.ArgumentParser) -> set[str]:
        actions = [
            action
            for action in of._actions
            if not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
        ]
        return {max(action.option_strings, key=len, default=action.dest) for action in actions}

    return {"": names(parser)} | {verb: names(sub) for verb, sub in verbs.choices.items()}


def test_every_declared_flag_is_pinned():
    assert declared() == {verb: set(flags) for verb, flags in PINNED.items()}


@pytest.mark.slow
def test_package(project: Project):
    output = project.dora("-v", "-P", "dora_train", "--main_module", "train", "run", *QUICK)
    assert "finished" in output
    assert "Failed to import" in project.dora("-P", "nonsense", "run", code=1)


@pytest.mark.slow
def test_info(project: Project):
    assert "was never started" in project.dora("info", *QUICK, code=1)
    sig = sig_of(project.dora("run", *QUICK))
    assert f"dora run -f {sig} seed=7\n" in project.dora("info", "-f", sig, "seed=7", code=1)
    shown = project.dora("info", "-f", sig)
    assert len(shown.splitlines()) <= 15
    assert re.search(r"^began      \d\d \w+ \d\d:\d\d, took \d+ s$", shown, re.M)
    for word in (
        sig,
        "debug=fast",
        "completed",
        "valid loss",
        "best",
        "test",
        "torch",
        "outputs",
        "train.log",
    ):
        assert word in shown, word
    assert project.dora("info", *QUICK) == shown, "by its overrides as well"
    assert project.dora("info", "-f", sig, "-m").startswith("Metrics[2]: {")
    log = project.dora("info", "-f", sig, "-l")
    assert f"XP {sig}" in log and "finished" in log
    assert "finished" in project.dora("info", "-f", sig, "-t"), "a tail of what is over ends"
    assert "neither waits nor runs" in project.dora("info", "-f", sig, "-C")
    assert "no experiment" in project.dora("info", "-j", "8812", code=1)


@pytest.mark.parametrize("verb", [["grid", "mysweep"], ["launch"]])
def test_refused_without_a_cluster(project: Project, verb: list[str]):
    project.env |= {
        "PATH": os.path.dirname(os.path.realpath("/bin/sh")) + "/nowhere",
        "DORA_CLUSTER": "slurm",
    }
    output = project.dora(*verb, code=1)
    assert (
        "no SLURM here (no sbatch)" in output
        and "DORA_CLUSTER=local" in output
        and "Traceback" not in output
    )
    assert not (project.out / "xps").exists()


def test_refused(project: Project):
    for verb in (["grid", "mysweep"], ["launch"]):
        assert "-p PARTITION" in project.dora(*verb, "--dev", code=1)
    assert 'unknown grid "mysweeep": did you mean mysweep?' in project.dora(
        "grid", "mysweeep", code=1
    )
    listed = project.dora("grid")
    assert "mysweep" in listed and "Does the best learning rate move with the batch size?" in listed


def asked_of(grids: GridProject, job_id: str, *words: str) -> None:
    """The cluster was told so; this machine has neither partitions nor comments, and says so of the
    first."""
    if not grids.is_local:
        job = grids.cluster.run("scontrol", "show", "job", job_id)
        assert all(word in job for word in words), job


def test_grid(grids: GridProject):
    grids.grid(ASLEEP, "for seed in range(3): launcher(seed=seed)")
    assert "+ 3 new" in grids.dora("grid", "question", "--dry_run", "--init"), "--dry_run wins"
    assert not grids.xps()
    out = grids.dora(
        "grid", "question", "1", "--no_monitoring", "-p", "urgent", "-c", "a note", "--no_git_save"
    )
    [first] = grids.xps()
    asked_of(grids, first.job().job_id, "Partition=urgent", "Comment=a note")
    assert ("ignored, SLURM only: partition" in out) == grids.is_local
    assert first.job().code["hash"] == "", "--no_git_save: the live files"
    grids.dora("grid", "question", "*seed=2*", "!seed=1", "--no_monitoring", "--init")
    assert len(grids.xps()) == 2
    before = first.job().job_id
    assert "~ 1 replace" in grids.dora(
        "grid", "question", "1", "-R", "--no_monitoring", DORA_YES="1"
    )
    assert first.job().job_id != before
    before = first.job().job_id
    grids.dora("grid", "question", "-g", "1", "--no_monitoring", DORA_YES="1")
    assert len(grids.xps()) == 3
    assert {xp.job().resources["gpus"] for xp in grids.xps()} >= {1}
    asked_of(
        grids, next(xp for xp in grids.xps() if xp.job().resources["gpus"]).job().job_id, "gpu"
    )
    assert str(grids.xps()[0].folder.parent) in grids.dora("grid", "question", "-f", "0")
    stopped = grids.dora("grid", "question", "--clear", "--no_monitoring", code=1)
    assert "DORA_YES=1" in stopped
    grids.dora("grid", "question", "--clear", "--no_monitoring", DORA_YES="1")
    assert len(grids.xps()) == 3 and first.job().job_id != before
    refused = grids.dora(
        "grid",
        "question",
        "--constraint",
        "nonsense",
        "-R",
        "--no_monitoring",
        DORA_YES="1",
        code=0 if grids.is_local else 1,
    )
    if grids.is_local:
        assert "ignored, SLURM only: constraint" in refused
    else:
        assert "refused" in refused and "feature" in refused, "sbatch's own words"


def test_done(grids: GridProject):
    grids.grid("launcher()", "launcher(seed=1)")
    out = grids.dora("grid", "question", "-i", "0.1")
    assert "completed" in out
    for flags in (["-T", "0"], ["-L"]):
        assert "completed" in grids.dora("grid", "question", "--no_monitoring", *flags)
    assert "there is no experiment 7" in grids.dora(
        "grid", "question", "--no_monitoring", "-T", "7", code=1
    )
    for flag in ("-l", "-t"):
        assert "finished" in grids.dora("grid", "question", flag, "1")
    before = {xp.sig: xp.job().job_id for xp in grids.xps()}
    assert "= 2 kept" in grids.dora("grid", "question", "--no_monitoring")
    assert "~ 2 replace" in grids.dora("grid", "question", "-D", "--no_monitoring", DORA_YES="1")
    assert all(xp.job().job_id != before[xp.sig] for xp in grids.xps())
    sig = grids.xps()[0].sig
    grids.dora("launch", "-f", sig, "-C")
    grids.cluster.wait(lambda: not grids.live())
    assert f"+ {sig}" in grids.dora("launch", "-f", sig, "--clear", "--no_tail")


def test_jobs(grids: GridProject):
    config = grids.folder / "conf" / "engine.yaml"
    awake = config.read_text()
    config.write_text(awake.replace("\nslurm:", '\nslurm:\n  setup: ["sleep 300"]\n#', 1))
    quick = ["debug=fast", "threads=1"]
    grids.dora("launch", *quick, "seed=3", "--no_tail", "-g", "1", "-p", "urgent", "--no_git_save")
    [xp] = grids.xps()
    first = xp.job().job_id
    asked_of(grids, first, "Partition=urgent", "gpu")
    assert xp.sig in grids.dora("info", "-j", first)
    grids.dora("launch", "-f", xp.sig, "-R", "--no_tail")
    assert xp.job().job_id != first
    grids.dora("launch", "-f", xp.sig, "-C")
    config.write_text(awake)
    assert "again: --retry" in grids.dora("launch", "-f", xp.sig, "--no_tail", code=1)
    out = grids.dora("launch", "-f", xp.sig, "--retry", "-a")
    assert "finished" in out, "it follows the log to the end"
    assert "completed" in grids.dora("launch", "-f", xp.sig, "--no_tail")
    assert "job" in grids.dora("launch", "-f", xp.sig, "--replace_done", "--no_tail")
    refused = grids.dora(
        "launch",
        *quick,
        "seed=4",
        "--constraint",
        "nonsense",
        "--no_tail",
        code=0 if grids.is_local else 1,
    )
    assert len(refused.splitlines()) <= 4


def test_ctrl_c_on_an_attached_launch_ends_the_job(grids: GridProject):
    process = grids.start("launch", "trainer.max_epochs=500", "threads=1", "-a")
    while not grids.xps() or not grids.xps()[0].history():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(subprocess.signal.SIGINT)  # type: ignore[attr-defined]
    process.communicate(timeout=60)
    assert process.returncode == 130
    [xp] = grids.xps()
    grids.cluster.wait(lambda: not grids.live())
    assert "cancelled" in grids.dora("info", "-f", xp.sig)
