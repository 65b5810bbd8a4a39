"""When an experiment ran, and for how long: by the times that the files of its folder hold.

No time of the clock is in `history.json` or `result.json`, which must be the same after any number
of kills. The claims of the attempts and `state.json` have them.
"""

import math
import re
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..experiment.folder import Experiment
from ..experiment.records import Birth, RunState, State
from .progress import duration, when
from .status import Status

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # at the start of a line of train.log


@dataclass(frozen=True)
class Times:
    """Times in seconds since the epoch. None: not known, or not yet.

    Attributes:
        began: the start of the first attempt.
        started: the start of the last attempt. Before the first one: the submission, else the
            moment when the experiment was made.
        ended: the end of the last attempt. Of a run that was killed: its last sign of progress.
        took: seconds of all attempts together, without the pauses between them.
        attempts: the number of attempts.
    """

    began: float | None = None
    started: float | None = None
    ended: float | None = None
    took: float | None = None
    attempts: int = 0

    def __str__(self) -> str:
        """`26 Nov 18:05, took 4 min`, `26 Nov 18:05, runs for 2 h 10 in 3 attempts`."""
        if self.began is None:
            return ""
        text = when(self.began)
        if self.took is not None:
            verb = "runs for" if self.ended is None else "took"
            text += f", {verb} {duration(self.took)}"
        if self.attempts > 1:
            text += f" in {self.attempts} attempts"
        return text


def times_of(
    experiment: Experiment, run: RunState, birth: Birth | None, status: Status, now: float = 0.0
) -> Times:
    """The times of an experiment.

    Args:
        now: seconds since the epoch. 0: the time of the clock.
    """
    starts = _starts(experiment)
    if not starts and run.started:  # a version without claims made it
        starts = [run.started]
    if not starts:
        return Times(started=_made(experiment, birth, status))
    ended = run.ended or run.updated
    until = ended
    if status.state == State.RUNNING:
        ended, until = None, now or time.time()
    took = None
    if until is not None and until >= starts[-1]:
        took = until - starts[-1] + _earlier(experiment, starts)
    return Times(starts[0], starts[-1], ended, took, len(starts))


def _starts(experiment: Experiment) -> list[float]:
    """When the attempts started, in their order."""
    found = []
    for number in experiment.attempt_numbers():
        claim = experiment.read(f"attempts/{number}.json")
        since = claim.get("since") if isinstance(claim, dict) else None
        if isinstance(since, (int, float)):
            found.append(float(since))
    return found


def _made(experiment: Experiment, birth: Birth | None, status: Status) -> float | None:
    """When an experiment that never started was submitted, or made."""
    job = None if status.state == State.NEW else experiment.job()
    if job is not None:
        return job.submitted
    return birth.born if birth else None


def _earlier(experiment: Experiment, starts: Sequence[float]) -> float:
    """Seconds of the attempts before the last one.

    Nothing stores the end of an attempt that was killed. Its last line in the log is close.
    """
    if len(starts) < 2:
        return 0.0
    stamps = _stamps(experiment)
    total = 0.0
    for start, following in pairwise(starts):
        # the stamps are whole seconds, so the next attempt may have one just before its start
        at = bisect_left(stamps, math.floor(following)) - 1
        if at >= 0:
            total += max(0.0, stamps[at] - start)
    return total


def _stamps(experiment: Experiment) -> list[float]:
    """The times of the lines of train.log, ascending."""
    try:
        lines = experiment.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        if stamp := STAMP.match(line):
            found.append(time.mktime(time.strptime(stamp[0], "%Y-%m-%d %H:%M:%S")))
    return sorted(found)
