"""What a job does at its end on SLURM: it starts again after a signal that was no cancellation."""

from __future__ import annotations

import subprocess

import pytest

from dora_train.engine import job
from dora_train.engine.experiment.records import Job

SHOWN = "JobId=8812 JobName=dora_x JobState={} Reason=None\n"


@pytest.mark.parametrize(
    "squeue, scontrol, requeued",
    [
        ("RUNNING\n", "", True),
        ("COMPLETING\n", SHOWN.format("RUNNING"), False),
        ("PENDING\n", "", False),
        ("", SHOWN.format("RUNNING"), True),
        ("", SHOWN.format("COMPLETING"), False),
        ("", "", False),
    ],
)
def test_a_job_that_still_runs_is_requeued(monkeypatch, squeue, scontrol, requeued):
    asked = []

    def run(*command):
        asked.append(command)
        said = {"squeue": squeue, "scontrol": scontrol}[command[0]]
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setenv("SLURM_JOB_ID", "8812")
    monkeypatch.delenv("DORA_TRAIN_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr(job, "_run", run)
    job.requeue()
    assert (("scontrol", "requeue", "8812") in asked) == requeued


def test_outside_slurm_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(job, "_run", None)
    job.requeue()


def test_an_array_s_task_is_requeued_by_its_own_id(monkeypatch):
    monkeypatch.delenv("DORA_TRAIN_JOB_ID", raising=False)
    for name, value in (
        ("SLURM_JOB_ID", "12"),
        ("SLURM_ARRAY_JOB_ID", "12"),
        ("SLURM_ARRAY_TASK_ID", "3"),
    ):
        monkeypatch.setenv(name, value)
    assert job.job_id() == "12_3"


@pytest.mark.parametrize(
    "most, starts, requeued", [(None, "7", True), (3, "2", True), (3, "3", False), (0, "", False)]
)
def test_a_job_is_requeued_as_often_as_it_may(monkeypatch, capsys, most, starts, requeued):
    """`slurm.max_num_timeout`, in Dora's words; SLURM counts the starts after the first."""
    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "8812")
    monkeypatch.setenv("SLURM_RESTART_COUNT", starts)
    monkeypatch.setattr(
        job,
        "_run",
        lambda *command: (
            asked.append(command) or subprocess.CompletedProcess(command, 0, "RUNNING\n", "")
        ),
    )
    job.requeue(most)
    assert bool(asked) == requeued
    assert ("slurm.max_num_timeout=" in capsys.readouterr().out) != requeued


def test_the_limit_is_what_the_job_was_given():
    def given(**slurm):
        return job.most_requeues(Job("token", "slurm", 0.0, excluded={"slurm": slurm}))

    assert given(max_num_timeout=3) == 3 and given(time=1) is None
    assert job.most_requeues(Job("token", "slurm", 0.0)) is None and job.most_requeues(None) is None
