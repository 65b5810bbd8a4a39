"""What a job does at its end on SLURM: it starts again after a signal that was no cancellation."""

from __future__ import annotations

import subprocess

import pytest

from dora_train.engine import job

SHOWN = "JobId=8812 JobName=dora_x JobState={} Reason=None\n"


@pytest.mark.parametrize("squeue, scontrol, requeued", [
    ("RUNNING\n", "", True), ("COMPLETING\n", SHOWN.format("RUNNING"), False), ("PENDING\n", "", False),
    ("", SHOWN.format("RUNNING"), True), ("", SHOWN.format("COMPLETING"), False), ("", "", False)])
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
    job._requeue()
    assert (("scontrol", "requeue", "8812") in asked) == requeued


def test_outside_slurm_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(job, "_run", None)
    job._requeue()


def test_an_array_s_task_is_requeued_by_its_own_id(monkeypatch):
    monkeypatch.delenv("DORA_TRAIN_JOB_ID", raising=False)
    for name, value in (("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "12"), ("SLURM_ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(name, value)
    assert job._job_id() == "12_3"
