"""Starts the process that imports libraries (parent.py), and waits until it has imported them.

runner.py calls `start_ahead` in a process that also holds the locks of the jobs. If the import
fails, or the importing process is killed, this process starts the jobs without it. Standard library
only: see runner.py.
"""

from __future__ import annotations

import compileall
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import raw
from .queue import Queue
from .taking import Taken

LIMIT = 300.0  # seconds that the import may take: on a slow file system it may take minutes
READY = b"ready"
PROGRAM = (
    "import sys; path = sys.path[:]; sys.path.insert(0, sys.argv[1]);"
    "from dora_train.engine.jobs.queue.parent import main; main(path, *sys.argv[2:])"
)


def start_ahead(queue: Queue, jobs: list[Taken]) -> str:
    """Start jobs of one kind from a process that imports their libraries first.

    Args:
        jobs: the jobs, which this process has taken. Those that were started are removed from it.

    Returns:
        Why it failed. Then `jobs` has the jobs that were not started. Empty if it did not fail.
    """
    heard, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        _import_ahead(queue, jobs, told)
    os.close(told)
    first = queue.job(jobs[0].number)
    if first is not None:
        compile_project(first)
    trouble = _trouble(pid, heard)
    os.close(heard)
    for job in list(jobs):
        # If the other process was killed late, it has started some of the jobs.
        if not trouble or not queue.is_waiting(job.number):
            job.close()
            jobs.remove(job)
    return trouble if jobs else ""


def compile_project(job: Mapping[str, Any]) -> None:
    """Compile the files of the project that a job runs. Otherwise each of the first jobs would.

    This process has nothing else to do while the other one imports the libraries.
    """
    if "PYTHONDONTWRITEBYTECODE" in job["env"] or raw(job["python"]) != os.fsencode(sys.executable):
        return
    program = Path(os.fsdecode(raw(job["program"][0])))
    if program.parts[-2:] == ("engine", "job.py"):
        # what cannot be compiled or written is left out
        compileall.compile_dir(program.parents[1], quiet=2)


def _trouble(pid: int, heard: int) -> str:
    """Wait for the process that imports libraries. Returns why it failed, or an empty text.

    Args:
        heard: the file descriptor from which the answer of this process is read.
    """
    answer = b""
    while True:
        if not select.select([heard], [], [], LIMIT)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"the libraries were not imported within {LIMIT:g} s"
        part = os.read(heard, 4096)
        if not part:
            break
        answer += part
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer == READY and code == 0:
        return ""
    if code < 0:
        return f"the process that imports the libraries was ended by signal {-code}"
    return answer.decode(errors="replace") or f"their import ended with exit code {code}"


def _import_ahead(queue: Queue, jobs: list[Taken], told: int) -> None:
    """Turn this process into a new Python that runs parent.py. Does not return."""
    try:
        job = queue.job(jobs[0].number) or {}
        given = [[job.number, job.shared, job.watched, job.gpus] for job in jobs]
        os.set_inheritable(told, True)
        for taken in jobs:
            taken.let_inherit(True)
        code_root = str(Path(__file__).parents[4])
        words = [job["python"], "-u", "-c", PROGRAM, code_root, queue.root, json.dumps(given)]
        # The environment of the first job, because Python and libraries read it when they start.
        # The other jobs differ only in variables that no library reads then (libraries.py).
        os.chdir(raw(job["folder"]))
        env = {raw(key): raw(value) for key, value in job["env"].items()}
        os.execve(raw(job["python"]), [raw(word) for word in [*words, str(told)]], env)
    except Exception as error:
        os.write(told, str(error).encode(errors="replace"))
    finally:
        os._exit(1)
