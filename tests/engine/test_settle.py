"""What a command finds that others have left: open intents, jobs to end, and a scheduler without
room."""

import json
import os
import time
from dataclasses import replace

import pytest
from dora.conf import SlurmConfig
from test_submission import Fake, experiment, intent, request, submit

from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import NO_ROOM, Job
from dora_train.engine.grid import cancellation, faults, order, settlement, submission
from dora_train.engine.grid.packs import jobs_of
from dora_train.engine.grid.settlement import settle
from dora_train.engine.jobs.executor import JobInfo, NoRoom, Phase
from dora_train.engine.jobs.resources import Shape


def started(xp: Experiment, job_id: str, token: str = "tok") -> None:
    """The job of an intent has begun, and made its claim."""
    claims.claim(xp, job_id, token)


# --- an intent whose job has started ---


def test_a_job_that_gave_its_id_in_its_claim_is_adopted_whatever_the_scheduler_says(
    tmp_path, monkeypatch
):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs", answers=False)
    intent(tmp_path, monkeypatch, xp, alive=True)
    started(xp, "77")
    settle([xp], fake)
    job = xp.job()
    assert job.job_id == "77" and job.log == str(xp.submitit / "77.out") and not job.error


def test_so_is_a_task_of_an_array(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs", answers=False)
    job = submission._intent(order.Task(request(xp, tmp_path), 3), fake, "tok", "dora_array_tok")
    assert xp.intend_job(job)
    started(xp, "77_3")
    settle([xp], fake)
    assert xp.job().job_id == "77_3" and xp.job().log == str(tmp_path / "arrays" / "tok" / "77.out")


@pytest.mark.parametrize(
    "job_id, token", [("77", "another"), ("", "tok")], ids=["another job", "no job"]
)
def test_the_claim_of_somebody_else_says_nothing_of_it(tmp_path, monkeypatch, job_id, token):
    xp = experiment(tmp_path)
    intent(tmp_path, monkeypatch, xp)
    started(xp, job_id, token)
    settle([xp], Fake(tmp_path / "jobs", answers=False))
    assert xp.job().job_id == "" and not xp.job().error


def test_a_damaged_intent_is_never_adopted_by_its_empty_token(tmp_path):
    xp = experiment(tmp_path)
    xp.jobs.mkdir()
    (xp.jobs / "1.json").write_text("")
    started(xp, "77", token="")
    settle([xp], Fake(tmp_path / "jobs", answers=False))
    assert xp.job().job_id == ""


# --- an intent whose maker is gone ---


class Asked(Fake):
    """An executor that notes the names it is asked about."""

    def find(self, names):
        self.names = getattr(self, "names", []) + list(names)
        return super().find(names)


def test_the_scheduler_is_asked_once_and_of_open_intents_alone(tmp_path, monkeypatch):
    xps, fake = [experiment(tmp_path, number) for number in range(4)], Asked(tmp_path / "jobs")
    for xp in xps[:2]:
        intent(tmp_path, monkeypatch, xp)
    submit([request(xps[2], tmp_path)], fake, tmp_path)
    settle(xps, fake)
    assert fake.names == [f"dora_{xp.sig}_tok" for xp in xps[:2]]
    assert xps[2].job().job_id == "100" and [xp.job() for xp in xps[:2]] == [None, None]


def test_the_intents_of_another_cluster_are_left_to_it(tmp_path, monkeypatch):
    xp, fake = experiment(tmp_path), Asked(tmp_path / "jobs")
    intent(tmp_path, monkeypatch, xp)
    fake.answers_for = lambda job: False
    settle([xp], fake)
    assert not hasattr(fake, "names") and not xp.job().error


def test_this_process_may_settle_its_own_submission_once_its_time_is_over(tmp_path):
    """sbatch did not answer, and an open grid goes on."""
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    task = order.Task(request(xp, tmp_path))
    assert xp.intend_job(submission._intent(task, fake, "tok", f"dora_{xp.sig}_tok"))
    settle([xp], fake)
    assert xp.job() is not None and not xp.job().error, "the scheduler may still take it up"
    for age, is_open in ((settlement.PATIENCE + 20, True), (2 * settlement.PATIENCE + 20, False)):
        made = time.time() - age
        os.utime(xp.jobs / "1.json", (made, made))
        settle([xp], fake)
        assert (xp.job() is not None) is is_open


def test_a_maker_that_cannot_be_asked_has_its_time(tmp_path, monkeypatch):
    fake = Fake(tmp_path / "jobs")
    for number, age in enumerate((settlement.PATIENCE - 20, settlement.PATIENCE + 20)):
        xp = experiment(tmp_path, number)
        job = submission._intent(
            order.Task(request(xp, tmp_path)), fake, "tok", f"dora_{xp.sig}_tok"
        )
        job.writer.update(host="node7", boot_id="of node7", machine_id="of node7")
        job.submitted -= age
        assert xp.intend_job(job)
        when = time.time() - age
        os.utime(xp.jobs / "1.json", (when, when))
    settle([experiment(tmp_path, number) for number in (0, 1)], fake)
    young, old = (experiment(tmp_path, number).job() for number in (0, 1))
    assert young is not None and old is None


def test_an_intent_that_was_given_up_in_the_meantime_is_not_submitted(tmp_path):
    """Its maker was slow: between intent and sbatch another command took it over."""
    xps, fake = [experiment(tmp_path, number) for number in (0, 1)], Fake(tmp_path / "jobs")
    fake.cancel = lambda job_ids: xps[0].record_job(1, error="given up")
    assert submit([request(xps[0], tmp_path)], fake, tmp_path) == []
    assert list(fake.folder.iterdir()) == []


def test_a_job_that_was_adopted_in_the_meantime_is_ours(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    stock = fake.submit
    fake.submit = lambda order: (
        (receipt := stock(order)) and xp.record_job(1, receipt.job_id) and receipt
    )
    [outcome] = submit([request(xp, tmp_path)], fake, tmp_path)
    assert outcome.submitted and not fake.cancelled


# --- the end of jobs ---


def test_a_cancellation_is_one_question_for_all_jobs(tmp_path):
    xps, fake = [experiment(tmp_path, number) for number in range(3)], Fake(tmp_path / "jobs")
    for xp in xps[:2]:
        submit([request(xp, tmp_path)], fake, tmp_path)
    calls = []
    fake.cancel = lambda job_ids: calls.append(sorted(job_ids))
    assert sorted(cancellation.cancel(xps, fake)) == ["100", "101"] and calls == [["100", "101"]]
    assert xps[0].job().cancelled == claims.user_name()
    assert cancellation.cancel([xps[2]], fake) == [] and len(calls) == 1, (
        "nobody is asked for nothing"
    )


def test_waiting_for_the_end_of_jobs(tmp_path, monkeypatch):
    xp, fake, slept = experiment(tmp_path), Fake(tmp_path / "jobs"), []
    submit([request(xp, tmp_path)], fake, tmp_path)

    def ends(seconds):
        slept.append(seconds)
        fake.jobs = lambda job_ids, force=False: {
            job_id: JobInfo(job_id, Phase.OVER, "CANCELLED") for job_id in job_ids
        }

    monkeypatch.setattr(cancellation.time, "sleep", ends)
    cancellation.wait_until_over([xp], fake)
    assert len(slept) == 1


def test_a_job_that_does_not_end_is_said(tmp_path):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    submit([request(xp, tmp_path)], fake, tmp_path)
    with pytest.raises(
        UserError, match=f"XP {xp.sig} still runs 0 s after it was cancelled; nothing was removed"
    ):
        cancellation.wait_until_over([xp], fake, seconds=0)


# --- a scheduler without room ---


class Room(Fake):
    """An executor that takes so many jobs, and the sizes of all orders that it was given."""

    def __init__(self, folder, room):
        super().__init__(folder)
        self.room, self.sizes = room, []

    def submit(self, order):
        size = len(order.tasks or [0])
        self.sizes.append(size)
        if size > self.room:
            raise NoRoom("AssocMaxSubmitJobLimit")
        self.room -= size
        return super().submit(order)


def asked(tmp_path, count, grid="g", **slurm):
    settings = SlurmConfig(gpus=0, **{"partition": "", **slurm})
    return [
        replace(request(experiment(tmp_path, number), tmp_path, grid=grid), slurm=settings)
        for number in range(count)
    ]


def submit_all(batches, *args, **kwargs):
    """Each experiment is a job of its own."""
    jobs = [[[request] for request in batch] for batch in batches]
    return submission.submit_all(jobs, *args, **kwargs)


@pytest.mark.parametrize(
    "room, sizes", [(5, [5]), (2, [5, 2, 2, 1]), (0, [5, 2, 1]), (4, [5, 2, 2, 1])]
)
def test_what_there_is_no_room_for_waits_with_us(tmp_path, room, sizes):
    fake = Room(tmp_path / "jobs", room)
    outcomes = submit_all([asked(tmp_path, 5)], fake, tmp_path)
    assert fake.sizes == sizes
    assert [sum(one.submitted for one in outcomes), sum(one.held for one in outcomes)] == [
        room,
        5 - room,
    ]
    assert len(outcomes) == 5 and not any(one.refused for one in outcomes)
    held = [one.experiment.job() for one in outcomes if one.held]
    assert all(job.held and job.grid == "g" and not job.job_id for job in held)


def test_a_job_that_waits_or_runs_is_not_given_up_for_one_without_room(tmp_path):
    """The limit was reached by an earlier request, so nothing was cancelled for this one."""
    first, second = ([one] for one in asked(tmp_path, 2))
    old = second[0].experiment
    old.intend_job(Job("token", "slurm", 1.0, number=1))
    old.record_job(1, "77")
    second = [replace(second[0], seen=1, replaces=("77",))]
    outcomes = submit_all([first, second], Room(tmp_path / "jobs", 0), tmp_path)
    assert [one.held for one in outcomes] == [True, False]
    assert outcomes[1].trouble.endswith("its job stays as it is")
    assert old.job_number() == 1 and old.job().job_id == "77" and not old.job().cancelled


def test_what_waits_with_us_keeps_the_memory_that_it_was_given(tmp_path):
    """The second request is not tried, because the first has found no room."""
    requests = [[replace(one, raised={"oom": 1})] for one in asked(tmp_path, 2)]
    fake = Room(tmp_path / "jobs", 0)
    outcomes = submit_all(requests, fake, tmp_path)
    assert fake.sizes == [1] and [one.held for one in outcomes] == [True, True]
    assert [one.experiment.job().raised for one in outcomes] == [{"oom": 1}] * 2


def test_nobody_waits_for_a_clock_that_was_set_back(monkeypatch):
    pauses = []
    monkeypatch.setattr(settlement.time, "sleep", pauses.append)
    settlement._wait_for_sbatch(Job("token", "slurm", time.time() + 3600, number=1))
    assert pauses == [settlement.ORPHANED]


def test_a_job_of_no_grid_is_refused_for_want_of_room(tmp_path):
    """Nobody would put it in later."""
    [outcome] = submit_all([asked(tmp_path, 1, grid="")], Room(tmp_path / "jobs", 0), tmp_path)
    assert outcome.refused and not outcome.held and outcome.experiment.job() is None


def test_what_waits_with_us_is_written_down_once(tmp_path):
    fake = Room(tmp_path / "jobs", 0)
    [outcome] = submit_all([asked(tmp_path, 1)], fake, tmp_path)
    number = outcome.experiment.job_number()
    for _ in range(3):
        again = [replace(one, seen=outcome.experiment.job_number()) for one in asked(tmp_path, 1)]
        [outcome] = submit_all([again], fake, tmp_path, careful=True)
        assert outcome.held and outcome.trouble == NO_ROOM
    numbers = [
        outcome.experiment.job_at(at) for at in range(number, outcome.experiment.job_number() + 1)
    ]
    assert all(job.held for job in numbers), numbers


def test_with_care_it_begins_with_one_and_doubles(tmp_path):
    fake = Room(tmp_path / "jobs", 100)
    outcomes = submit_all([asked(tmp_path, 9)], fake, tmp_path, careful=True)
    assert fake.sizes == [1, 2, 4, 2] and all(one.submitted for one in outcomes)


def test_a_partition_that_is_full_is_not_asked_again_but_others_are(tmp_path):
    fake = Room(tmp_path / "jobs", 1)
    first, second, third = (
        [
            replace(
                asked(tmp_path, 3, partition=name)[number], experiment=experiment(tmp_path, number)
            )
        ]
        for number, name in enumerate(("big", "big", "small"))
    )
    fake.room = 0
    outcomes = submit_all([first, second, third], fake, tmp_path)
    assert fake.sizes == [1, 1] and [one.held for one in outcomes] == [True] * 3


def test_batches_are_what_a_job_array_named(tmp_path):
    from dora.explore import Herd

    requests = {one.experiment.sig: one for one in asked(tmp_path, 4)}
    sigs = list(requests)
    herd = Herd(job_arrays=[[sigs[0]], sigs[1:3], [sigs[3], "00000000"]])
    found = jobs_of(herd.job_arrays, requests)
    assert [[[one.experiment.sig for one in job] for job in batch] for batch in found] == [
        [[sigs[0]]],
        [[sigs[1]], [sigs[2]]],
        [[sigs[3]]],
    ]


def test_the_tasks_of_an_array_are_found_by_their_numbers(tmp_path):
    fake = Fake(tmp_path / "jobs")
    submit(asked(tmp_path, 3), fake, tmp_path)
    [tasks] = (tmp_path / "arrays").glob("*/tasks.json")
    found = json.loads(tasks.read_text())
    for number, (folder, token) in enumerate(found):
        job = experiment(tmp_path, number).job()
        assert (
            folder == str(experiment(tmp_path, number).folder)
            and token == job.token
            and job.task == number
        )


def test_one_alone_is_no_array(tmp_path):
    fake = Fake(tmp_path / "jobs")
    submit(asked(tmp_path, 1), fake, tmp_path)
    job = experiment(tmp_path).job()
    assert (
        job.task is None
        and job.job_id == "100"
        and job.name == f"dora_{experiment(tmp_path).sig}_{job.token}"
    )
    assert not (tmp_path / "arrays").exists()


def test_a_fault_ends_the_process_only_where_it_is_asked_for(monkeypatch):
    ended = []
    monkeypatch.setattr(faults.os, "_exit", ended.append)
    monkeypatch.setenv("DORA_FAULT", "sbatch")
    for point in ("one intent", "sbatch"):
        faults.fault(point)
    assert ended == [137]


def test_a_shape_of_its_own_is_part_of_a_limit(tmp_path):
    one, other = asked(tmp_path, 2)
    other = replace(other, shape=Shape(sbatch={"reservation": "lab"}))
    assert submission._limit(one) != submission._limit(other)


def test_a_full_disk_keeps_no_job_from_being_cancelled(tmp_path, monkeypatch, capsys):
    xp, fake = experiment(tmp_path), Fake(tmp_path / "jobs")
    [outcome] = submit([request(xp, tmp_path)], fake, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    cancelled = []
    monkeypatch.setattr(Experiment, "cancel_job", full)
    monkeypatch.setattr(fake, "cancel", cancelled.extend)
    assert cancellation.cancel([xp], fake) == [outcome.job_id] == cancelled
    assert "No space left on device" in capsys.readouterr().err
