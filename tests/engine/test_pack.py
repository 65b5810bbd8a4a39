"""Several experiments in one job of SLURM (`job.pack`): fewer jobs, and each experiment as if it
had one for itself."""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from test_exact import same
from test_exact_slurm import CHAOS, LINE, Cluster, lives, pid, preempt, requeue, saved, term, usr2
from test_submission import Fake, experiment, request

from dora_train.engine import environment
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import RunState, State
from dora_train.engine.grid import cancellation, settlement, submission
from dora_train.engine.grid.packs import jobs_of
from dora_train.engine.grid.plan import Action, Verb
from dora_train.engine.grid.request import Request
from dora_train.engine.grid.stop import cancel
from dora_train.engine.grid.summary import summary
from dora_train.engine.jobs.executor import JobInfo, Phase
from dora_train.engine.jobs.pack import places
from dora_train.engine.jobs.packing import Packing
from dora_train.engine.jobs.resources import Resources, Shape, parameters
from dora_train.engine.watch.status import Status, look

JOB = "12_0"


class Cluster12(Fake):
    """A scheduler with one job, in a phase that the test says."""

    def __init__(self, folder: Path, phase: Phase = Phase.PENDING, word: str = ""):
        super().__init__(folder)
        self.phase, self.word = phase, word
        self.arrays: list[Sequence[int]] = []

    def submit(self, order):
        self.arrays.append(order.tasks or ())
        return super().submit(order)

    def jobs(self, job_ids, force=False):
        return {job_id: JobInfo(job_id, self.phase, self.word) for job_id in job_ids}


def of(size: int, requests: Sequence[Request]) -> dict[str, Request]:
    return {one.experiment.sig: replace(one, packing=Packing(size)) for one in requests}


def requests(folder: Path, count: int) -> list[Request]:
    return [request(experiment(folder, number), folder) for number in range(count)]


def packed(folder: Path, count: int = 3) -> tuple[Cluster12, list[Experiment]]:
    """The experiments of one job."""
    fake = Cluster12(folder / "jobs")
    wanted = of(count, requests(folder, count))
    submission.submit_all(jobs_of([[sig] for sig in wanted], wanted), fake, folder)
    return fake, [one.experiment for one in wanted.values()]


def begins(xp: Experiment, state: State = State.RUNNING, dead: bool = False) -> None:
    """A process of the job takes the experiment up."""
    job = xp.job()
    assert job is not None
    made = claims.claim(xp, job.job_id, job.token, ask=lambda holder: True)
    if dead:  # on another machine, which nobody can ask
        path = xp.attempts / f"{made.attempt}.json"
        text = path.read_text().replace(made.boot_id, "of node7")
        path.write_text(text.replace(f'"host": "{made.host}"', '"host": "node7"'))
    xp.write_state(RunState(state, attempt=made.attempt))


def status(fake: Fake, xp: Experiment) -> Status:
    return look([xp], fake, force=True)[xp.sig]


# --- which experiments share a job, and what it asks for ---


def test_a_thousand_experiments_are_one_call_of_twenty_jobs():
    wanted = of(50, [request(Experiment(Path(f"/xps/{n:08x}")), Path("/")) for n in range(1000)])
    [array] = jobs_of([[sig] for sig in wanted], wanted)
    assert [len(job) for job in array] == [50] * 20
    assert [one.experiment.sig for job in array for one in job] == list(wanted), "in their order"


def test_those_that_are_alike_are_shared_out_evenly(tmp_path):
    wanted = of(3, requests(tmp_path, 8))
    sigs = list(wanted)
    wanted[sigs[7]] = replace(wanted[sigs[7]], code_root=Path("/other"))
    array, other = jobs_of([[sig] for sig in sigs], wanted)
    assert [[sigs.index(one.experiment.sig) for one in job] for job in array] == [
        [0, 1, 2],
        [3, 4],
        [5, 6],
    ]
    assert [len(job) for job in other] == [1], "other code is another job"


