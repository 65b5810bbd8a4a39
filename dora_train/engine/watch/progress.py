"""How far a run is, and how long it still takes, as text: for a table and for `dora info`."""

import time
from collections.abc import Mapping
from datetime import date
from typing import Any

from ..experiment.records import RunState

MORE_MEMORY = 1.5  # of what a job had, each time that it ran out of it (grid/memory.py)
STALLED = 10  # a run is stalled after this many times its longest gap between signs of progress
BEAT = 10.0  # seconds: a run that steps faster writes its progress this often


def epochs(run: RunState, known: int) -> str:
    """`12/30`, or `step 120/300` if the run ends by its steps. Empty before the first one.

    Args:
        known: the epochs in its history.
    """
    done = max(run.epoch, known)
    if not done and not run.started:
        return ""
    if run.epochs and run.epochs > 0:
        return f"{done}/{run.epochs}"
    if run.steps:
        return f"step {run.step}/{run.steps}"
    return str(done)


def seconds_left(run: RunState) -> float | None:
    """Seconds until the training ends, at the present speed and without validation.

    None if the speed or the end is not known.
    """
    if not (run.speed and run.batches):
        return None
    done = run.epoch * run.batches + run.batch
    if run.epochs and run.epochs > 0:
        return max(0.0, (run.epochs * run.batches - done) / run.speed)
    if run.steps and run.step:
        return max(0.0, (run.steps - run.step) * done / run.step / run.speed)
    return None


def duration(seconds: float | None) -> str:
    """Seconds as text: `40 s`, `6 min`, `3 h 20`, `2 d 4 h`. Empty for None."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02}"
    return f"{hours // 24} d {hours % 24} h"


def when(seconds: float | None) -> str:
    """Seconds since the epoch as local time: `23 Nov 14:02`. Empty for None."""
    if not seconds:
        return ""
    return time.strftime("%d %b %H:%M", time.localtime(seconds))


def moment(seconds: float | None, now: float = 0.0) -> str:
    """A time of these days: `14:02`, `yesterday 18:05`, `23 Nov 14:02`, `23 Nov 2025`.

    Args:
        seconds: since the epoch. None gives an empty text.
        now: seconds since the epoch. 0: the time of the clock.
    """
    if not seconds:
        return ""
    days = _days_ago(seconds, now)
    then = time.localtime(seconds)
    if days == 0:
        return time.strftime("%H:%M", then)
    if days == 1:
        return time.strftime("yesterday %H:%M", then)
    if then.tm_year == time.localtime(now or time.time()).tm_year:
        return when(seconds)
    return time.strftime("%d %b %Y", then)


def short_moment(seconds: float | None, now: float = 0.0) -> str:
    """The same in at most nine characters: `14:02`, `Thu 18:05`, `23 Nov`, `Nov 2025`."""
    if not seconds:
        return ""
    then = time.localtime(seconds)
    if 0 < _days_ago(seconds, now) < 7:
        return time.strftime("%a %H:%M", then)
    if _days_ago(seconds, now) == 0:
        return time.strftime("%H:%M", then)
    if then.tm_year == time.localtime(now or time.time()).tm_year:
        return time.strftime("%d %b", then)
    return time.strftime("%b %Y", then)


def _days_ago(seconds: float, now: float) -> int:
    """How many midnights lie between a time and now."""
    then, today = time.localtime(seconds), time.localtime(now or time.time())
    return date(*today[:3]).toordinal() - date(*then[:3]).toordinal()


def raised_in_words(raised: Mapping[str, Any]) -> str:
    """`2.25 x memory`, `GPU a100`: what a job was given (`Job.raised`). Empty if nothing was."""
    words = []
    if raised.get("oom"):
        words.append(f"{MORE_MEMORY ** raised['oom']:.3g} x memory")
    if raised.get("gpu"):
        words.append(f"GPU {raised['gpu']}")
    return ", ".join(words)


def stalled(run: RunState, now: float) -> str:
    """`stalled 14 min` after ten times the longest gap of this attempt, else empty.

    A gap is the time between two signs of progress.

    That the process lives proves nothing: a loader that waits for a dead disk lives, too.
    """
    if run.gap is None or run.updated is None:  # not trained yet: no gap is known
        return ""
    silent = now - run.updated
    if silent <= STALLED * max(run.gap, BEAT):
        return ""
    return f"stalled {duration(silent)}"
