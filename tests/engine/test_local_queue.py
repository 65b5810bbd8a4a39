"""The local queue under hostile treatment: its commands, runners and jobs are killed at any point,
and nothing is lost.

Jobs are lines of shell here, so that hundreds fit into a test; `test_grid_slurm.py` runs real
experiments on the queue.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from grid_project import ASLEEP, DORA, GridProject, Machine
from test_submission import experiment, request, submit

from dora_train.engine.errors import UserError
from dora_train.engine.experiment import claims
from dora_train.engine.experiment.records import State
from dora_train.engine.grid import order, settlement, submission
from dora_train.engine.grid.cancellation import cancel
from dora_train.engine.jobs import choose as places
from dora_train.engine.jobs.executor import NotSubmitted, Order, Phase
from dora_train.engine.jobs.queue import executor as local
from dora_train.engine.jobs.queue import queue as local_queue
from dora_train.engine.jobs.queue import runner as local_runner
from dora_train.engine.jobs.queue import watching as local_watching
from dora_train.engine.jobs.queue.executor import Local, visible_gpus
from dora_train.engine.jobs.queue.files import lock
from dora_train.engine.jobs.queue.job_files import OVER, JobFiles
from dora_train.engine.jobs.queue.queue import Queue
from dora_train.engine.watch.info import find_job
from dora_train.engine.watch.status import look

SHELL = Path(__file__).with_name("shell_line.py")  # the Python program that runs a line of shell
FORK = multiprocessing.get_context("fork")


class Here:
    """A queue, and lines of shell as its jobs; `out` is their working directory."""

    def __init__(self, machine: Machine, folder: Path, jobs: int | None = 1):
        self.machine, self.out, self.jobs = machine, folder, jobs
        self.count = 0
        self.preload: list[str] | None = None  # a list: jobs start as forks
        self.per_gpu = 1

    @property
    def executor(self) -> Local:
        """As a new command has it."""
        executor = Local(self.jobs, why="a test", preload=self.preload, per_gpu=self.per_gpu)
        assert not executor.missing()
        return executor

    def submit(self, line: str, **parameters) -> str:
        """The id of a job that runs this line, waiting until somebody moves the queue on."""
        self.count += 1
        threads = parameters.pop("threads", 1)
        order = Order(
            f"job{self.count}",
            f"bash -c '{line}'",
            self.out / "logs",
            {"nodes": 1, "ntasks_per_node": 1} | parameters,
            after=parameters.pop("after", ()),
            program=[str(SHELL), line],
            threads=threads,
        )
        return self.executor.submit(order).job_id

    def run(self, line: str, **parameters) -> str:
        job = self.submit(line, **parameters)
        self.executor.move()
        return job

    def info(self, job: str):
        return self.executor.jobs([job])[job]

    def phase(self, job: str) -> Phase:
        return self.info(job).phase

    def until(self, *jobs: str) -> None:
        """Wait until these jobs are over."""
        self.machine.wait(lambda: all(self.phase(job) is Phase.OVER for job in jobs), 30)

    def until_file(self, name: str) -> None:
        self.machine.wait((self.out / name).exists, 30)

    def lines(self, name: str) -> list[str]:
        return (self.out / name).read_text().split() if (self.out / name).exists() else []

    def runners(self) -> list[psutil.Process]:
        found = []
        for process in self.machine.processes():
            with suppress(psutil.Error):  # gone meanwhile
                if "engine.jobs.queue" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def leader(self, job: str) -> psutil.Process:
        """The first process of a job, as soon as its runner has started it."""
        return self.machine.wait(lambda: self.leader_so_far(job))

    def leader_so_far(self, job: str) -> psutil.Process | None:
        runners = self.runners()
        for process in self.machine.processes():
            with suppress(psutil.Error, ProcessLookupError):  # gone meanwhile
                its_job = process.environ().get("DORA_TRAIN_JOB_ID")
                leads = os.getsid(process.pid) == process.pid
                if its_job == job and leads and process not in runners:
                    return process
        return None


@pytest.fixture
def here(machine: Machine, tmp_path: Path, monkeypatch) -> Here:
    for name, value in (machine.env | {"CUDA_VISIBLE_DEVICES": ""}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Here(machine, tmp_path / "work")


# --- as it should be ---


def test_first_in_first_out_one_at_a_time_and_nothing_is_left(here: Here):
    jobs = [
        here.submit(f"echo start{number} >> all; sleep 0.2; echo end{number} >> all")
        for number in range(4)
    ]
    assert [here.phase(job) for job in jobs] == [Phase.PENDING] * 4
    here.executor.move()
    assert [here.phase(job) for job in jobs] == [Phase.RUNNING] + [Phase.PENDING] * 3
    here.until(*jobs)
    assert here.lines("all") == [
        f"{what}{number}" for number in range(4) for what in ("start", "end")
    ]
    assert {here.info(job).word for job in jobs} == {"COMPLETED"}
    here.machine.wait(lambda: not here.machine.processes())


def test_at_most_so_many_at_a_time_whoever_asks(here: Here):
    here.jobs = 2
    jobs = [here.run("sleep 30") for _ in range(3)]
    assert [here.phase(job) for job in jobs] == [Phase.RUNNING, Phase.RUNNING, Phase.PENDING]
    here.jobs = 1  # of another command: it counts those that run as well
    jobs.append(here.run("true"))
    here.executor.cancel([jobs[2], jobs[0]])
    here.until(jobs[0])
    time.sleep(0.5)
    assert here.phase(jobs[3]) is Phase.PENDING
    here.executor.cancel([jobs[1]])
    here.until(jobs[3])
    assert here.info(jobs[3]).word == "COMPLETED"


@pytest.mark.parametrize(
    "line, word, code, signum",
    [
        ("exit 0", "COMPLETED", 0, 0),
        ("exit 3", "FAILED", 3, 0),
        ("kill -9 $$", "FAILED", 0, 9),
        ("exit 143", "FAILED", 0, 15),
        ("exit 200", "FAILED", 200, 0),
    ],
)
def test_how_a_job_ended(here: Here, line, word, code, signum):
    job = here.run(line)
    here.until(job)
    info = here.info(job)
    assert (info.word, info.exit_code, info.signal) == (word, code, signum)


def test_it_runs_where_and_as_it_was_queued_whoever_starts_it(here: Here, tmp_path, monkeypatch):
    odd = tmp_path / 'it\'s "50%" día, $(x=1)'
    odd.mkdir()
    monkeypatch.chdir(odd)
    monkeypatch.setenv("ODD", "a\nb 'ä' \udcff")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # inside salloc
    job = here.submit("env -0 > env; pwd > where; echo said; echo $SECONDS >&2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODD", "another")
    here.executor.move()
    here.until(job)
    env = dict(entry.partition(b"=")[::2] for entry in (odd / "env").read_bytes().split(b"\0"))
    assert env[b"ODD"] == b"a\nb '\xc3\xa4' \xff" and b"SLURM_JOB_ID" not in env
    assert env[b"DORA_TRAIN_JOB_ID"].decode() == job and env[b"CUDA_VISIBLE_DEVICES"] == b""
    assert Path((odd / "where").read_text().rstrip("\n")) == odd
    assert (here.out / "logs" / f"{job}_0_log.out").read_text().split() == ["said", "0"]


def test_what_only_a_cluster_has_is_passed_over_and_said(here: Here, capsys):
    here.submit("true", partition="urgent", additional_parameters={"reservation": "lab"})
    said = capsys.readouterr().err
    assert said == "ignored, SLURM only: partition, sbatch.reservation\n"


def test_a_folder_that_is_gone_is_said_in_the_log(here: Here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    job = here.submit("true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").rmdir()
    here.executor.move()
    here.until(job)
    assert here.info(job).exit_code == 127
    assert "No such file" in (here.out / "logs" / f"{job}_0_log.out").read_text()


def test_the_tasks_of_an_array_are_jobs_and_are_found_by_its_name(here: Here):
    order = Order(
        "many",
        "bash -c 'echo $DORA_TRAIN_TASK >> tasks'",
        here.out / "logs",
        {"nodes": 1, "ntasks_per_node": 1},
        tasks=[0, 2, 10],
    )
    main = here.executor.submit(order).job_id
    after = here.submit("echo last >> tasks")
    here.executor.move()
    here.until(after)
    assert here.lines("tasks") == ["0", "2", "10", "last"]
    assert here.executor.find(["many", "job1", "other"]) == {"many": main, "job1": after}
    assert here.executor.log_path(order, main, 10).exists()


def test_what_comes_after_another_job_waits_for_its_end(here: Here):
    here.jobs = 3
    first = here.run("sleep 30")
    second = here.submit("true", after=[first])
    third = here.run("true")
    here.until(third)
    assert here.phase(second) is Phase.PENDING
    here.executor.cancel([first])
    here.until(second)


# --- GPUs ---


def test_gpus_are_shared_out(here: Here, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-a/1,5")
    here.jobs = None
    show = "echo $RANK$WORLD_SIZE:$CUDA_VISIBLE_DEVICES >> gpus; sleep 1"
    two = here.run(show, gres="gpu:2", ntasks_per_node=2)
    again = here.run("echo again:$CUDA_VISIBLE_DEVICES >> gpus", gres="gpu:2")
    small = here.run("echo small:$CUDA_VISIBLE_DEVICES >> gpus", gres="gpu:1")
    assert (here.phase(again), here.phase(small)) == (Phase.PENDING, Phase.PENDING), (
        "one is free: the first needs two"
    )
    here.until(two, again, small)
    lines = here.lines("gpus")
    assert sorted(lines[:2]) == ["02:3,GPU-a/1", "12:3,GPU-a/1"] and set(lines[2:]) == {
        "again:3,GPU-a/1",
        "small:5",
    }
    with pytest.raises(NotSubmitted, match="4 GPUs; this machine has 3"):
        here.submit("true", gres="gpu:2", nodes=2)


def test_jobs_may_share_a_gpu(here: Here, monkeypatch):
    """The emptiest GPU first, as many jobs on it as each of them allows, and no more."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    here.jobs, here.per_gpu = None, 2
    assert here.executor.limits({1}) == (4, 4)
    shared = [here.run("sleep 60", gres="gpu:1") for _ in range(5)]
    given = [["3"], ["5"], ["3"], ["5"], ()]
    here.machine.wait(lambda: [here.info(job).gpus for job in shared] == given)
    assert [here.leader(job).environ()["CUDA_VISIBLE_DEVICES"] for job in shared[:4]] == list(
        "3535"
    )
    here.executor.cancel(shared[4:])
    here.per_gpu, here.jobs = 1, 9
    alone = here.run("sleep 60", gres="gpu:1")
    here.per_gpu = 3
    third = here.run("sleep 60", gres="gpu:1")
    assert (here.phase(alone), here.phase(third)) == (Phase.PENDING, Phase.PENDING)
    here.executor.cancel([third, shared[0]])
    here.until(third, shared[0])
    here.executor.move()
    assert here.phase(alone) is Phase.PENDING, "another job is still on that GPU"
    here.executor.cancel([shared[2]])
    here.until(shared[2])
    here.machine.wait(lambda: here.info(alone).gpus == ["3"])


