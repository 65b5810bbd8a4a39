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
from . import parameters
from .runs import Run, metric_names

# Keys that are neither a metric nor a value of the configuration.
OWN: dict[str, Callable[[Run], Any]] = {
    "sig": lambda run: run.sig,
    "state": lambda run: str(run.status.state),
    "grid": lambda run: run.grids,
    "epochs": lambda run: run.epochs,
}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


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
    known = dict.fromkeys(OWN)
    for run in runs:
        known |= dict.fromkeys([*run.metrics, *run.config, *run.choices])
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
            try:
                return OPERATORS[self.operator](found, float(wanted))
            except ValueError:
                return self.operator == "!="
        if self.operator not in ("=", "!="):
            return False
        shown = "null" if found is None else parameters.text(found)
        equal = fnmatchcase(shown, wanted) or (found is None and not wanted)
        return equal == (self.operator == "=")


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
            has = sorted({parameters.text(value(run, key)) for run in before})
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

    By any other key they are sorted in ascending order. An empty key leaves them as they are.
    """
    if not key:
        return list(runs)
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
