"""Starts the jobs of the local queue: one small process per job, which stays until the job is over.

A command starts this program (executor.py, `move`). It forks a runner for each job that can start,
and ends. A runner starts the ranks of its job, waits for them, and writes down how they ended. Then
it does the same as the program. So the queue moves on without a daemon, and no process is left once
it is empty. If a runner is killed, its job goes on and stays locked, and the next command starts
another runner for it (`watch_orphan`). Standard library only: a runner takes 10 MB, and reads a
file five times a second.

Most jobs start as forks of a process that has imported their libraries (parent.py). Its runners are
forks of it as well, so that each of them can start the next job in the same way.
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

# The kind of job whose libraries are to be imported, and the jobs. Empty: one job that starts from
# this process.
Group = tuple[str, list[Taken]]


def main(root: str, packages: str = "") -> None:
    """Fork a runner for each job that can start, now and after the end of each.

    Args:
        packages: the folder of the installed packages, of which macOS needs one (watching.py).
    """
    if packages:
        sys.path.append(packages)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the command may have blocked some
    serve(Queue(root), Libraries(), [])


def serve(queue: Queue, libraries: Libraries, given: list[Taken]) -> None:
    """Fork a process for each of the given jobs, and for each job that can start later.

    Args:
        libraries: those that this process has imported.
        given: jobs that are taken already. If there are none, those that can start now.
    """
    while True:
        jobs = given or ready(queue)
        if not jobs and libraries.kind:
            jobs = await_ready(queue)  # the next job can do without the import
        if not jobs and must_await_gpus(queue):
            if libraries.kind:
                start_runner(queue)  # it may take days, and the libraries take memory
                return
            if os.fork():
                return  # the command that started this process does not wait
            os.setsid()
            jobs = await_gpus(queue)
        kind, mine = _fork_for_each(_grouped(queue, jobs, libraries))
        if not mine:
            return
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
            traceback.print_exc()  # into trouble.log; the next jobs are started all the same
        job.close()


def _grouped(queue: Queue, jobs: list[Taken], libraries: Libraries) -> list[Group]:
    """The jobs as groups: one of each kind whose libraries must be imported, and one for each other job."""
    alone: list[Group] = []
    together: dict[str, list[Taken]] = {}
    for job in jobs:
        kind = ""
        if job.shared:  # an orphan has started
            kind = kind_of(queue.job(job.number) or {})
        if kind == "" or libraries.fit(kind) or kind in libraries.failed:
            alone.append(("", [job]))
        else:
            together.setdefault(kind, []).append(job)
    return [*alone, *together.items()]


def _fork_for_each(groups: list[Group]) -> Group:
    """Fork a process for each group. Returns its group in each child, and nothing in the parent."""
    for number, (kind, jobs) in enumerate(groups):
        if os.fork() == 0:
            for _, others in groups[number + 1 :]:
                for other in others:  # else these would stay locked by this process, too
                    other.close()
            return kind, jobs
        for job in jobs:
            job.close()  # the child keeps the locks
    return "", []


def _run(queue: Queue, mine: Taken, libraries: Libraries) -> None:
    # The libraries may have been imported since the job was taken, which takes seconds.
    taken = others_now(queue.job(mine.number) or {}, mine.gpus)
    if taken:
        queue.files_of(mine.number).wait_for(taken)
        return
    job = queue.started(mine.number, mine.gpus)
    try:
        ranks = start(job, mine, libraries)
    except KeyError:  # a damaged file
        queue.end(mine.number, "FAILED", 1)
        return
    code = watch(queue, mine.number, ranks)
    word = "COMPLETED"
    if code:
        word = "CANCELLED" if queue.cancelled_by(mine.number) else "FAILED"
    signum = signal_of(code)
    if signum:
        code = 0
    queue.end(mine.number, word, code, signum)
    if job.get("last") and not queue.has(job["group"]):
        run_apart(job)
