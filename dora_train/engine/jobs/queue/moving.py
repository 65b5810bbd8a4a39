"""Starts the runners of the local queue from a command. executor.py calls this."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .queue import Queue
from .taking import is_awaited, must_await_gpus, ready


def move(queue: Queue) -> None:
    """Start the jobs that can start, and replace runners that were killed."""
    if not queue.id() or is_awaited(queue):  # a process that waits for jobs will start them
        return
    # This check is cheaper than a process. The jobs are released again, and the runner takes them.
    jobs = ready(queue)
    for job in jobs:
        job.close()
    if jobs or must_await_gpus(queue):
        start_runner(queue)


@contextmanager
def more_to_come(queue: Queue) -> Iterator[None]:
    """Within this block, the process with the libraries of the last job waits for more jobs."""
    fd = os.open(queue.path("more"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # shared: several commands may hold it
        yield
    finally:
        os.close(fd)


def start_runner(queue: Queue) -> None:
    """Start a runner in its own session, because it lives longer than this command.

    It gets none of this command's pipes. Otherwise a reader of our output would wait for its end.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from dora_train.engine.jobs.queue.runner import main;"
        "main(sys.argv[2], sys.argv[3])"
    )
    import psutil  # it takes time to import, and most commands start no runner

    packages = str(Path(psutil.__file__).parents[1])
    private = os.open(queue.path("trouble.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(private, "ab") as log:
        process = subprocess.Popen(
            # isolated and without site-packages, so that it starts fast and stays small
            [
                sys.executable,
                "-IS",
                "-c",
                code,
                str(Path(__file__).parents[4]),
                queue.root,
                packages,
            ],
            cwd="/",  # otherwise it would keep a folder in use, which could not be unmounted
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.wait()  # until it has forked. From then on, its jobs are shown as running
