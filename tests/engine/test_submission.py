"""Each experiment once: two commands at once, and a command that is killed between intent,
submission and record."""

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from dora.conf import SlurmConfig

from dora_train.engine import machine
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import RunState, State
from dora_train.engine.grid import cancellation, order, settlement, submission
from dora_train.engine.grid.request import Outcome, Request
from dora_train.engine.grid.settlement import settle
from dora_train.engine.jobs.executor import JobInfo, NotSubmitted, Phase, Receipt, Unanswered
from dora_train.engine.jobs.resources import Shape
from dora_train.engine.watch.status import look


def submit(requests: Sequence[Request], executor, folder: Path) -> list[Outcome]:
    """Submit each experiment as a job of its own; several are one array."""
    return submission.submit([[request] for request in requests], executor, folder)


class Fake:
    """An executor that keeps its jobs in a folder, so that several processes share it."""

    name = queue = "fake"

    def __init__(self, folder, fails=None, answers=True):
        self.folder, self.fails, self.answers, self.cancelled = folder, fails, answers, []
        folder.mkdir(exist_ok=True)

    def missing(self):
        return ""

    def submit(self, order):
        if self.fails:
            raise self.fails
        job_id = str(100 + sum(1 for _ in self.folder.iterdir()))
        (self.folder / order.name).write_text(job_id)
        return Receipt(job_id)

    def log_path(self, order, job_id, task):
        return order.folder / f"{job_id}.out"

    def answers_for(self, job):
        return True

    def lost(self, job):
        return False

    def cancel(self, job_ids):
        self.cancelled += job_ids

    def jobs(self, job_ids, force=False):
        return {job_id: JobInfo(job_id, Phase.PENDING) for job_id in job_ids}

    def find(self, names):
        known = {path.name: path.read_text() for path in self.folder.iterdir()}
        return {name: known[name] for name in names if name in known} if self.answers else None


def experiment(tmp_path, number=0) -> Experiment:
    folder = tmp_path / "xps" / f"0123abc{number}"
    folder.mkdir(parents=True, exist_ok=True)
    return Experiment(folder)


def request(xp: Experiment, tmp_path, seen=0, **what) -> Request:
    return Request(xp, SlurmConfig(gpus=0, partition=""), Shape(), seen, tmp_path / "code", **what)


def test_an_order_has_the_threads_of_its_jobs(tmp_path):
    tasks = [
        order.Task(request(experiment(tmp_path, number), tmp_path, excluded=excluded), number)
        for number, excluded in enumerate([{"threads": 2}, {"threads": 3}, {}])
    ]
    alone = replace(tasks[2], index=None)
    assert order.make_order([alone], "token", "name", tmp_path).threads == 1
    assert order.make_order(tasks, "token", "name", tmp_path).threads == 3


def intent(tmp_path, monkeypatch, xp, age=120.0, alive=False):
    """What a command leaves that is killed right after its intent."""
    task = order.Task(request(xp, tmp_path))
    job = submission._intent(task, Fake(tmp_path / "jobs"), "tok", f"dora_{xp.sig}_tok")
    job.submitted -= age
    job.writer["pid"] = job.writer["pid"] if alive else 2**22 + 1
    assert xp.intend_job(job)


