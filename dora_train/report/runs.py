"""What the report knows of one experiment, read from its folder: its values, its state, its
numbers.

Everything else in this package works on `Run`s and opens no file. A missing or damaged file makes
an empty answer: the folder may be written to at this moment, or be a copy from another machine.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..best_so_far import epochs_in, metrics_of
from ..engine.experiment.folder import Birth, Experiment, RunState, Start, State
from ..engine.jobs.executor import Executor
from ..engine.watch.status import Status, look
from ..engine.words import best_key, main_metric, validated

# where the best weights are from: numbers of a run that are no metrics
BEST_PLACES = ("best.epoch", "best.step")


@dataclass(eq=False)
class Run:
    """One experiment, as of one moment."""

    experiment: Experiment
    status: Status
    state: RunState
    birth: Birth | None
    history: list[dict]
    result: Mapping[str, Any]
    grids: list[str] = field(default_factory=list)

    @property
    def sig(self) -> str:
        return self.experiment.sig

    @property
    def finished(self) -> bool:
        """Reached its end: its numbers are final."""
        return self.status.state == State.COMPLETED

    @cached_property
    def argv(self) -> list[str]:
        """The overrides that made it."""
        return list(self.birth.argv if self.birth else self.experiment.argv() or [])

    @cached_property
    def delta(self) -> dict[str, Any]:
        """What makes it differ from the defaults of its day; of an experiment of stock Dora: its
        overrides."""
        if self.birth:
            return {str(key): value for key, value in self.birth.delta}
        pairs = (word.partition("=") for word in self.argv)
        return {key.lstrip("+"): _literal(value) for key, _, value in pairs}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every value that counts, by its dotted key."""
        return dict(flat(self.birth.config if self.birth else self.delta))

    @cached_property
    def choices(self) -> dict[str, Any]:
        """Choices of groups (`experiment=...`) and removed keys (`~key`): they stand in the delta
        alone."""
        return {key: value for key, value in self.delta.items() if key not in self.config}

    def value(self, key: str) -> Any:
        return self.config.get(key, self.choices.get(key))

    @property
    def main_metric(self) -> str:
        """What runs are compared by: `best.acc`, which chose the best epoch; empty if not known."""
        metric, _ = main_metric(self.birth.config if self.birth else {})
        return best_key(metric) if metric else ""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """`valid.acc` of the last epoch, `best.acc` of the best one so far, `test.acc` where it is
        finished."""
        found = dict(_numbers(metrics_of(self.history[-1]))) if self.history else {}
        best = self.result.get("best") or self.state.best
        if isinstance(best, Mapping):
            found |= {f"best.{key}": value for key, value in _numbers(validated(best))}
            reached = dict(_numbers(best)).get("value")
            if self.main_metric and reached is not None:
                found[self.main_metric] = reached
            places = {place.partition(".")[2]: place for place in BEST_PLACES}
            found |= {places[key]: best[key] for key in places if isinstance(best.get(key), int)}
        test = self.result.get("test")
        return found | {
            f"test.{key}": value
            for key, value in _numbers(test if isinstance(test, Mapping) else {})
        }

    @property
    def epochs(self) -> int:
        """Those that are finished."""
        return epochs_in(self.history) or self.state.epoch

    @cached_property
    def codes(self) -> list[Start]:
        """The codes that it ran, each with where it began."""
        return self.experiment.codes()

    @property
    def command(self) -> str:
        """What makes it once more."""
        return shlex.join(["dora", "run", *self.argv])


def read(experiments: Mapping[Experiment, list[str]], executor: Executor | None) -> list[Run]:
    """Read experiments, given with the grids that name them.

    Args:
        executor: whom to ask about jobs; None: nobody.
    """
    statuses = look(experiments, executor)
    return [
        read_one(experiment, statuses[experiment.sig], grids)
        for experiment, grids in experiments.items()
    ]


def read_one(experiment: Experiment, status: Status, grids: Iterable[str] = ()) -> Run:
    return Run(
        experiment,
        status,
        experiment.state(),
        experiment.birth(),
        experiment.history(),
        experiment.result() or {},
        list(grids),
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; lists and empty dicts are values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in flat(values):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, value


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
