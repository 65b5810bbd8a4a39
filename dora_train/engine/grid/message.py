"""Writes the message about a grid: counts, best result, causes of failures, and the next commands.

`telling.py` sends it. The text is made from the folders of the experiments.
"""

import os
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import shortened
from ..experiment.folder import Experiment
from ..experiment.records import ILL, State
from ..watch.best import Better, is_number
from ..watch.board import counted
from ..watch.info import overrides
from ..watch.status import Status
from ..words import main_metric, validated

MOST_NAMES = 8  # the largest number of experiments that are listed for one cause


def title(grid: str, statuses: Sequence[Status], why: str = "") -> str:
    """The title of the message: `mysweep: 38 completed, 2 failed`.

    Args:
        why: why the user is needed. Empty: the grid has ended.
    """
    counts = counted(statuses, ", ") or "no experiments"
    return f"{grid} needs you: {why} ({counts})" if why else f"{grid}: {counts}"


def text(
    grid: str, statuses: Mapping[Experiment, Status], folder: str, used: str = "", look: str = ""
) -> str:
    """The body of the message.

    Args:
        folder: the folder of the project, where the user types the commands.
        used: one line that says what the grid used.
        look: the command that shows the grid. Empty: the command of the report.
    """
    look = look or f"python -m dora_train.report {shlex.quote(grid)}"
    parts = [_best(statuses), *_causes(statuses)]
    if used:
        parts.append(f"used: {used}")
    parts.append(f"look: cd {shlex.quote(folder)} && {look}")
    if any(status.state in ILL for status in statuses.values()):
        again = f"dora grid {shlex.quote(grid)}"
        parts.append(f"again: {again} (interrupted), {again} --retry (failed, cancelled)")
    parts.append(f"sent from {socket.gethostname()}")
    return "\n".join(filter(None, parts))


def _best(statuses: Mapping[Experiment, Status]) -> str:
    """`best valid.acc: 0.983  77c01b9e  optim.lr=0.3`. Empty if nothing can be compared."""
    births = {experiment: experiment.birth() for experiment in statuses}
    names = {main_metric(birth.config)[0] for birth in births.values() if birth is not None}
    if len(names) != 1:  # experiments with several metrics are not compared
        return ""
    [metric] = names
    values: dict[Experiment, float] = {}
    for experiment, status in statuses.items():
        value = _value(experiment, metric) if status.state == State.COMPLETED else None
        if value is not None:
            values[experiment] = value
    better = Better.of(births.values())
    if not values or not better.mode(metric):  # if the direction is not known, nothing is best
        return ""
    first = min(values, key=lambda one: better.key(metric, values[one]))
    return f"best {metric}: {values[first]:.4g}  {_named(first)}"


def _value(experiment: Experiment, metric: str) -> float | None:
    """The best value of the metric that chooses the best epoch. None if there is no value."""
    best = (experiment.result() or {}).get("best")
    if not isinstance(best, Mapping):
        return None
    value = best.get("value", validated(best).get(metric.removeprefix("valid.")))
    return value if is_number(value) else None


def _causes(statuses: Mapping[Experiment, Status]) -> Iterable[str]:
    """A line for each cause of a failure or interruption, and the experiments below it."""
    causes: dict[str, list[Experiment]] = {}
    for experiment, status in statuses.items():
        if status.state in ILL:
            causes.setdefault(status.why, []).append(experiment)
    for why, experiments in sorted(causes.items(), key=lambda pair: -len(pair[1])):
        yield f"{len(experiments)} {why}:"
        for experiment in experiments[:MOST_NAMES]:
            yield f"  {_named(experiment)}"
        rest = [experiment.sig for experiment in experiments[MOST_NAMES:]]
        if rest:
            yield f"  and {shortened(rest, MOST_NAMES)}"


def _named(experiment: Experiment) -> str:
    """The signature and the overrides of an experiment: `77c01b9e  optim.lr=0.3`."""
    return f"{experiment.sig}  {overrides(experiment, experiment.birth())}"


def project_folder(path: Path | None = None) -> str:
    """The folder in which the user types commands, as text."""
    return os.path.realpath(path or Path.cwd())
