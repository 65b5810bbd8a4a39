"""Starts the jobs of the local queue: one small process per job, which stays until the job is over.

A command starts this program (executor.py, `move`). It forks a runner for each job that can start,
and ends. A runner starts the ranks of its job, waits for them, and writes down how they ended. Then
it does the same as the program. So the queue moves on without a daemon, and no process is left once
it is empty. If a runner is killed, its job goes on and stays locked, and the next command starts
another runner for it (`_watch_orphan`). Standard library only: a runner takes 10 MB, and reads a
file five times a second.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress

from .files import raw
from .queue import Queue
from .taking import Taken, orphans, take

PERIOD = 0.2  # seconds between two looks
GRACE = 30.0  # seconds from asking a job to end to killing it: time for a checkpoint
NEVER = float("inf")


def main(root: str) -> None:
    """Fork a runner for each job that can start, now and after the end of each."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the command may have blocked some
    queue = Queue(root)
    while True:
        jobs = [*take(queue), *orphans(queue)]
        mine = None
        for number, job in enumerate(jobs):
            if os.fork() == 0:
                mine = job
                for other in jobs[number + 1 :]:  # else these would stay locked by this runner, too
                    other.close()
                break
            job.close()  # the child keeps the locks
        if mine is None:
            return
        os.setsid()  # neither Ctrl-C nor the end of the command's terminal may reach it
        try:
            if mine.shared:
                _run(queue, mine)
            else:
                _watch_orphan(queue, mine.number)
        except Exception:
            traceback.print_exc()  # into trouble.log; the next jobs are started all the same
        mine.close()


# --- a job that is started here ---


def _run(queue: Queue, mine: Taken) -> None:
    job = queue.started(mine.number)
    try:
        ranks = [_start(job, rank, mine) for rank in range(job["ranks"])]
    except KeyError:  # a damaged file
        queue.end(mine.number, "FAILED", 1)
        return
    code = _watch(queue, mine.number, ranks)
    word = "COMPLETED"
    if code:
        word = "CANCELLED" if queue.cancelled_by(mine.number) else "FAILED"
    signum = _signal_of(code)
    if signum:
        code = 0
    queue.end(mine.number, word, code, signum)


def _signal_of(code: int) -> int:
    """The signal that ended a process. 0 if it ended by itself.

    A shell reports a process that a signal ended as 128 + signal. A run that was asked to end
    does so, too.

    Args:
        code: an exit code, or a negative signal.
    """
    signum = abs(code) if code < 0 else code - 128
    return signum if signum in signal.valid_signals() else 0


def _start(job: dict, rank: int, mine: Taken) -> int:
    """Start one rank in a session of its own. Returns its process id.

    It has the folder, the environment and the Python of the command that queued it.
    """
    env = job["env"] | {"CUDA_VISIBLE_DEVICES": ",".join(mine.gpus), "DORA_TRAIN_JOB_ID": job["id"]}
    if "_" in mine.number:
        env["DORA_TRAIN_TASK"] = mine.number.partition("_")[2]
    if job["ranks"] > 1:
        job.setdefault("port", str(_free_port()))  # one for all ranks of the job
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
        path = raw(f"{job['logs']}/{job['id']}_{rank}_log.out")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for fd in mine.shared:
            os.set_inheritable(fd, True)
        # Python ignores SIGPIPE, and the program would inherit that
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.umask(job["umask"])
        os.chdir(raw(job["folder"]))
        arguments = list(map(raw, job["script"]))
        os.execve(job["script"][0], arguments, {raw(key): raw(env[key]) for key in env})
    except Exception as error:
        os.write(2, f"the local queue could not start it: {error}\n".encode(errors="replace"))
    finally:
        os._exit(127)  # this is a copy of the runner, and must not do its work a second time


def _free_port() -> int:
    import socket  # only if there are several ranks: a runner is to stay small

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _watch(queue: Queue, number: str, ranks: list[int]) -> int:
    """Wait for all ranks.

    If one fails, or a user asks for the end, the others are asked to end, and killed later.

    Returns:
        The exit code, or the negative signal, of the first rank that failed. 0: none did.
    """
    failed, deadline = 0, NEVER
    while ranks:
        for rank in list(ranks):
            pid, status = os.waitpid(rank, os.WNOHANG)
            if pid:
                ranks.remove(rank)
                # it may have left processes behind: data workers, children of a shell
                _signal(-rank, signal.SIGKILL)
                failed = failed or os.waitstatus_to_exitcode(status)
        if deadline == NEVER and (failed or queue.cancelled_by(number)):
            deadline = time.monotonic() + GRACE
            # only the first process: if its workers ended before it, that would look like a failure
            for rank in ranks:
                _signal(rank, signal.SIGTERM)
        if time.monotonic() > deadline:
            for rank in ranks:
                _signal(-rank, signal.SIGKILL)
        if ranks:
            time.sleep(PERIOD)
    return failed


def _signal(pid: int, signum: int) -> None:
    """Send a signal to a process, or with a negative number to a group of processes."""
    with suppress(OSError):  # it is gone
        os.kill(pid, signum)


# --- a job whose runner was killed ---


def _watch_orphan(queue: Queue, number: str) -> None:
    """Wait until the last process of a job is gone, so that the queue moves on then.

    If a user asks for the end, its processes are asked to end, and killed later.
    """
    alive, deadline = queue.path("jobs", number, "alive"), NEVER
    while queue.is_alive(number):
        if queue.cancelled_by(number):
            holders = _holders(alive)
            leaders = list(filter(_leads, holders))
            if deadline == NEVER:
                for pid in leaders:
                    _signal(pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE
            if not leaders or time.monotonic() > deadline:
                for pid in holders:
                    _signal(pid, signal.SIGKILL)
        time.sleep(PERIOD)


def _leads(pid: int) -> bool:
    """Whether a process leads its group, as the first process of each rank does."""
    try:
        return os.getpgid(pid) == pid
    except OSError:
        return False


def _holders(path: str) -> list[int]:
    """The processes that hold the lock on a file.

    Linux only. On another system an orphan runs to its end.
    """
    if not os.path.isdir("/proc"):
        return []
    wanted, found = os.stat(path), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = os.listdir(f"/proc/{pid}/fd")
            if any(_holds(pid, fd, wanted) for fd in files):
                found.append(int(pid))
        except OSError:  # it is gone, or belongs to another user
            continue
    return found


def _holds(pid: str, fd: str, wanted: os.stat_result) -> bool:
    """Whether an open file is `wanted`, and locked.

    A process that checks whether the file is locked has it open as well, without a lock.
    """
    file = os.stat(f"/proc/{pid}/fd/{fd}")
    if (file.st_dev, file.st_ino) != (wanted.st_dev, wanted.st_ino):
        return False
    with open(f"/proc/{pid}/fdinfo/{fd}") as info:
        return "FLOCK" in info.read()
