"""The end of a log, and a log as it grows.

Bytes that are not UTF-8 are shown as replacement characters and never raise an error.
"""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..experiment import claims
from ..experiment.claims import Holder
from ..experiment.folder import Experiment
from ..experiment.records import Job

NOISE = ("srun:", "slurmstepd:", "submitit ", "WARNING:")  # lines around the one that says why
# What a node writes if it kills a job for its memory. Without cgroups, SLURM 22.05 calls such a job
# FAILED, as any other that was killed.
OUT_OF_MEMORY = re.compile(r"slurmstepd.*(memory limit|oom.kill|out of memory)", re.IGNORECASE)
TAIL = 64 * 1024  # bytes: the most that is read for the last lines of a log
FIRST_LINES = 200  # printed of a log that is already there
PERIOD = 0.5  # seconds between two looks at a log that grows


def log_of(experiment: Experiment, job: Job | None) -> Path | None:
    """The log to look at. None if there is no log yet.

    It is the output of the last job, as errors before and after the run are only there. If an
    attempt was made since, or that file is missing, it is the run's own log.
    """
    if job is not None and job.log and _is_latest(job, claims.latest(experiment)):
        printed = Path(job.log)
        if printed.exists():
            return printed
    return experiment.log if experiment.log.exists() else None


def _is_latest(job: Job, last: Holder | None) -> bool:
    """Whether no attempt was made since the job was submitted, except by the job."""
    return last is None or last.token == job.token or not last.is_after(job)


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines that are not empty, from the end of the file.

    Empty if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = list(filter(None, map(str.rstrip, text.splitlines())))
    return lines[-count:]


def reason_in(path: Path | None) -> str:
    """The last line that the program itself printed. Mostly the last line of an exception."""
    if path is None:
        return ""
    for line in reversed(last_lines(path, 50)):
        if not line.startswith(NOISE):
            return line.strip()
    return ""


def says_out_of_memory(path: Path | None) -> bool:
    """Whether a node says at the end of a log that it killed the job for its memory."""
    if path is None:
        return False
    return any(map(OUT_OF_MEMORY.search, last_lines(path, 20)))


def print_log(path: Path) -> None:
    """Print a whole log. output.py handles a reader that closes the pipe early (`| head`)."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            sys.stdout.write(line)
    sys.stdout.flush()


def follow(find: Callable[[], Path | None], ended: Callable[[], bool]) -> None:
    """Print a log as it grows, as `tail -F` does, until `ended()`.

    Args:
        find: gives the log. If it gives another file than before, that one is followed.
        ended: whether nothing more will be written.
    """
    current: Path | None = None
    place = 0
    while True:
        # asked before the log is read: else lines written just before the end would be lost
        over = ended()
        path = find()
        if path is not None and path != current:
            print(*last_lines(path, FIRST_LINES), sep="\n", flush=True)
            current, place = path, path.stat().st_size
        elif path is not None:
            place = _print_from(path, place)
        if over:
            return
        time.sleep(PERIOD)


def _print_from(path: Path, place: int) -> int:
    """Print the bytes after `place`. Returns the new end of the file.

    A file that was cut short is printed from its start.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(place if size >= place else 0)
            sys.stdout.write(file.read().decode(errors="replace"))
            sys.stdout.flush()
            return file.tell()
    except OSError:
        return place