def test_those_who_see_other_gpus_do_not_wait_for_each_other(here: Here, monkeypatch):
    here.jobs = 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    mine = [here.run("sleep 30", gres="gpu:1") for _ in range(2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    theirs = here.run("sleep 30", gres="gpu:1")
    assert [here.phase(job) for job in (*mine, theirs)] == [
        Phase.RUNNING,
        Phase.PENDING,
        Phase.RUNNING,
    ]


@pytest.mark.parametrize(
    "given, names", [("0,1", ["0", "1"]), ("", []), ("-1", []), ("1,-1,0", ["1"]), ("2,2", ["2"])]
)
def test_visible_gpus(monkeypatch, given, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_the_limit_is_one_a_gpu_else_what_the_cores_hold(here: Here, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 7)
    assert Local(threads=(2, 2)).limits({0}) == (3, 3)
    assert Local(threads=(9, 9)).limits({0}) == (1, 1)
    assert Local(5).limits({0, 1}) == (5, 5)
    assert (
        Local(threads=(1, 3), why="so").where({0}) == "on this machine (so), 2 to 7 jobs at a time"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    few, many = Local(threads=(2, 2), why="so"), Local(threads=(1, 3), why="so", per_gpu=2)
    assert few.where({1}) == "on this machine (so), 2 jobs at a time"
    assert few.where({2}) == "on this machine (so), 1 job at a time"
    assert many.where({1}) == "on this machine (so), 4 jobs at a time"
    assert few.where({0, 1}) == "on this machine (so), 2 to 3 jobs at a time"


def test_jobs_without_a_gpu_on_a_machine_with_one_are_told_so(here: Here, monkeypatch):
    """`dora run` takes the GPU that it sees. A job takes none, unless it asks for one."""
    monkeypatch.setattr(local, "cores", lambda: 16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    said = Local(why="so").where({0})
    assert said == (
        "on this machine (so), 16 jobs at a time, on the CPU (slurm.gpus=1: each on a GPU)"
    )
    assert Local(why="so").where({0, 1}) == "on this machine (so), 1 to 16 jobs at a time"


def test_as_many_at_a_time_as_the_cores_hold(here: Here, monkeypatch):
    """Each job counts with its own threads, and no job overtakes one that waits for cores."""
    monkeypatch.setattr(local, "cores", lambda: 4)
    here.jobs = None
    small = [here.run("sleep 60"), here.run("sleep 60", ntasks_per_node=2)]  # three cores
    large = here.run("true", threads=4)
    last = here.run("true")
    assert [here.phase(job) for job in small] == [Phase.RUNNING] * 2
    assert [here.phase(job) for job in (large, last)] == [Phase.PENDING] * 2
    here.executor.cancel(small)
    here.until(large, last)
    beyond = here.run("true", threads=9)
    here.until(beyond)
    assert here.info(beyond).word == "COMPLETED", "alone, it may have more threads than cores"


def test_a_job_with_a_gpu_does_not_wait_for_cores(here: Here, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here.jobs = None
    jobs = [here.run("sleep 60"), here.run("sleep 60"), here.run("sleep 60", gres="gpu:1")]
    found = [here.phase(job) for job in jobs]
    assert found == [Phase.RUNNING, Phase.PENDING, Phase.RUNNING]


# --- its end ---


def test_cancel_asks_the_first_process_then_ends_the_group(here: Here):
    running = here.run(
        'trap "echo saved > saved; exit 143" TERM; sleep 300 & echo $! > worker; wait'
    )
    waiting = here.run("true")
    here.until_file("worker")
    here.executor.cancel([waiting, running, "q0000-1", f"{here.executor.queue}-99"])
    assert here.phase(waiting) is Phase.OVER
    here.until(running)
    assert here.lines("saved") == ["saved"]
    assert int(here.lines("worker")[0]) not in [process.pid for process in here.machine.processes()]
    assert [here.info(job).word for job in (waiting, running)] == ["CANCELLED"] * 2
    here.machine.wait(lambda: not here.machine.processes())


def test_a_cancellation_that_is_killed_half_way_starts_nothing(here: Here, monkeypatch):
    job = here.submit("touch ran")
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "end", lambda *args: os._exit(9))
        half = FORK.Process(target=here.executor.cancel, args=[[job]])
        half.start()
        half.join(10)
    here.executor.move()
    assert half.exitcode == 9 and not here.runners() and here.info(job).word == "CANCELLED"


def test_who_does_not_leave_is_ended(here: Here, monkeypatch):
    monkeypatch.setattr(local_watching, "GRACE", 0.5)
    job = here.submit('trap "" TERM; touch up; while true; do sleep 0.1; done')
    # with that grace
    runner = FORK.Process(target=local_runner.main, args=[here.executor._queue.root])
    runner.start()
    here.until_file("up")
    here.executor.cancel([job])
    here.until(job)
    runner.join(10)


def test_what_a_job_leaves_behind_ends_with_it(here: Here):
    first, second = here.run("sleep 300 & echo $! > left"), here.run("true")
    here.until(first, second)
    assert int(here.lines("left")[0]) not in [process.pid for process in here.machine.processes()]
    assert here.info(first).word == "COMPLETED"


def test_a_rank_that_dies_takes_the_others_along(here: Here):
    job = here.run("if [ $RANK = 1 ]; then exit 5; fi; sleep 300", ntasks_per_node=2)
    here.until(job)
    assert here.info(job).exit_code == 5


# --- killed ---


def test_a_runner_that_was_killed(here: Here):
    first, second = (
        here.run("touch up; while [ ! -e go ]; do sleep 0.1; done; touch down"),
        here.run("true"),
    )
    here.until_file("up")
    [runner] = here.runners()
    runner.kill()
    runner.wait(5)
    assert (here.phase(first), here.phase(second)) == (Phase.RUNNING, Phase.PENDING)
    here.executor.move()
    assert len(here.runners()) == 1, "somebody watches over it again"
    here.executor.move()
    assert len(here.runners()) == 1, "and only one"
    (here.out / "go").touch()
    here.until(second)
    assert (here.out / "down").exists(), "the job went on to its end"


def test_the_job_of_a_runner_that_was_killed_can_be_cancelled(here: Here):
    job = here.run('trap "echo saved > saved; exit 143" TERM; touch up; sleep 300 & wait')
    here.until_file("up")
    [runner] = here.runners()
    runner.kill()
    runner.wait()  # until the kernel has freed its locks, it is there
    here.executor.cancel([job])
    here.until(job)
    assert here.info(job).word == "CANCELLED" and here.lines("saved") == ["saved"]


def test_a_loss_of_power(here: Here):
    """No process is left, and ids are used again: what ran is lost, and said so; what waited still
    does."""
    running, waiting = here.run("touch up; sleep 300"), here.run("echo ran >> ran")
    here.until_file("up")
    here.machine.kill_all()
    assert (here.phase(running), here.info(running).word) == (Phase.OVER, "LOST")
    assert here.phase(waiting) is Phase.PENDING
    here.executor.move()
    here.until(waiting)
    assert here.lines("ran") == ["ran"] and here.info(running).word == "LOST"


def test_a_queue_of_another_machine_is_not_asked(here: Here):
    job = here.run("true")
    other = "q" + ("0000" if not job.startswith("q0000") else "1111") + "-1"
    assert here.phase(other) is Phase.UNKNOWN and here.executor.is_running(other) is None
    assert here.executor.is_running(job) in (True, False)


def _submit_all(folder: Path, barrier) -> None:
    barrier.wait()
    executor = Local(2, why="a test")
    assert not executor.missing()
    for number in range(3):
        submit([request(experiment(folder, number), folder)], executor, folder)
        executor.move()


def test_ten_commands_at_once_queue_each_experiment_once(here: Here, tmp_path):
    barrier = FORK.Barrier(10)
    processes = [FORK.Process(target=_submit_all, args=(tmp_path, barrier)) for _ in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    queue = here.executor._queue
    assert len(queue.named()) == 3 and max(map(int, queue._numbers())) == 3
    jobs = [experiment(tmp_path, number).job().job_id for number in range(3)]
    here.until(*jobs)


def _move_for_ever() -> None:
    while True:
        Local(2, why="a test").move()


@pytest.mark.slow
@pytest.mark.parametrize("preload", [None, []], ids=["cold", "warm"])
def test_killed_at_any_moment_no_job_is_lost_and_none_runs_twice(here: Here, preload):
    """kill -9 at random of commands and runners, while 60 jobs go through the queue."""
    here.jobs, here.preload = 2, preload
    jobs = [here.submit(f"echo {number} >> ran; sleep 0.0{number % 10}") for number in range(60)]
    rng, end = random.Random(7), time.monotonic() + 90
    while any(here.phase(job) is Phase.PENDING for job in jobs):
        assert time.monotonic() < end
        movers = [FORK.Process(target=_move_for_ever) for _ in range(2)]
        for mover in movers:
            mover.start()
        time.sleep(rng.uniform(0.0, 0.4))
        for process in rng.sample(found := here.runners(), len(found) // 2):
            with suppress(psutil.Error):  # gone meanwhile
                process.kill()
        for mover in movers:
            mover.kill()
            mover.join()
    here.executor.move()
    here.until(*jobs)
    ran = here.lines("ran")
    assert len(ran) == len(set(ran)), "none twice"
    lost = [job for number, job in enumerate(jobs) if str(number) not in ran]
    # FAILED by the signal: not its runner was hit, but the job itself, which bears the runner's
    # name until it executes.
    ends = {(info.word, info.signal) for info in map(here.info, lost)}
    assert ends <= {("LOST", 0), ("FAILED", 9)}, (
        "what did not run says so: the next sync takes it up"
    )
    assert len(lost) < 30, "most survive the death of their runner"
    here.machine.wait(lambda: not here.machine.processes())


# --- numbers, ends, environments ---


def jobs_folder() -> Path:
    return Path(os.environ["DORA_QUEUE"]) / "jobs"


def test_a_number_never_comes_back(here: Here):
    first, second = here.run("true"), here.run("true")
    here.until(first, second)
    third = here.submit("true")
    number = int(third.partition("-")[2])
    assert number == 3 and not (jobs_folder() / "1").exists()
    here.executor.cancel([third])
    for path in (jobs_folder(), jobs_folder().parent / "ended", jobs_folder().parent / "waiting"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()  # cleaned by hand
    assert here.submit("true") == third.replace("-3", "-4")


def test_a_queue_that_is_made_anew_has_another_name(here: Here):
    first = here.submit("true")
    shutil.rmtree(os.environ["DORA_QUEUE"])
    assert here.submit("true").partition("-")[0] != first.partition("-")[0]


def test_what_is_left_of_a_job_is_a_line_with_its_end(here: Here):
    jobs = [here.run(line) for line in ("exit 3", "kill -9 $$", "true")]
    order = Order(
        "many",
        "bash -c 'exit 4'",
        here.out / "logs",
        {"nodes": 1, "ntasks_per_node": 1},
        tasks=[0, 2],
    )
    array = here.executor.submit(order).job_id
    here.executor.move()
    jobs += [f"{array}_0", f"{array}_2"]
    here.until(*jobs)
    before = here.executor.jobs(jobs)
    here.machine.wait(lambda: not here.machine.processes())
    last = here.submit("true")  # whoever adds a job tidies up
    assert sorted(os.listdir(jobs_folder())) in ([], [f"{array.partition('-')[2]}_2"])
    assert here.executor.jobs(jobs) == before
    assert [before[job].exit_code or before[job].signal for job in jobs] == [3, 9, 0, 4, 4]
    names = here.executor.find(["job1", "job3", "many", "job4"])
    assert names == {"job1": jobs[0], "job3": jobs[2], "many": array, "job4": last}


def test_an_end_that_was_cut_short_on_disk_spoils_no_other(here: Here):
    first = here.run("exit 3")
    here.until(first)
    here.machine.wait(lambda: not here.machine.processes())
    (jobs_folder().parent / "ended").write_text('{"number": "7", "na')
    here.submit("true")
    assert here.info(first).exit_code == 3


def test_an_environment_is_on_disk_no_longer_than_its_job_waits(here: Here, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "a secret")
    running, waiting = here.run("touch up; sleep 300"), here.submit("true", setup=["SETUP=another"])
    here.until_file("up")
    assert [path.name for path in holding(b"a secret")] == [f"{waiting.partition('-')[2]}.json"]
    assert [path.stat().st_mode & 0o077 for path in holding(b"a secret")] == [0]
    here.executor.cancel([running])
    here.until(running, waiting)
    assert not holding(b"a secret") and not holding(b"another")


def test_what_earlier_versions_left_of_a_job_goes_as_well(here: Here):
    job = here.run("exit 3")
    here.until(job)
    here.machine.wait(lambda: not here.machine.processes())
    for number in ("1", "2"):
        (jobs_folder() / number).mkdir(exist_ok=True)
        (jobs_folder() / number / "end.json").write_text(
            '{"word": "FAILED", "code": 3, "signal": 0}'
        )
        (jobs_folder() / number / "job.json").write_text(
            f'{{"name": "old{number}", "number": "{number}", "env": {{"KEY": "a secret"}}}}'
        )
    here.executor.move()
    assert not holding(b"a secret")
    ids = [f"{here.executor.queue}-{number}" for number in ("1", "2")]
    infos = here.executor.jobs(ids)
    assert [(infos[one].name, infos[one].exit_code) for one in ids] == [("old1", 3), ("old2", 3)]


def holding(words: bytes) -> list[Path]:
    files = (path for path in Path(os.environ["DORA_QUEUE"]).rglob("*") if path.is_file())
    return [path for path in files if words in path.read_bytes()]


def _die_in_started(queue: Queue) -> None:
    local_queue.os.unlink = lambda path: os._exit(9)
    queue.started("1")


def test_a_start_that_is_killed_half_way_loses_no_job(here: Here):
    """What is kept of it is written, and it stands in the line as well."""
    job = here.submit("echo ran >> ran")
    (jobs_folder() / "1").mkdir()
    half = FORK.Process(target=_die_in_started, args=[here.executor._queue])
    half.start()
    half.join(10)
    assert half.exitcode == 9 and here.phase(job) is Phase.PENDING
    here.executor.move()
    here.until(job)
    assert here.lines("ran") == ["ran"]


# --- whose job it is ---


@pytest.fixture
def full(here: Here) -> Iterator[Here]:
    """A queue whose only place is taken: what waits in it goes on waiting."""
    slot = lock(here.executor._queue.path("slots", "0"))
    yield here
    os.close(slot)


def test_a_cancellation_spares_another_job_of_that_number(full: Here):
    job = full.submit("true")
    full.executor.cancel({job: "the token of an older job"})
    assert full.phase(job) is Phase.PENDING
    full.executor.cancel({job: "job1"})
    assert full.info(job).word == "CANCELLED"


def test_only_a_job_of_that_name_is_said_to_run(here: Here):
    job = here.run("touch up; sleep 300")
    here.until_file("up")
    assert (
        here.executor.is_running(job, "job1") is True
        and here.executor.is_running(job, "other") is False
    )


def submitted(here: Here, folder: Path, number: int = 0):
    """An experiment that waits in the queue of now, and is not let start."""
    executor = here.executor
    made = experiment(folder, number)
    assert submit([request(made, folder, made.job_number())], executor, folder)[0].submitted
    return made


def test_an_old_experiment_whose_number_was_given_again_cancels_nothing_of_another(
    full: Here, tmp_path
):
    """A clone of an earlier version counts on from the folders that are there."""
    old = submitted(full, tmp_path)
    for name in ("waiting/1.json", "last"):
        (Path(os.environ["DORA_QUEUE"]) / name).unlink()
    new = submitted(full, tmp_path, 1)
    assert old.job().job_id == new.job().job_id
    statuses = look([old, new], full.executor)
    assert [statuses[xp.sig].state for xp in (old, new)] == [State.INTERRUPTED, State.WAITING]
    cancel([old], full.executor)
    assert look([new], full.executor)[new.sig].state is State.WAITING
    with pytest.raises(UserError, match=f"several experiments(.|\\n)*dora info -f {old.sig}"):
        find_job(tmp_path, old.job().job_id)


# --- queues that are gone, or elsewhere ---


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made anew"])
def test_what_waited_in_a_queue_that_is_gone_is_taken_up_again(
    here: Here, tmp_path, monkeypatch, again
):
    xp = submitted(here, tmp_path)
    assert look([xp], here.executor)[xp.sig].state is State.WAITING
    shutil.rmtree(os.environ["DORA_QUEUE"])
    monkeypatch.setattr(local.socket, "gethostname", lambda: "another-name")
    status = look([xp], here.executor if again else places.asked())[xp.sig]
    assert (status.state, status.cause) == (State.INTERRUPTED, "its queue is gone")


def test_a_job_that_its_queue_does_not_know_is_over(here: Here, tmp_path):
    xp = submitted(here, tmp_path)
    shutil.rmtree(Path(os.environ["DORA_QUEUE"]) / "waiting")
    assert look([xp], here.executor)[xp.sig].state is State.INTERRUPTED


def test_a_queue_in_another_folder_is_asked_and_told(here: Here, tmp_path, monkeypatch):
    xp = submitted(here, tmp_path)
    monkeypatch.setenv("DORA_QUEUE", str(tmp_path / "another"))
    executor = here.executor
    status = look([xp], executor)[xp.sig]
    assert (status.state, status.certain) == (State.WAITING, True)
    cancel([xp], executor)
    assert look([xp], executor)[xp.sig].state is State.CANCELLED


OURS_NO_MORE = {
    "another user": {"user": "alice"},
    "another machine": {"host": "node7", "boot_id": "of node7", "machine_id": "of node7"},
    "another container": {"namespace": "pid:[1]"},
    "an earlier version": {"queue_folder": ""},
}


@pytest.mark.parametrize("whose", OURS_NO_MORE)
def test_a_folder_that_is_not_seen_from_here_is_no_proof(
    here: Here, tmp_path, whose: str, monkeypatch
):
    """Of a home that is not mounted, or another machine's path, nothing is there either."""
    xp = submitted(here, tmp_path)
    shutil.rmtree(os.environ["DORA_QUEUE"])
    path, what = xp.jobs / "1.json", OURS_NO_MORE[whose]
    content = json.loads(path.read_text())
    content |= {key: value for key, value in what.items() if key in content}
    content["writer"] |= {key: value for key, value in what.items() if key in content["writer"]}
    path.write_text(json.dumps(content))
    status = look([xp], places.asked())[xp.sig]
    assert (status.state, status.certain, status.out_of_reach) == (State.WAITING, False, True)
    monkeypatch.setenv("DORA_TAKE", "1")
    assert look([xp], places.asked())[xp.sig].state is State.INTERRUPTED


def test_an_intent_whose_queue_is_gone_is_given_up(here: Here, tmp_path, monkeypatch):
    """The command was killed before it could write the id down, and then the queue was lost."""
    monkeypatch.setattr(settlement, "ORPHANED", 0)
    executor, xp = here.executor, experiment(tmp_path)
    job = submission._intent(
        order.Task(request(xp, tmp_path)), executor, "tok", f"dora_{xp.sig}_tok"
    )
    job.writer["pid"] = 2**22 + 1
    assert xp.intend_job(job)
    shutil.rmtree(os.environ["DORA_QUEUE"])
    settlement.settle([xp], places.asked())
    assert xp.job() is None


# --- its cost, its place ---


@pytest.mark.slow
def test_three_hundred_that_wait_cost_next_to_nothing(here: Here):
    here.jobs = 2
    for _ in range(300):
        here.submit("sleep 300")
    here.executor.move()
    runners = here.machine.wait(lambda: found if len(found := here.runners()) == 2 else None)
    memory = sum(process.memory_full_info().pss for process in runners)
    before = sum(sum(process.cpu_times()[:2]) for process in runners)
    time.sleep(5)
    cpu = (sum(sum(process.cpu_times()[:2]) for process in runners) - before) / 5
    print(f"{memory / 2**20:.1f} MB, {cpu:.2%} of a core")
    assert memory < 30 * 2**20 and cpu <= 0.01
    assert len(here.machine.live()) == 300 and len(here.machine.processes()) < 8


def test_a_folder_whose_locks_do_nothing_is_refused(here: Here, monkeypatch):
    monkeypatch.setattr("dora_train.engine.jobs.queue.files.fcntl.flock", lambda *args: None)
    assert "locks do not work there" in Local().missing()


def test_a_folder_that_cannot_be_made_is_refused(here: Here, monkeypatch):
    (here.out / "file").touch()
    monkeypatch.setenv("DORA_QUEUE", str(here.out / "file" / "queue"))
    assert "the queue cannot lie in" in Local().missing()


@pytest.mark.parametrize("mode", [0o1777, 0o755])
def test_a_folder_that_is_there_already_keeps_its_mode(here: Here, mode: int):
    folder = Path(os.environ["DORA_QUEUE"])
    folder.mkdir()
    folder.chmod(mode)
    job = here.run("true")
    here.until(job)
    assert folder.stat().st_mode & 0o7777 == mode
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}, (
        "what was made in it is private"
    )


def test_a_folder_of_other_things_gets_a_queue_inside_it(here: Here):
    """Such as /tmp, or a project that has its own `jobs`."""
    folder = Path(os.environ["DORA_QUEUE"])
    (folder / "jobs" / "12").mkdir(parents=True)
    (folder / "jobs" / "12" / "job.json").write_text("not ours")
    job = here.run("true")
    here.until(job, here.run("true"))
    assert [path.name for path in folder.rglob("*")][:3].count("12") <= 1
    assert (folder / "jobs" / "12" / "job.json").read_text() == "not ours"
    assert sorted(os.listdir(folder)) == [f"dora_queue.{claims.user_name()}", "jobs"]
    assert (folder / f"dora_queue.{claims.user_name()}").stat().st_mode & 0o077 == 0


def test_a_queue_of_another_user_is_not_used(here: Here, monkeypatch):
    assert here.executor.queue
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert "belongs to another user" in Local().missing()


def test_another_host_name_finds_the_same_queue(here: Here, tmp_path, monkeypatch):
    """A laptop on another network. Another machine that shares the home does not."""
    monkeypatch.delenv("DORA_QUEUE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(local.machine, "machine_id", lambda: "this machine")
    monkeypatch.setattr(local.socket, "gethostname", lambda: "at-home")
    job = here.submit("true")
    monkeypatch.setattr(local.socket, "gethostname", lambda: "at-work")
    assert here.phase(job) is Phase.PENDING and here.executor.queue == job.partition("-")[0]
    monkeypatch.setattr(local.machine, "machine_id", lambda: "another machine")
    assert here.phase(job) is Phase.UNKNOWN and here.executor.queue != job.partition("-")[0]
    monkeypatch.setattr(local.machine, "machine_id", lambda: "this machine")
    monkeypatch.setattr(local.socket, "gethostname", lambda: "a-third-name")
    monkeypatch.setattr(local.machine, "is_local", lambda path: False)
    assert local.place().name == "a-third-name", "on a network's disk each name has its own"


def test_a_queue_is_private_and_reading_makes_none(here: Here):
    assert (
        here.executor._queue.id() and Path(os.environ["DORA_QUEUE"]).stat().st_mode & 0o777 == 0o700
    )
    os.environ["DORA_QUEUE"] += "2"
    assert places.asked().jobs(["q0000-1", "q0000-2"]) and Local().find(["name"]) == {}
    Local().move()
    assert not Path(os.environ["DORA_QUEUE"]).exists()


# --- which one ---


@pytest.mark.parametrize(
    "key, variable, name, words",
    [
        ("auto", "", "local", "(no sbatch), 3 jobs at a time"),
        ("local", "", "local", "(cluster: local)"),
        ("slurm", "", "slurm", ""),
        ("slurm", "local", "local", "(DORA_CLUSTER=local)"),
        ("local", "auto", "local", "(no sbatch)"),
    ],
)
def test_where_jobs_go(monkeypatch, key, variable, name, words):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DORA_CLUSTER", variable)
    chosen = places.chosen({"cluster": key, "local": {"jobs": 3}})
    assert chosen.name == name and words in chosen.where({0})


def test_an_unknown_word_is_refused(monkeypatch):
    monkeypatch.delenv("DORA_CLUSTER", raising=False)
    with pytest.raises(
        UserError, match='cluster: slrum: unknown cluster "slrum": did you mean slurm'
    ):
        places.chosen({"cluster": "slrum"})
    monkeypatch.setenv("DORA_CLUSTER", "lokal")
    with pytest.raises(UserError, match="DORA_CLUSTER=lokal: .* local"):
        places.chosen({})
    monkeypatch.delenv("DORA_CLUSTER")
    with pytest.raises(UserError, match="local.jobs"):
        places.chosen({"local": {"jobs": 0}})


# --- real experiments ---


@pytest.mark.slow
def test_an_experiment_outlives_signals_kills_and_a_loss_of_power(tmp_path, machine: Machine):
    """Each time it is interrupted, and the next sync takes it up; cancelled it leaves a checkpoint,
    and stays so."""
    project = GridProject(tmp_path, machine)
    project.grid("launcher('trainer.max_epochs=4000')")
    project.sync()
    [xp] = project.xps()
    for attempt, what in enumerate(("usr2", "kill", "power", "cancel"), 1):
        before = xp.state().epoch
        machine.wait(
            lambda now=attempt, then=before: xp.state().attempt == now and xp.state().epoch > then,
            90,
        )
        holder = claims.latest(xp)
        assert holder is not None and holder.job_id == xp.job().job_id
        if what == "power":
            machine.kill_all()
        elif what == "cancel":
            project.dora("grid", "question", "--cancel")
        else:
            os.kill(holder.pid, signal.SIGUSR2 if what == "usr2" else signal.SIGKILL)
        machine.wait(lambda: not machine.live())
        [status] = look(
            [xp], places.Places(places.Slurm(), _local(machine), _local(machine))
        ).values()
        cause = {
            "usr2": "interrupted by SIGUSR2",
            "kill": "killed by signal 9",
            "power": "all its processes are gone",
        }
        assert what == "cancel" or (status.state, status.cause) == (State.INTERRUPTED, cause[what])
        if what != "cancel":
            assert "~ 1 resume" in project.sync()
    assert "cancelled by" in project.dora("info", "-f", xp.sig) and xp.last_checkpoint.exists()
    machine.wait(lambda: not machine.processes())


def _local(machine: Machine) -> Local:
    executor = Local(why="a test")
    executor._queue = Queue(str(machine.folder))
    return executor


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_the_jobs_and_no_pipe(tmp_path, machine: Machine):
    """Its whole process group gets SIGKILL; what reads its output comes to an end while the job
    goes on."""
    project = GridProject(tmp_path, machine)
    project.grid(ASLEEP, "launcher(seed=1)")
    command = subprocess.Popen(
        [DORA, "grid", "question"],
        cwd=project.folder,
        env=project.env,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    machine.wait(
        lambda: any(xp.job() and xp.job().job_id for xp in project.xps()) and machine.live()
    )
    time.sleep(1)
    os.killpg(command.pid, signal.SIGKILL)
    assert "+ 1 new" in command.communicate(timeout=10)[0].decode()
    assert len(machine.live()) == 1 and "= 1 kept" in project.sync()


def test_an_end_that_is_written_while_someone_looks_is_that_end(tmp_path: Path, monkeypatch):
    """The runner writes it without holding the queue: here, between two looks at the files."""
    files = JobFiles(str(tmp_path), "1")
    (tmp_path / "jobs/1").mkdir(parents=True)

    def ends_now() -> bool:
        files.write_end("FAILED", 3)
        return False

    monkeypatch.setattr(files, "is_alive", ends_now)
    phase, end = files.state()
    assert (phase, end["word"], end["code"]) == (OVER, "FAILED", 3)
