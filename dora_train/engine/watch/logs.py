"""A log's end, and following it as it grows.

Bytes that are no UTF-8 are shown as such, never an error.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import Job

NOISE = ("srun:", "slurmstepd:", "submitit ", "WARNING:")  # what surrounds the line that says why


def log_of(experiment: Experiment, job: Job | None) -> Path | None:
    """The log to look at: what its job printed (errors before and around the run included), else
    the run's own."""
    last = claims.latest(experiment)
    by_job = job is not None and (last is None or last.token == job.token or not last.is_after(job))
    found = [Path(job.log)] if by_job and job and job.log else []
    return next((path for path in [*found, experiment.log] if path.exists()), None)


def last_lines(path: Path, count: int = 10, size: int = 64 * 1024) -> list[str]:
    """The last `count` lines that are not empty, read from the last `size` bytes."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return list(deque((line.rstrip() for line in text.splitlines() if line.strip()), count))


def reason_in(path: Path | None) -> str:
    """The last line that is the program's own word: an exception's last line, as a rule."""
    lines = last_lines(path, 50) if path else []
    return next((line.strip() for line in reversed(lines) if not line.startswith(NOISE)), "")


def print_log(path: Path) -> None:
    """All of it. A reader that closes the pipe early (`| head`) is no error."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            sys.stdout.write(line)
    sys.stdout.flush()


def follow(
    find: Callable[[], Path | None],
    ended: Callable[[], bool],
    period: float = 0.5,
    lines: int = 200,
) -> None:
    """Print a log as it grows, as `tail -F` does, until `ended()`; another file that `find` gives
    is taken up."""
    current: Path | None = None
    place = 0
    while True:
        over = ended()  # asked first: what was written before the end is then still printed
        path = find()
        if path is not None and path != current:
            print(*last_lines(path, lines), sep="\n", flush=True)
            current, place = path, path.stat().st_size
        elif path is not None:
            place = _print_from(path, place)
        if over:
            return
        time.sleep(period)


def _print_from(path: Path, place: int) -> int:
    """Print what came after `place`, and give the new end; a file that was cut short starts
    again."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(place if file.tell() >= place else 0)
            sys.stdout.write(file.read().decode(errors="replace"))
            sys.stdout.flush()
            return file.tell()
    except OSError:
        return place
