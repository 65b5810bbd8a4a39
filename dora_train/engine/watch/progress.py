"""How far a run is, and how long it still takes, as text: for a table and for `dora info`."""

import time

from ..experiment.records import RunState


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
