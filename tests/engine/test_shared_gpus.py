"""A lab's server without a scheduler: the local queue takes only GPUs that nobody else uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from shared_gpus import FREE, TAKEN, Driver
from test_local_queue import FORK, Here, here  # noqa: F401 - a fixture

from dora_train.engine.config.limits import check_values
from dora_train.engine.config.overrides import parse
from dora_train.engine.errors import UserError
from dora_train.engine.jobs.executor import Order, Phase
from dora_train.engine.jobs.queue import gpu_users
from dora_train.engine.jobs.queue.files import Locks, opened
from dora_train.engine.jobs.queue.gpu_machine import lock_for_all
from dora_train.engine.jobs.queue.gpus import chosen_of, named
from dora_train.engine.jobs.queue.surroundings import environment_of
from dora_train.engine.upstream import nvml

OTHERS = "GPU 0 is in use by another user"


@pytest.fixture
def driver(here: Here, tmp_path: Path, monkeypatch) -> Driver:  # noqa: F811
    driver = Driver(tmp_path / "driver")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(nvml, "file", lambda: str(driver.file))
    monkeypatch.setattr(gpu_users, "AGE", 0.0)
    here.jobs = None
    return driver


def test_a_gpu_of_others_is_left_alone_until_it_is_free(here: Here, driver: Driver):  # noqa: F811
    driver.says(TAKEN, FREE)
    first = here.run("sleep 60", gres="gpu:1")
    second = here.run("echo $CUDA_VISIBLE_DEVICES >> gpus", gres="gpu:1")
    both = here.run("echo both >> gpus", gres="gpu:2")
    here.machine.wait(lambda: here.info(first).gpus == ["1"])
    assert (here.phase(second), here.info(second).reason) == (Phase.PENDING, OTHERS)
    assert here.info(both).reason == ""
    here.machine.wait(lambda: len(here.runners()) == 2)  # of the job, and one that waits
    driver.says(FREE, FREE)
    here.until(second)  # no command moves the queue on
    assert here.lines("gpus") == ["0"]
    here.executor.cancel([first])
    here.until(both)
    here.machine.wait(lambda: not here.machine.processes())


def test_of_two_jobs_the_one_that_finds_no_gpu_is_looked_after(here: Here, driver: Driver):  # noqa: F811
    """The other one starts at the same moment, so the process that started it has found work."""
    driver.says(TAKEN, FREE)
    first = here.submit("sleep 60", gres="gpu:1")
    second = here.submit("echo $CUDA_VISIBLE_DEVICES >> gpus", gres="gpu:1")
    here.executor.move()
    here.machine.wait(lambda: here.info(first).gpus == ["1"])
    here.machine.wait(lambda: here.info(second).reason == OTHERS)
    driver.says(FREE, FREE)
    here.until(second)  # no command moves the queue on
    assert here.lines("gpus") == ["0"]
    here.executor.cancel([first])
    here.machine.wait(lambda: not here.machine.processes())


def test_one_process_waits_and_not_for_a_job_that_is_cancelled(here: Here, driver: Driver):  # noqa: F811
    driver.says(TAKEN, TAKEN)
    jobs = [here.run("true", gres="gpu:1") for _ in range(2)]
    here.machine.wait(lambda: len(here.runners()) == 1)
    here.executor.move()
    assert here.info(jobs[0]).reason == f"{OTHERS}, GPU 1 is in use by another user"
    here.executor.cancel(jobs)
    here.machine.wait(lambda: not here.machine.processes())


def test_a_small_process_waits(here: Here, driver: Driver, monkeypatch):  # noqa: F811
    """The runner that goes on has libraries, which take memory."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here.preload = []
    first = here.run("touch up; while [ ! -e go ]; do sleep 0.1; done", gres="gpu:1")
    here.until_file("up")
    second = here.run("true", gres="gpu:1")
    assert here.info(second).reason == "", "it waits for a job of ours"
    driver.says(TAKEN)
    (here.out / "go").touch()
    here.until(first)
    here.machine.wait(lambda: here.info(second).reason == OTHERS)
    here.machine.wait(lambda: ["-IS" in runner.cmdline() for runner in here.runners()] == [True])
    driver.says(FREE)
    here.until(second)


def test_the_driver_is_asked_again_right_before_a_start(here: Here, driver: Driver):  # noqa: F811
    driver.says(FREE, FREE, **{"from": 3, "then": [TAKEN, TAKEN]})  # command, runner, start
    job = here.run("echo ran >> ran", gres="gpu:1")
    here.machine.wait(lambda: here.info(job).reason)
    assert here.phase(job) is Phase.PENDING and not here.lines("ran")
    driver.says(TAKEN, FREE)
    here.until(job)
    assert here.lines("ran") == ["ran"]


def test_jobs_of_one_queue_share_a_gpu_whatever_memory_they_take(here: Here, driver: Driver):  # noqa: F811
    here.per_gpu = 2
    first = here.run("sleep 60", gres="gpu:1")
    leader = here.leader(first).pid
    driver.says({"pids": [leader], "used": 30 << 30}, TAKEN)
    second = here.run("sleep 60", gres="gpu:1")
    here.machine.wait(lambda: here.info(first).gpus == here.info(second).gpus == ["0"])


