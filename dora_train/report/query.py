"""`--where` and `--sort`: which runs, and in which order.

A key may be short: `lr` means `optim.lr`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from ..engine.errors import UserError, did_you_mean, shortened
from ..engine.watch.best import Better, is_number
from ..engine.watch.progress import moment
from . import parameters
from .runs import Run, metric_names

# Keys that are neither a metric nor a value of the configuration.
OWN: dict[str, Callable[[Run], Any]] = {
    "sig": lambda run: run.sig,
    "state": lambda run: str(run.status.state),
    "grid": lambda run: run.grids,
    "epochs": lambda run: run.epochs,
    "started": lambda run: run.times.started,
    "took": lambda run: run.times.took,
    "used.gpu_h": lambda run: _used(run, "gpu_h"),
    "used.cpu_h": lambda run: _used(run, "cpu_h"),
    "used.memory_gb": lambda run: _used(run, "memory_gb"),
    "used.kwh": lambda run: _used(run, "kwh"),
    "used.lost_h": lambda run: _used(run, "lost_h"),
}
NEWEST_FIRST = "started"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _used(run: Run, name: str) -> Any:
    return run.used.values()[name] if run.used else None


def value(run: Run, key: str) -> Any:
    """A run's value of a key. The key is whole, as `full_key` returns it."""
    if key in OWN:
        return OWN[key](run)
    if key in run.metrics:
        return run.metrics[key]
    return run.value(key)


def full_key(key: str, runs: Sequence[Run]) -> str:
    """The whole key that `key` stands for, among the keys of these runs.

    Raises:
        UserError: no key ends with it, or several do.
    """
    known: dict[str, Any] = dict.fromkeys(OWN)
    for run in runs:
        for keys in (run.metrics, run.config, run.choices, run.groups):
            known |= keys
    if key in known:
        return key
    ends = [name for name in known if name.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f'"{key}" is {" or ".join(ends[:6])}: give the whole key.')
    near = did_you_mean(key, [*known, *(name.rpartition(".")[2] for name in known)])
    hint = "no run has a metric yet."
    metrics = metric_names(runs)
    if metrics:
        hint = f"metrics: {shortened(metrics)}."
    raise UserError(f'unknown key "{key}"{near}', hint)


@dataclass(frozen=True)
class Condition:
    """`KEY OPERATOR VALUE[,VALUE]`. A value that is compared as text may hold `*`."""

    key: str
    operator: str
    values: list[str]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition that `text` states.

        Raises:
            UserError: it cannot be read as a condition.
        """
        # `==` is read as `=`
        match = re.fullmatch(
            r"\s*([\w.~/-]+)\s*(!=|<=|>=|=|<|>)=?\s*(.*?)\s*", text, flags=re.DOTALL
        )
        if match is None:
            raise UserError(
                f'cannot read "{text}": a condition is KEY=VALUE, with one of {" ".join(OPERATORS)}',
                "e.g. --where optim.lr=0.1,0.3 --where 'test.acc>0.9' --where state=completed",
            )
        key, operator, wanted = match.groups()
        return cls(key, operator, wanted.split(","))

    def holds(self, found: object) -> bool:
        """Whether one of the values fits, or none of them is equal if the operator is `!=`.

        Args:
            found: a run's value. Of a list, each element is tried.
        """
        candidates = found if isinstance(found, list) else [found]
        each = [self._fits(one, wanted) for one, wanted in product(candidates, self.values)]
        if self.operator == "!=":
            return all(each)
        return any(each)

    def _fits(self, found: object, wanted: str) -> bool:
        if is_number(found):
            number = _number(wanted)
            if number is None:
                return self.operator == "!="
            return OPERATORS[self.operator](found, number)
        if self.operator not in ("=", "!="):
            return False
        shown = _shown(found)
        equal = fnmatchcase(shown, wanted) or (found is None and not wanted)
        return equal == (self.operator == "=")


def _number(text: str) -> int | float | None:
    """A number as it is typed. A whole one keeps all its digits: a float has only 53 bits."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _shown(found: object) -> str:
    """A value as a condition names it."""
    return "null" if found is None else parameters.text(found)


def filtered(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs for which all conditions hold.

    Raises:
        UserError: a condition cannot be read, or holds for no run.
    """
    left = list(runs)
    for text in conditions:
        condition = Condition.parse(text)
        key = full_key(condition.key, runs)
        before, left = left, [run for run in left if condition.holds(value(run, key))]
        if not left:
            has = sorted({_shown(value(run, key)) for run in before})
            raise UserError(f'no experiment is left by "{text}": {key} is {shortened(has, 8)}.')
    return left


def main_metric(runs: Sequence[Run], better: Better) -> str:
    """The metric that says which run is best: the one that chose their best epochs.

    If no run has it, the last metric whose direction is known. Empty if there is none.
    """
    found = metric_names(runs)
    for run in runs:
        if run.main_metric in found:
            return run.main_metric
    for name in reversed(found):
        if better.mode(name):
            return name
    return ""


def ordered(runs: Sequence[Run], key: str, better: Better) -> list[Run]:
    """The runs sorted by a metric: the best first, unfinished runs after the finished ones.

    By any other key they are sorted in ascending order, but by `started` the newest comes first.
    An empty key leaves them as they are.
    """
    if not key:
        return list(runs)
    if key == NEWEST_FIRST:
        return newest(runs)
    if any(key in run.metrics for run in runs):
        return sorted(
            runs, key=lambda run: (not run.finished, *better.key(key, run.metrics.get(key)))
        )
    return sorted(runs, key=lambda run: _ascending(value(run, key)))


def _ascending(found: object) -> tuple[int, Any]:
    """To sort by: numbers first, then texts, then runs that have no value."""
    if is_number(found):
        return 0, found
    if found is None:
        return 2, ""
    return 1, parameters.text(found)


def newest(runs: Sequence[Run]) -> list[Run]:
    """The runs sorted by the start of their last attempts, the newest first."""
    return sorted(runs, key=lambda run: -(run.times.started or 0.0))


def active(runs: Sequence[Run], since: float) -> list[Run]:
    """The runs that started or ended after a time, or have not ended.

    Args:
        since: seconds since the epoch.

    Raises:
        UserError: there is none.
    """
    found = []
    for run in runs:
        latest = max(run.times.started or 0.0, run.times.ended or 0.0)
        if run.status.live or latest >= since:
            found.append(run)
    if not found:
        last = moment(max(run.times.started or 0.0 for run in runs))
        raise UserError(f"no experiment ran since {moment(since)}: the last one started {last}.")
    return found
