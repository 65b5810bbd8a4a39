"""What the report knows of one experiment: its values, its state, its metrics, read from its folder.

The other files of this package work on `Run`s. A missing or damaged file gives an empty answer:
the folder may be written to at this moment, or be a copy from another machine.
"""

import json
import shlex
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

from ..best_so_far import epochs_in, metrics_of
from ..engine.config.defaults import OLDER
from ..engine.experiment.folder import Birth, Experiment, RunState, Start, State
from ..engine.jobs.executor import Executor
from ..engine.watch.best import Better
from ..engine.watch.status import Status, look
from ..engine.watch.times import Times, times_of
from ..engine.watch.usage import Used, used_by
from ..engine.words import best_key, main_metric, validated

# The place of the best weights. A run stores it beside the metrics, and it is not one of them.
BEST_PLACES = ("best.epoch", "best.step")
K = TypeVar("K", bound=Hashable)


@dataclass(eq=False)
class Run:
    """One experiment as it was at the moment when it was read."""

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
        """Whether it reached its end, so that its metrics are final."""
        return self.status.state == State.COMPLETED

    def has_same_content(self, other: "Run") -> bool:
        """Whether the other one was read from the same state, history and result."""
        mine = (self.status, self.state, self.birth, self.history, self.result)
        return mine == (other.status, other.state, other.birth, other.history, other.result)

    @cached_property
    def argv(self) -> list[str]:
        """The overrides that made it."""
        return list(self.birth.argv if self.birth else self.experiment.argv() or [])

    @cached_property
    def delta(self) -> dict[str, Any]:
        """The values that differed from the defaults when the experiment was created.

        An experiment of stock Dora has no birth. Its overrides are taken instead.
        """
        if self.birth:
            return {str(key): value for key, value in self.birth.delta}
        found = {}
        for word in self.argv:
            key, _, value = word.partition("=")
            found[key.lstrip("+")] = _parsed(value)
        return found

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every value that counts in the signature, by its dotted key.

        An empty dict is no value. Else `model_args` would differ wherever `model_args.width` does.
        """
        found = dict(flat({**OLDER, **self.birth.config} if self.birth else self.delta))
        return {key: value for key, value in found.items() if value != {}}

    @cached_property
    def choices(self) -> dict[str, Any]:
        """Choices of groups (`experiment=...`) and removed keys (`~key`): only the delta has them."""
        found = {}
        for key, value in self.delta.items():
            if key not in self.config and value != {}:
                found[key] = value
        return found

    @cached_property
    def groups(self) -> dict[str, Any]:
        """The option of each group of the configuration, the defaults too: `{"data": "digits"}`.

        Experiments of earlier versions stored no defaults. The section of a group has its name.
        """
        stored = self.birth.groups if self.birth else {}
        if isinstance(stored, dict) and stored:
            return stored
        found = {}
        for key, value in self.config.items():
            section, _, name = key.rpartition(".")
            if name == "name" and "." not in section:
                found[section] = value
        return found

    def value(self, key: str) -> Any:
        """The value of a key, whether it was changed or is the default. None if it has none."""
        return self.by_key.get(key)

    @cached_property
    def by_key(self) -> dict[str, Any]:
        """The values of all keys. The configuration counts first, then the choices."""
        return {**self.groups, **self.choices, **self.config}

    @property
    def keys(self) -> list[str]:
        """Every key that has a value, and every group of the configuration."""
        return keys_of([self.config, self.choices, self.groups])

    def values(self, keys: Iterable[str]) -> dict[str, Any]:
        return {key: self.value(key) for key in keys}

    @cached_property
    def times(self) -> Times:
        """When it ran, and for how long."""
        return times_of(self.experiment, self.state, self.birth, self.status)

    @cached_property
    def used(self) -> Used | None:
        """What it has used. None: a run of an earlier version, or of another program."""
        return used_by(self.experiment, self.status.live)

    @property
    def main_metric(self) -> str:
        """The metric that chose the best epoch, e.g. `best.acc`; empty if none is stored."""
        metric, _ = main_metric(self.birth.config if self.birth else {})
        return best_key(metric) if metric else ""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics by name: `valid.acc`, `best.acc`, `test.acc`.

        `train` and `valid` are of the last epoch, `best` is of the best epoch so far, and `test` is
        there once the run is finished.
        """
        found: dict[str, float] = {}
        if self.history:
            found.update(numbers(metrics_of(self.history[-1])))
        best = self.result.get("best") or self.state.best
        if isinstance(best, Mapping):
            found.update(self._best_metrics(best))
        test = self.result.get("test")
        if isinstance(test, Mapping):
            found |= _named("test", test)
        return found

    def _best_metrics(self, best: Mapping[str, Any]) -> dict[str, float]:
        """Args: best: the best epoch, as `state.json` and `result.json` have it."""
        found = _named("best", validated(best))
        reached = dict(numbers(best)).get("value")
        if self.main_metric and reached is not None:
            found[self.main_metric] = reached
        for place in BEST_PLACES:
            number = best.get(place.partition(".")[2])
            if isinstance(number, int):
                found[place] = number
        return found

    @property
    def epochs(self) -> int:
        """The number of finished epochs."""
        return epochs_in(self.history) or self.state.epoch

    @cached_property
    def codes(self) -> list[Start]:
        """The code versions that it ran, in order, each with its first epoch."""
        return self.experiment.codes()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries when the experiment was created."""
        return dict(self.birth.versions) if self.birth else {}

    @property
    def command(self) -> str:
        """The command that creates the same experiment."""
        return shlex.join(["dora", "run", *self.argv])


def read(experiments: Mapping[Experiment, list[str]], executor: Executor | None) -> list[Run]:
    """Read experiments, given with the grids that name them.

    Args:
        executor: is asked for the state of jobs. None: only the files are read.
    """
    statuses = look(experiments, executor)
    found = []
    for experiment, grids in experiments.items():
        found.append(read_one(experiment, statuses[experiment.sig], grids))
    return found


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


def metric_names(runs: Iterable[Run]) -> list[str]:
    """The metrics that any of the runs has: of train first, then of valid, best and test."""
    found: dict[str, float] = {}
    for run in runs:
        found |= run.metrics
    return list(found)


def told_by(runs: Iterable[Run]) -> Better:
    """The directions of the metrics, as these experiments were told."""
    return Better.of(run.birth for run in runs)


def statuses_of(runs: Iterable[Run]) -> list[Status]:
    return [run.status for run in runs]


def places_of(runs: Sequence[Run]) -> dict[Run, int]:
    """The place of each run in the list."""
    return dict(zip(runs, range(len(runs))))


def keys_of(mappings: Iterable[Iterable[K]]) -> list[K]:
    """The keys of all mappings, each once, in the order in which they first appear."""
    return list(dict.fromkeys(chain.from_iterable(mappings)))


def joined(lists: Iterable[Sequence[Run]]) -> list[Run]:
    """The runs of all lists, one list after the other."""
    return list(chain.from_iterable(lists))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of a dotted key and its value. Lists and empty dicts are values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The pairs of `flat` whose value is a number. NaN is one, a bool is none."""
    for key, value in flat(values):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, value


def _named(split: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a split by their whole names: `test.acc`."""
    return {f"{split}.{key}": value for key, value in numbers(metrics)}


def _parsed(text: str) -> Any:
    """The value that `text` is in JSON, else `text` itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
