"""The program that imports the libraries of jobs, and then starts the jobs as forks of itself.

ahead.py starts it, and passes the locks of the first jobs to it. It forks a runner for each of
these jobs, and ends. The runners have the libraries too, and start the next jobs in the same way.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback

from .ahead import READY
from .libraries import Libraries, kind_of
from .queue import Queue
from .runner import serve
from .taking import Taken


def main(path: list[str], root: str, given: str, told: str) -> None:
    """Import the libraries of the given jobs. Then start these jobs and later ones as forks.

    Args:
        path: `sys.path` without the folder of this program.
        root: the folder of the queue.
        given: the jobs, as `[[number, shared, watched, gpus], ...]` in JSON (`Taken`).
        told: the file descriptor for the answer: `READY`, or the error.
    """
    queue = Queue(root)
    jobs = [Taken(*job) for job in json.loads(given)]
    # A program that a library starts while it is imported must not inherit the pipe or the locks.
    os.set_inheritable(int(told), False)
    for job in jobs:
        job.let_inherit(False)
    libraries = Libraries()
    ours, sys.path[:] = sys.path[:], [entry for entry in path if entry]
    first = queue.job(jobs[0].number) or {}
    try:
        libraries.load(kind_of(first), first["preload"], sys.path[:])
    except BaseException as error:  # a library may call sys.exit
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        os.write(int(told), last.encode(errors="replace"))
        os._exit(1)
    sys.path[:] = ours
    os.chdir("/")  # otherwise it would keep a folder in use, which could not be unmounted
    gc.freeze()  # so that the collector does not write to the memory that forks share
    os.write(int(told), READY)
    os.close(int(told))
    try:
        serve(queue, libraries, jobs)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