def test_an_intent_comes_first_and_the_id_after(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    outcome = submit([request(xp, tmp_path, grid="g", excluded={"threads": 2})], fake, tmp_path)[0]
    job = xp.job()
    assert outcome.job_id == job.job_id == "100" and (job.number, job.grid, job.excluded) == (
        1,
        "g",
        {"threads": 2},
    )
    assert job.name == f"dora_{xp.sig}_{job.token}" and job.log.endswith("100.out")
    assert look([xp], fake)[xp.sig].state == State.WAITING


def test_whoever_looked_before_another_submitted_comes_too_late(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    first, second = (submit([request(xp, tmp_path)], fake, tmp_path)[0] for _ in range(2))
    assert first.submitted and not second.submitted and len(list(fake.folder.iterdir())) == 1
    assert (
        submit([request(xp, tmp_path, seen=1)], fake, tmp_path)[0].submitted
        and xp.job().number == 2
    )


def _race(folder, barrier):
    xps = [experiment(folder, number) for number in range(3)]
    barrier.wait()
    for xp in xps:
        submit([request(xp, folder)], Fake(folder / "jobs"), folder)


def test_ten_commands_at_once_submit_each_experiment_once(tmp_path):
    context = multiprocessing.get_context("fork")
    (tmp_path / "jobs").mkdir()
    barrier = context.Barrier(10)
    processes = [context.Process(target=_race, args=(tmp_path, barrier)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert len(list((tmp_path / "jobs").iterdir())) == 3
    assert all(experiment(tmp_path, number).job().job_id for number in range(3))


def test_an_array_is_one_submission_and_one_small_file(tmp_path):
    xps, fake = [experiment(tmp_path, number) for number in range(3)], Fake(tmp_path / "jobs")
    submit([request(xps[1], tmp_path)], fake, tmp_path)  # another command took one of them
    outcomes = submit([request(xp, tmp_path) for xp in xps], fake, tmp_path)
    assert sorted(outcome.job_id for outcome in outcomes) == ["", "101_0", "101_2"]
    tasks = json.loads(next((tmp_path / "arrays").glob("*/tasks.json")).read_text())
    assert tasks[0] == [str(xps[0].folder), xps[0].job().token] and tasks[1] is None


def test_a_task_costs_the_same_however_many_an_array_has(tmp_path):
    written = {}
    for count in (10, 200):
        folder = tmp_path / f"of {count:03}"
        folder.mkdir()
        submit(
            [request(experiment(folder, number), folder) for number in range(count)],
            Fake(folder / "jobs"),
            folder,
        )
        written[count] = (
            sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / count
        )
    assert written[200] < 1.05 * written[10] and written[200] < 5000, "bytes"


@pytest.mark.parametrize(
    "fails, state", [(NotSubmitted("refused"), State.NEW), (Unanswered("timed out"), State.WAITING)]
)
def test_a_refusal_is_no_job_but_silence_may_be_one(tmp_path, fails, state):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs", fails)
    assert not submit([request(xp, tmp_path)], fake, tmp_path)[0].submitted
    assert look([xp], fake)[xp.sig].state == state


def test_a_job_that_is_there_although_sbatch_did_not_say_so_is_taken_up_at_once(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")

    def silent(order):
        (fake.folder / order.name).write_text("77")
        raise Unanswered("sbatch printed no job id (nothing)")

    fake.submit = silent
    [outcome] = submit([request(xp, tmp_path)], fake, tmp_path)
    assert outcome.job_id == xp.job().job_id == "77" and not fake.cancelled
    xps = [experiment(tmp_path, number) for number in (1, 2)]
    outcomes = submit([request(xp, tmp_path) for xp in xps], fake, tmp_path)
    assert [outcome.job_id for outcome in outcomes] == ["77_0", "77_1"]


def test_killed_after_sbatch_the_job_is_adopted(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    intent(tmp_path, monkeypatch, xp)
    (fake.folder / f"dora_{xp.sig}_tok").write_text("77")
    settle([xp], fake)
    assert xp.job().job_id == "77" and not fake.cancelled


def test_killed_before_sbatch_the_intent_is_given_up(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    intent(tmp_path, monkeypatch, xp)
    settle([xp], fake)
    assert xp.job() is None and xp.job_number() == 1  # the next one is number 2
    assert submit([request(xp, tmp_path, seen=1)], fake, tmp_path)[0].submitted


def test_nothing_is_given_up_while_nobody_answers_or_the_maker_lives(tmp_path, monkeypatch):
    xp = experiment(tmp_path)
    intent(tmp_path, monkeypatch, xp)
    settle([xp], Fake(tmp_path / "jobs", answers=False))
    assert xp.job().job_id == "" and look([xp], None)[xp.sig].state == State.WAITING
    other = experiment(tmp_path, 1)
    intent(tmp_path, monkeypatch, other, alive=True)
    settle([other], Fake(tmp_path / "jobs"))
    assert other.job() is not None and not other.job().error


def test_sbatch_may_outlive_its_caller_by_a_moment(tmp_path, monkeypatch):
    xp, slept = experiment(tmp_path), []
    monkeypatch.setattr(settlement.time, "sleep", slept.append)
    intent(tmp_path, monkeypatch, xp, age=0)
    settle([xp], Fake(tmp_path / "jobs"))
    assert slept and 0 < slept[0] <= settlement.ORPHANED


def test_a_maker_that_was_given_up_cancels_its_own_job(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    fake.submit = lambda order: xp.record_job(1, error="given up") and Receipt("55")
    outcome = submit([request(xp, tmp_path)], fake, tmp_path)[0]
    assert not outcome.submitted and fake.cancelled == ["55"]


def test_cancelled_by_us_is_told_from_an_accident(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    assert cancellation.cancel([xp], fake) == ["100"] == fake.cancelled
    fake.jobs = lambda job_ids, force=False: {
        job_id: JobInfo(job_id, Phase.OVER, "FAILED") for job_id in job_ids
    }
    assert look([xp], fake)[xp.sig].state == State.CANCELLED


def test_what_is_replaced_is_cancelled_after_the_intent(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    submit([request(xp, tmp_path, seen=1, replaces=["100"])], fake, tmp_path)
    # too late, hence no second scancel
    submit([request(xp, tmp_path, seen=1, replaces=["100"])], fake, tmp_path)
    assert fake.cancelled == ["100"] and xp.job().job_id == "101"


def test_a_replacement_that_is_refused_loses_nothing(tmp_path):
    """Its job was cancelled for it: nobody asked for an end."""
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    fake.fails = NotSubmitted("refused")
    submit([request(xp, tmp_path, seen=1, replaces=["100"])], fake, tmp_path)
    fake.jobs = lambda job_ids, force=False: {
        job_id: JobInfo(job_id, Phase.OVER, "CANCELLED") for job_id in job_ids
    }
    assert fake.cancelled == ["100"] and look([xp], fake)[xp.sig].state == State.INTERRUPTED


def test_the_command_survives_the_shell(tmp_path):
    import shlex

    odd = tmp_path / 'it\'s a "50%" día, $(x=1)'
    words = shlex.split(
        order.job_command(None, order.job_program(odd / "code", odd / "xps", "tok"))
    )
    assert words[-3:] == [
        str(odd / "code" / "dora_train" / "engine" / "job.py"),
        str(odd / "xps"),
        "tok",
    ]
    assert order.job_command(
        "singularity exec x python", order.job_program(odd, odd, "")
    ).startswith("singularity exec x python -u ")


@pytest.mark.parametrize("variable", ["", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_threads_of_a_job_soon_sleep_unless_the_user_says_how_they_wait(
    tmp_path, monkeypatch, variable: str
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "ACTIVE")
    task = order.Task(request(experiment(tmp_path), tmp_path))
    made = order.make_order([task], "tok", "name", tmp_path)
    assert made.variables.get("GOMP_SPINCOUNT") == (None if variable else "10000")


def test_a_copy_of_a_folder_has_no_part_in_its_job(tmp_path):
    """It shows what it knows, is submitted by itself, and cancels nothing of the original."""
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    shutil.copytree(tmp_path / "xps", tmp_path / "copy" / "xps")
    copied = Experiment(tmp_path / "copy" / "xps" / xp.sig)
    assert look([copied], fake)[copied.sig].state == State.NEW
    assert cancellation.cancel([copied], fake) == [] == fake.cancelled
    assert submit([request(copied, tmp_path, seen=copied.job_number())], fake, tmp_path)[
        0
    ].submitted
    assert copied.job().job_id == "101" and xp.job().job_id == "100"


def test_a_folder_that_is_moved_or_restored_keeps_its_job(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    (tmp_path / "xps").rename(tmp_path / "moved")
    assert Experiment(tmp_path / "moved" / xp.sig).job().job_id == "100"
    shutil.copytree(tmp_path / "moved", tmp_path / "xps")
    assert xp.job().job_id == "100"


def test_a_job_that_another_machine_submitted_is_asked_about_on_a_network_disk_alone(
    tmp_path, monkeypatch
):
    """Where a folder may have another path and inode on each machine."""
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    content = json.loads((xp.jobs / "1.json").read_text())
    content["writer"] |= {"boot_id": "of node7", "folder": "/mnt/outputs/xps/0123abc0"}
    (xp.jobs / "1.json").write_text(json.dumps(content))
    assert xp.job() is not None, "the same folder, by its inode"
    content["writer"]["inode"] += 1
    (xp.jobs / "1.json").write_text(json.dumps(content))
    assert xp.job() is None
    monkeypatch.setattr(machine, "is_local", lambda path: False)
    assert xp.job() is not None


def test_a_job_is_cancelled_by_its_id_and_its_token(tmp_path):
    """What goes to the executor: ids come again."""
    xp, fake, wanted = experiment(tmp_path), Fake(tmp_path / "jobs"), []
    fake.cancel = lambda job_ids: wanted.append(dict(job_ids))
    submit([request(xp, tmp_path)], fake, tmp_path)
    first = xp.job().token
    cancellation.cancel([xp], fake)
    submit([request(xp, tmp_path, seen=1, replaces=["100"])], fake, tmp_path)
    assert [ids for ids in wanted if ids] == [{"100": first}, {"100": first}]


def test_the_maker_of_an_intent_elsewhere_has_its_time_by_the_disks_clock(tmp_path, monkeypatch):
    """Its own may be minutes behind ours, or ahead."""
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    job = submission._intent(order.Task(request(xp, tmp_path)), fake, "tok", f"dora_{xp.sig}_tok")
    job.submitted -= 300
    job.writer |= {"host": "node7", "boot_id": "of node7"}
    assert xp.intend_job(job)
    settle([xp], fake)
    assert xp.job() is not None, "written a moment ago"
    os.utime(xp.jobs / "1.json", (0, time.time() - 300))
    settle([xp], fake)
    assert xp.job() is None


def test_an_intent_that_nobody_here_can_ask_about_is_given_up_on_demand(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    monkeypatch.setattr(settlement, "ORPHANED", 0)
    intent(tmp_path, monkeypatch, xp)
    fake.answers_for, fake.lost = lambda job: False, lambda job: False
    settle([xp], fake)
    assert xp.job() is not None
    monkeypatch.setenv("DORA_TAKE", "1")
    settle([xp], fake)
    assert xp.job() is None


def test_finished_in_the_meantime(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    xp.write_state(RunState(State.COMPLETED, ended=time.time()))
    assert look([xp], fake)[xp.sig].state == State.COMPLETED
