"""`--where` and `--sort`: which runs, and in which order.

A key may be short: `lr` means `optim.lr`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..engine.errors import UserError, did_you_mean, shortened
from ..engine.watch.best import Better, is_number
from . import parameters
from .runs import Run

OWN = {
    "sig": lambda run: run.sig,
    "state": lambda run: str(run.status.state),
    "grid": lambda run: run.grids,
    "epochs": lambda run: run.epochs,
}
OPERATORS = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def value(run: Run, key: str) -> Any:
    """Of a key as `full_key` gives it."""
    if key in OWN:
        return OWN[key](run)
    return run.metrics[key] if key in run.metrics else run.value(key)


def full_key(key: str, runs: Sequence[Run]) -> str:
    """The key that `key` means among what these runs have.

    Raises:
        UserError: none, or several.
    """
    known = dict.fromkeys(
        [*OWN, *(name for run in runs for name in [*run.metrics, *run.config, *run.choices])]
    )
    if key in known:
        return key
    ends = [name for name in known if name.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f'"{key}" is {" or ".join(ends[:6])}: give the whole key.')
    metrics = dict.fromkeys(name for run in runs for name in run.metrics)
    near = did_you_mean(key, [*known, *(name.rpartition(".")[2] for name in known)])
    raise UserError(
        f'unknown key "{key}"{near}',
        f"metrics: {shortened(metrics)}." if metrics else "no run has a metric yet.",
    )


@dataclass(frozen=True)
class Condition:
    """`KEY OPERATOR VALUE[,VALUE]`; text may hold `*`."""

    key: str
    operator: str
    values: list[str]

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raises: UserError for what is no condition."""
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

    def holds(self, found: Any) -> bool:
        """Of several values one must fit; with `!=`, none may be equal."""
        each = [
            self._fits(one, wanted)
            for one in (found if isinstance(found, list) else [found])
            for wanted in self.values
        ]
        return all(each) if self.operator == "!=" else any(each)

    def _fits(self, found: Any, wanted: str) -> bool:
        if is_number(found) and not isinstance(found, bool):
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
    """Those for which all conditions hold.

    Raises:
        UserError: a condition that cannot be read, or holds for none.
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
    """The one that tells which run is best: what they were told, as of their best epoch; else the
    first that can."""
    found = dict.fromkeys(name for run in runs for name in run.metrics)
    wanted = [name for name in dict.fromkeys(run.main_metric for run in runs) if name in found]
    return next(iter([*wanted, *(name for name in reversed(found) if better.mode(name))]), "")


def ordered(runs: Sequence[Run], key: str, better: Better) -> list[Run]:
    """By a metric: the best first, unfinished runs after the finished ones.

    By anything else: ascending.
    """
    if not key:
        return list(runs)
    if any(key in run.metrics for run in runs):
        return sorted(
            runs, key=lambda run: (not run.finished, *better.key(key, run.metrics.get(key)))
        )
    return sorted(runs, key=lambda run: _ascending(value(run, key)))


def _ascending(found: Any) -> tuple[int, Any]:
    if is_number(found):
        return 0, found
    return (2, "") if found is None else (1, parameters.text(found))