def test_a_job_array_stays_one(tmp_path):
    wanted = of(2, requests(tmp_path, 5))
    sigs = list(wanted)
    array, rest = jobs_of([sigs[:3], [sigs[3]], [sigs[4]]], wanted)
    assert [len(job) for job in array] == [2, 1] and [len(job) for job in rest] == [2]


def test_each_member_knows_its_place(tmp_path):
    fake = Cluster12(tmp_path / "jobs")
    wanted = of(2, requests(tmp_path, 3))
    outcomes = submission.submit_all(jobs_of([[sig] for sig in wanted], wanted), fake, tmp_path)
    assert fake.arrays == [[0, 1]] and all(one.submitted for one in outcomes)
    jobs = [one.experiment.job() for one in outcomes]
    assert [(job.job_id, job.task, job.member) for job in jobs] == [
        ("100_0", 0, 0),
        ("100_0", 0, 1),
        ("100_1", 1, 0),
    ]
    assert {Path(job.log).parent for job in jobs} == {one.experiment.submitit for one in outcomes}


def test_one_alone_has_an_ordinary_job(tmp_path):
    fake = Cluster12(tmp_path / "jobs")
    wanted = of(8, requests(tmp_path, 1))
    [outcome] = submission.submit_all(jobs_of([list(wanted)], wanted), fake, tmp_path)
    job = outcome.experiment.job()
    assert job.member is None and outcome.experiment.sig in job.name


@pytest.mark.parametrize(
    "gpus, per_gpu, asked", [(0, 1, None), (1, 1, "gpu:4"), (1, 3, "gpu:2"), (1, 4, "gpu:1")]
)
def test_the_job_asks_for_as_many_as_run_at_a_time(gpus, per_gpu, asked):
    alone = parameters(Resources(gpus=gpus, cpus_per_gpu=3, mem_per_gpu=2), Shape())
    cfg = {"job": {"pack": 9, "at_once": 4}, "local": {"per_gpu": per_gpu}}
    wide = Packing.of(cfg, alone).widened(alone)
    assert (wide["cpus_per_task"], wide["mem"], wide.get("gres")) == (12, "8192M", asked)
    assert wide["time"] == alone["time"], "it is that of the whole job"


def test_several_ranks_never_share_a_job():
    for shape in (Shape(nodes=2), Shape(tasks_per_node=2)):
        assert Packing.of({"job": {"pack": 9}}, parameters(Resources(), shape)) == Packing()
    for shape in (Shape(tasks_per_node=1), Shape()):  # one rank that has both GPUs, and two ranks
        asked = parameters(Resources(gpus=2), shape)
        assert Packing.of({"job": {"pack": 9}}, asked) == Packing()
    assert Packing.of({"job": {"pack": 2, "at_once": 4}}, parameters(Resources(), Shape())) == (
        replace(Packing.of({"job": {"pack": 2}}, parameters(Resources(), Shape())), at_once=2)
    )


def test_experiments_of_a_job_spread_over_its_gpus():
    assert places(["0", "1"], 2, 3) == ["0", "1", "0"]
    assert places(["0"], 1, 3) == ["0"], "no more than there is room for"


def test_the_plan_says_how_many_jobs():
    new, kept = Action("a", Verb.NEW), Action("b", Verb.KEEP)
    assert summary([new] * 30 + [kept], 4) == "+ 30 new in 4 jobs  = 1 kept"
    assert summary([new, Action("c", Verb.RESUME)], 1) == "+ 1 new  ~ 1 resume in 1 job"


# --- the state of a member ---


def test_a_member_waits_until_its_turn_comes(tmp_path):
    fake, (first, second, _) = packed(tmp_path)
    assert status(fake, first).state is State.WAITING
    fake.phase = Phase.RUNNING
    begins(first)
    assert status(fake, first).state is State.RUNNING
    assert status(fake, second).state is State.WAITING


