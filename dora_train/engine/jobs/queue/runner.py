"""What starts the jobs of the local queue, and stays with each until it is over: one small process
a job.

A command starts it (executor.py, `move`); it forks a runner for each job that can start, and leaves. A
runner starts the ranks of its job, waits for them, writes down how they ended, and does the same
again: the queue moves on without a daemon, and nothing is left once it is empty. A runner that was
killed leaves its job running, locked as ever; the next command puts another in its place
(`_watch_orphan`). Standard library only: 10 MB, and five looks at a file a second.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress

from .files import raw
from .queue import Queue, Taken

PERIOD = 0.2  # seconds between two looks
GRACE = 30.0  # seconds from asking a job to leave to ending it: time for a checkpoint


def main(root: str) -> None:
    """Fork a runner for each job that can start, now and after the end of each."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whatever the command had blocked
    queue = Queue(root)
    while True:
        jobs = [*queue.take(), *queue.orphans()]
        mine = None
        for number, job in enumerate(jobs):
            if os.fork() == 0:
                mine = job
                for other in jobs[number + 1 :]:
                    other.close()
                break
            job.close()
        if mine is None:
            return
        os.setsid()
        try:
            if mine.shared:
                _run(queue, mine)
            else:
                _watch_orphan(queue, mine.number)
        except Exception:
            traceback.print_exc()
        mine.close()


# --- a job that is started here ---


def _run(queue: Queue, mine: Taken) -> None:
    job = queue.started(mine.number)
    try:
        ranks = [_start(job, rank, mine) for rank in range(job["ranks"])]
    except KeyError:  # a damaged file
        queue.end(mine.number, "FAILED", 1)
        return
    failed = _watch(queue, mine.number, ranks)
    word = (
        "COMPLETED" if not failed else "CANCELLED" if queue.cancelled_by(mine.number) else "FAILED"
    )
    signum = _signal_of(failed)
    queue.end(mine.number, word, 0 if signum else failed, signum)


def _signal_of(ended: int) -> int:
    """The signal that ended a process; 0 if it left by itself.

    A shell reports a process that a signal ended as 128 + signal. A run that was asked to leave
    does so, too.
    """
    signum = -ended if ended < 0 else ended - 128
    return signum if signum in signal.valid_signals() else 0


def _start(job: dict, rank: int, mine: Taken) -> int:
    """Start one rank in a session of its own, with the folder, environment and Python of the
    command that queued it."""
    env = job["env"] | {"CUDA_VISIBLE_DEVICES": ",".join(mine.gpus), "DORA_TRAIN_JOB_ID": job["id"]}
    if "_" in mine.number:
        env["DORA_TRAIN_TASK"] = mine.number.partition("_")[2]
    if job["ranks"] > 1:
        job.setdefault("port", str(_free_port()))
        env |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(job["ranks"]),
            "LOCAL_WORLD_SIZE": str(job["ranks"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": job["port"],
        }
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        log = os.open(
            raw(f"{job['logs']}/{job['id']}_{rank}_log.out"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o666,
        )
        for fd, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        for fd in mine.shared:
            os.set_inheritable(fd, True)
        # Python ignores it, and a program would inherit that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(job["umask"])
        os.chdir(raw(job["folder"]))
        os.execve(
            job["script"][0], [*map(raw, job["script"])], {raw(key): raw(env[key]) for key in env}
        )
    except Exception as error:
        os.write(2, f"the local queue could not start it: {error}\n".encode(errors="replace"))
    finally:
        os._exit(127)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _watch(queue: Queue, number: str, ranks: list[int]) -> int:
    """Wait for all ranks. When one fails, or someone asks for the end, the others are asked to
    leave, then ended.

    Returns:
        How the first that failed ended, as a code or a negative signal; 0: none did.
    """
    failed, deadline = 0, float("inf")
    while ranks:
        for rank in list(ranks):
            pid, status = os.waitpid(rank, os.WNOHANG)
            if pid:
                ranks.remove(rank)
                # what it left behind: data workers, a shell's children
                _signal(-rank, signal.SIGKILL)
                failed = failed or os.waitstatus_to_exitcode(status)
        if deadline == float("inf") and (failed or queue.cancelled_by(number)):
            deadline = time.monotonic() + GRACE
            # the first process alone: workers that leave before it look like a failure
            for rank in ranks:
                _signal(rank, signal.SIGTERM)
        if time.monotonic() > deadline:
            for rank in ranks:
                _signal(-rank, signal.SIGKILL)
        if ranks:
            time.sleep(PERIOD)
    return failed


def _signal(pid: int, signum: int) -> None:
    """To a process, or with a negative number to a group: one that this process has started."""
    with suppress(OSError):  # it is gone
        os.kill(pid, signum)


# --- a job whose runner was killed ---


def _watch_orphan(queue: Queue, number: str) -> None:
    """Wait until its last process is gone, so that the queue moves on then; end it where someone
    asks for that."""
    alive, deadline = queue.path("jobs", number, "alive"), float("inf")
    while queue.is_alive(number):
        if queue.cancelled_by(number):
            holders = _holders(alive)
            leaders = [pid for pid in holders if _leads(pid)]
            for pid in leaders if deadline == float("inf") else ():
                _signal(pid, signal.SIGTERM)
            deadline = min(deadline, time.monotonic() + GRACE)
            for pid in holders if not leaders or time.monotonic() > deadline else ():
                _signal(pid, signal.SIGKILL)
        time.sleep(PERIOD)


def _leads(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except OSError:
        return False


def _holders(path: str) -> list[int]:
    """The processes that hold the lock on a file.

    Linux only: elsewhere an orphan runs to its end.
    """
    wanted, found = os.stat(path), []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        try:
            found += [int(pid)] * any(
                _holds(pid, fd, wanted) for fd in os.listdir(f"/proc/{pid}/fd")
            )
        except OSError:  # it is gone, or somebody else's
            continue
    return found


def _holds(pid: str, fd: str, wanted: os.stat_result) -> bool:
    """Whether that open file is `wanted`, and locked: who only looks whether it is has it open as
    well."""
    file = os.stat(f"/proc/{pid}/fd/{fd}")
    if (file.st_dev, file.st_ino) != (wanted.st_dev, wanted.st_ino):
        return False
    with open(f"/proc/{pid}/fdinfo/{fd}") as info:
        return "FLOCK" in info.read()
