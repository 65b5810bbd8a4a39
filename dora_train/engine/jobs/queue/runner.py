"""Starts the jobs of the local queue. Each job has a runner: a small process that stays until the
job is over.

A command starts this program (moving.py). It forks a runner for each job that can start, and ends.
A runner starts the ranks of its job, waits for them, and writes down how they ended. Then it forks
runners for the jobs that can start now. So the queue needs no daemon, and no process is left when
the queue is empty. If a runner is killed, its job continues and stays locked. The next command
starts another runner for it (`watch_orphan`).

This file and its imports use the standard library only, because a runner stays as long as its job.
So it takes only 10 MB of memory. It reads a file five times a second.

Most jobs start as forks of a process that has imported their libraries (parent.py). Their runners
are forks of this process, too, so that each can start the next job in the same way.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback

from .ahead import start_ahead
from .gpu_users import others_now
from .libraries import Libraries, kind_of
from .moving import start_runner
from .queue import Queue
from .starting import run_apart, start
from .taking import Taken, await_gpus, await_ready, must_await_gpus, ready
from .watching import signal_of, watch, watch_orphan

# Jobs that one process starts, with their kind. The process first imports the libraries for this
# kind of job. If the kind is empty, there is one job, which starts without such an import.
Group = tuple[str, list[Taken]]


def main(root: str, packages: str = "") -> None:
    """Fork a runner for each job that can start now, or after another job has ended.

    Args:
        root: the folder of the queue.
        packages: the folder of the installed packages. macOS needs one of them (watching.py).
    """
    if packages:
        sys.path.append(packages)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the command may have blocked some signals
    serve(Queue(root), Libraries(), [])


def serve(queue: Queue, libraries: Libraries, given: list[Taken]) -> None:
    """Fork a process for each of the given jobs, and for each job that can start later.

    Args:
        libraries: the libraries that this process has imported.
        given: jobs that this process has already taken. Empty: it takes those that can start now.
    """
    while True:
        jobs = given or ready(queue)
        if not jobs and libraries.kind:
            jobs = await_ready(queue)  # it has the libraries, so the next job starts faster here
        if not jobs and must_await_gpus(queue):
            if libraries.kind:
                # The wait may take days, and the libraries take memory. So a new process waits.
                start_runner(queue)
                return
            if os.fork():
                return  # the command that started this process waits until it ends
            os.setsid()
            jobs = await_gpus(queue)
        kind, mine = _fork_for_each(_grouped(queue, jobs, libraries))
        if not mine:
            if not must_await_gpus(queue):
                return
            # Another job waits for a GPU that others use.
            if libraries.kind:
                start_runner(queue)
                return
            given = []
            continue
        # From here on, this is a child that has one group of the jobs.
        os.setsid()  # neither Ctrl-C nor the end of the command's terminal may reach it
        given = []
        if kind:
            trouble = start_ahead(queue, mine)
            if not trouble:
                return
            libraries.failed[kind] = trouble
            given = mine
            continue
        [job] = mine
        try:
            if job.shared:
                _run(queue, job, libraries)
            else:
                watch_orphan(queue, job.number)
        except Exception:
            traceback.print_exc()  # into trouble.log. The next jobs must start nevertheless
        job.close()


def _grouped(queue: Queue, jobs: list[Taken], libraries: Libraries) -> list[Group]:
    """Divide jobs into groups: one group for each kind whose libraries must be imported first, and
    one group for each other job.
    """
    alone: list[Group] = []
    together: dict[str, list[Taken]] = {}
    for job in jobs:
        kind = ""
        if job.shared:  # else it is an orphan: it runs already
            kind = kind_of(queue.job(job.number) or {})
        if kind == "" or libraries.fit(kind) or kind in libraries.failed:
            alone.append(("", [job]))
        else:
            together.setdefault(kind, []).append(job)
    return [*alone, *together.items()]


def _fork_for_each(groups: list[Group]) -> Group:
    """Fork a process for each group. A child gets its own group, the parent gets an empty one."""
    for number, (kind, jobs) in enumerate(groups):
        if os.fork() == 0:
            for _, others in groups[number + 1 :]:
                for other in others:  # otherwise this process, too, would keep them locked
                    other.close()
            return kind, jobs
        for job in jobs:
            job.close()  # the child keeps the locks
    return "", []


def _run(queue: Queue, mine: Taken, libraries: Libraries) -> None:
    """Start a job that was taken, wait until it is over, and write down how it ended."""
    # The GPUs were free when the job was taken. But the import of libraries may have taken seconds.
    taken = others_now(queue.job(mine.number) or {}, mine.gpus)
    if taken:
        queue.files_of(mine.number).wait_for(taken)
        return
    job = queue.started(mine.number, mine.gpus)
    try:
        ranks = start(job, mine, libraries)
    except KeyError:  # the job's file is damaged
        queue.end(mine.number, "FAILED", 1)
        return
    code = watch(queue, mine.number, ranks)
    word = "COMPLETED"
    if code:
        word = "CANCELLED" if queue.cancelled_by(mine.number) else "FAILED"
    signum = signal_of(code)
    if signum:  # an end stores the signal, and not the exit code made from it
        code = 0
    queue.end(mine.number, word, code, signum)
    if job.get("last") and not queue.has(job["group"]):
        run_apart(job)