def test_a_member_that_was_killed_is_interrupted_while_its_job_goes_on(tmp_path):
    fake, (first, *_) = packed(tmp_path)
    fake.phase = Phase.RUNNING
    begins(first, dead=True)
    assert status(fake, first).state is State.RUNNING
    job = first.job()
    first.end_job(job.number, job.token, "FAILED", signum=9)
    assert status(fake, first).why == "interrupted: killed by signal 9"
    claims.refuse_if_held(first, ask=lambda holder: True)  # the job runs, and this one does not


def test_a_job_that_starts_again_has_members_that_wait(tmp_path):
    fake, (first, second, third) = packed(tmp_path)
    fake.phase = Phase.RUNNING
    begins(first, State.INTERRUPTED)
    begins(second, State.COMPLETED)
    assert [status(fake, xp).state for xp in (first, second, third)] == [
        State.WAITING,
        State.COMPLETED,
        State.WAITING,
    ]


@pytest.mark.parametrize(
    "word, began, waited",
    [
        ("TIMEOUT", State.INTERRUPTED, State.INTERRUPTED),
        ("PREEMPTED", State.INTERRUPTED, State.INTERRUPTED),
        ("OUT_OF_MEMORY", State.FAILED, State.INTERRUPTED),
        ("CANCELLED", State.CANCELLED, State.CANCELLED),
        ("NODE_FAIL", State.INTERRUPTED, State.INTERRUPTED),
    ],
)
def test_the_end_of_the_job(tmp_path, word, began, waited):
    fake, (first, second, _) = packed(tmp_path)
    begins(first, dead=True)
    fake.phase, fake.word = Phase.OVER, word
    assert [status(fake, xp).state for xp in (first, second)] == [began, waited]


def test_cancelling_members_leaves_the_job_until_none_is_left(tmp_path):
    fake, xps = packed(tmp_path)
    assert "the other experiments of job 100 go on" in cancel(xps[0], fake)
    assert fake.cancelled == [] and status(fake, xps[0]).state is State.CANCELLED
    assert status(fake, xps[1]).state is State.WAITING
    cancellation.cancel(xps[1:], fake)
    assert fake.cancelled == ["100"]


def test_a_member_that_was_cancelled_before_its_turn_stays_so_after_the_job(tmp_path):
    """Otherwise the next `dora grid` would submit it again."""
    fake, (first, second, _) = packed(tmp_path)
    cancel(second, fake)
    begins(first, State.COMPLETED)
    fake.phase, fake.word = Phase.OVER, "COMPLETED"
    assert status(fake, second).state is State.CANCELLED


def test_an_intent_of_a_killed_command_is_settled_for_each_member(tmp_path, monkeypatch):
    fake, xps = packed(tmp_path)
    monkeypatch.setattr(settlement, "ORPHANED", 0.0)
    for xp in xps:
        (xp.jobs / "1.id.json").unlink()
        text = (xp.jobs / "1.json").read_text()
        (xp.jobs / "1.json").write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 4194305'))
    settlement.settle(xps, fake)
    assert [(xp.job().job_id, xp.job().log) for xp in xps] == [
        ("100", str(xp.submitit / "100.out")) for xp in xps
    ]


def test_a_member_does_not_count_the_cores_of_its_job_as_its_own(monkeypatch):
    monkeypatch.setenv("DORA_TRAIN_JOB", "token")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert environment.cores_of_task() == 8
    monkeypatch.setenv("DORA_TRAIN_PACKED", "1")
    assert environment.cores_of_task() is None


# --- on a real SLURM ---

PACK = "launcher.slurm_(gpus=1).bind_({'job.pack': 3, 'job.at_once': 2, 'local.per_gpu': 2})"


@pytest.fixture
def project(tmp_path, cluster) -> Cluster:
    return Cluster(tmp_path, cluster)


def running(xps: Sequence[Experiment]) -> list[Experiment]:
    """Those with a living process, which has saved a checkpoint."""
    found = []
    for xp in xps:
        holder = claims.latest(xp)
        if holder and holder.alive() and saved(xp) > holder.since * 1e9:
            found.append(xp)
    return found