@pytest.mark.parametrize(
    "load, reason",
    [
        (nvml.Load("u", (), 1 << 30), ""),
        (nvml.Load("u", (), 3 << 30), "the memory of GPU 2 is in use"),
        (nvml.Load("u", (os.getpid(),), 1 << 30), ""),
        (
            nvml.Load("u", (os.getpid(),), 3 << 30),
            f"GPU 2 is in use by process {os.getpid()} of yours",
        ),
        (nvml.Load("u", (os.getpid(), 2**22 + 1), 0), "GPU 2 is in use by another user"),
        (None, ""),
    ],
    ids=["free", "full", "ours", "full of ours", "another user", "no driver"],
)
def test_who_uses_it(load, reason):
    assert gpu_users.in_use("2", load, is_ours=False) == reason
    if "yours" in reason or "memory" in reason:
        assert gpu_users.in_use("2", load, is_ours=True) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
def test_a_process_of_another_user():
    with subprocess.Popen(["sleep", "60"], user=65534) as other:
        load = nvml.Load("u", (other.pid,), 0)
        assert gpu_users.in_use("0", load, is_ours=True) == OTHERS
        other.kill()


def test_what_the_driver_says(tmp_path: Path):
    driver = Driver(tmp_path / "driver")
    driver.says(FREE, TAKEN)
    found = nvml.loads(str(driver.file), ["1", "GPU-0", "7", "MIG-3"])
    assert found == {
        "1": nvml.Load("GPU-1f00", (TAKEN["pids"][0],), TAKEN["used"]),
        "GPU-0": nvml.Load("GPU-0f00", (), FREE["used"]),
    }
    driver.says({"lost": True})
    assert nvml.loads(str(driver.file), ["0"]) == {}
    assert nvml.loads(str(tmp_path / "none.py"), ["0"]) == nvml.loads("", ["0"]) == {}


def test_pynvml_is_a_file_that_runners_can_import():
    """They have no site-packages on their path."""
    code = "import sys; from dora_train.engine.upstream import nvml; print(nvml.loads(sys.argv[1], ['0']))"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, sys.argv[2]); {code}"]
        + [nvml.file(), str(Path(nvml.__file__).parents[3])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("{"), done.stderr


# --- two users at once ---


def hold_as(user: int, folder: str, told, until) -> None:
    os.setuid(user)
    fds = Locks()
    told.put(lock_for_all(folder, fds, "GPU-0", f"q{user}"))
    until.get()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
def test_two_users_do_not_land_on_one_gpu():
    outside = Path(tempfile.mkdtemp())  # pytest's own folders are for one user
    outside.chmod(0o777)
    folder = outside / "gpus"
    told, until = FORK.SimpleQueue(), FORK.SimpleQueue()
    users = [FORK.Process(target=hold_as, args=(user, str(folder), told, until)) for user in (1, 2)]
    try:
        for process in users:
            process.start()
        answers = [told.get(), told.get()]
        assert answers.count(True) <= 1, "both have looked before one of them left"
        with opened() as fds:
            assert lock_for_all(str(folder), fds, "GPU-1", "q3"), "another GPU"
            assert lock_for_all(str(folder), fds, "GPU-0", "q3") is not any(answers)
        assert folder.stat().st_mode & 0o7777 == 0o1777
        for _ in users:
            until.put(None)
        for process in users:
            process.join()
        with opened() as fds:
            jobs = [lock_for_all(str(folder), fds, "GPU-0", "q3") for _ in range(2)]
            assert jobs == [True, True], "two jobs of one queue"
    finally:
        for process in users:
            process.kill()
            process.join()
        shutil.rmtree(outside)


def test_two_queues_of_one_user_do_not_either(here: Here, tmp_path: Path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here.jobs = None
    first = here.run("sleep 60", gres="gpu:1")
    one = here.executor
    monkeypatch.setenv("DORA_QUEUE", str(tmp_path / "second"))
    second = here.run("echo ran >> ran", gres="gpu:1")
    assert here.info(second).reason == "GPU 0 is in use by a job of another queue"
    one.cancel([first])
    here.until(second)
    assert here.lines("ran") == ["ran"]
    here.machine.wait(lambda: not here.runners())


def test_a_folder_that_is_not_for_all_locks_nothing(tmp_path: Path):
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for folder in ("", str(tmp_path / "mine"), str(tmp_path / "link"), str(tmp_path / "no/such")):
        with opened() as fds:
            assert lock_for_all(folder, fds, "GPU-0", "q1") and not fds.kept


# --- local.gpus ---


def test_numbers_mean_the_same_gpus_to_cuda_as_to_the_driver(monkeypatch, tmp_path: Path):
    """CUDA counts the fastest GPU first, unless it is told to count as nvidia-smi does."""
    order = Order("job", "true", tmp_path, {})
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    assert environment_of(order, by_index=True)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER" not in environment_of(order)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "CUDA_DEVICE_ORDER" not in environment_of(order, by_index=True)


@pytest.mark.parametrize("text", ["local.gpus=2,3", "local.gpus=[2,3]", "local.gpus='2,3'"])
def test_gpus_are_written_as_for_cuda(text):
    [override] = parse([text], list)
    assert named(override.value()) == ["2", "3"]
    check_values({"local": {"gpus": override.value()}})


def test_only_some_gpus():
    assert named(None) == [] and named(2) == ["2"]
    assert chosen_of(["0", "1", "2", "3"], ["3", "2"]) == ["2", "3"]
    assert chosen_of(["0"], []) == ["0"] and chosen_of([], ["2"]) == []
    with pytest.raises(UserError, match="local.gpus=2,7: there is no GPU 7 here"):
        chosen_of(["0", "1", "2"], ["2", "7"])
    with pytest.raises(UserError, match="local.gpus"):
        check_values({"local": {"gpus": {"a": 1}}})