@pytest.mark.slurm
@pytest.mark.slow
def test_a_grid_in_two_jobs(project: Cluster):
    """Cancelled, killed, retried: each member for itself."""
    lines = [f"{LINE} seed={seed})" for seed in range(5)]
    project.grid(PACK, *lines)
    assert "+ 5 new in 2 jobs" in project.sync() and len(project.live()) == 2
    xps = sorted(project.xps(), key=lambda xp: xp.birth().config["seed"])
    project.cluster.wait(lambda: len(running(xps)) == 4, timeout=120)
    seen: dict[str, list[str]] = defaultdict(list)
    for xp in running(xps):
        seen[project.job(xp)].append(psutil.Process(pid(xp)).environ()["CUDA_VISIBLE_DEVICES"])
    assert all(len(gpus) == 2 and gpus[0] == gpus[1] != "" for gpus in seen.values()), seen
    program = psutil.Process(pid(running(xps)[0])).parent()
    assert any("libtorch" in one.path for one in program.memory_maps()), "imported once"
    [waiting] = [xp for xp in xps if claims.latest(xp) is None]
    project.seen_as("waiting", waiting)
    first, second = running(xps)[:2]
    process = pid(first)
    assert "go on" in project.dora("info", "-f", waiting.sig, "-C")
    assert "go on" in project.dora("info", "-f", first.sig, "-C")
    project.seen_as("cancelled", waiting)
    project.cluster.wait(lambda: not lives(process), timeout=60)
    project.cluster.wait(lambda: first.job_end(first.job().token))
    project.seen_as("cancelled", first)
    os.kill(pid(second), signal.SIGKILL)
    project.cluster.wait(lambda: second.job_end(second.job().token))
    project.seen_as("interrupted", second)
    assert len(project.live()) == 2, "the jobs go on"
    project.grid(*lines)
    assert "~ 2 retry  ~ 1 resume  = 2 kept" in project.dora(
        "grid", "question", "--no_monitoring", "--retry"
    )
    project.finished(*xps)
    for number in (0, 4):
        same(xps[number], project.undisturbed(f"seed={number}", name=f"undisturbed {number}"))


def kill_pack(project: Cluster, xp: Experiment) -> None:
    """The program of the job, and with it all that it has started."""
    psutil.Process(pid(xp)).parent().kill()


@pytest.mark.slurm
@pytest.mark.slow
def test_a_job_takes_up_what_is_left(project: Cluster):
    """After signals, a requeue and preemption by itself; after kill -9 with the next sync."""
    draw = int(os.environ.get("DORA_TRAIN_SEED", "0")) or random.randrange(10**6)
    print(f"DORA_TRAIN_SEED={draw}")
    hits = [usr2, requeue, kill_pack, preempt]
    if CHAOS:
        hits = random.Random(draw).choices([*hits, term], k=CHAOS // 10)
    lines = [f"{LINE} seed={seed})" for seed in range(4)]
    project.grid("launcher.bind_({'job.pack': 4, 'job.at_once': 2})", *lines)
    project.sync()
    xps = sorted(project.xps(), key=lambda xp: xp.birth().config["seed"])
    for hit in hits:
        project.cluster.wait(lambda: len(running(xps)) == 2, timeout=120)
        victims = running(xps)
        processes = [pid(xp) for xp in victims]
        hit(project, victims[0])
        project.cluster.wait(lambda processes=processes: not any(map(lives, processes)))
        if hit is kill_pack:
            project.cluster.wait(lambda: not project.live())
            project.seen_as("interrupted", victims[0])
            assert "~ 4 resume in 1 job" in project.sync()
        project.cluster.hurry_all()
    project.cluster.wait(lambda: running(xps), timeout=120)
    project.slow.unlink()

    def are_over() -> bool:
        project.cluster.hurry_all()
        return all(xp.state().state is State.COMPLETED for xp in xps)

    project.cluster.wait(are_over, timeout=300)
    project.cluster.wait(lambda: not project.live())
    assert "= 4 kept" in project.sync()
    same(xps[0], project.undisturbed("seed=0"))
