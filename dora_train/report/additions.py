"""The seeds that would probably decide a comparison, and the lines that add them to a grid file."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

from ..engine.config.gridfile import literal, variables
from .ranking import Ranked, Ranking, is_finite
from .runs import Run
from .verdict import BEST

MOST_LINES = 20  # calls of a launcher; more are said, not shown


@dataclass(frozen=True)
class Additions:
    """Seeds to add, for each setting of a ranking, in its order."""

    key: str  # seed
    seeds: list[list[int]]  # one list for each setting, often empty
    trouble: str = ""  # why there are none although some are needed

    def __bool__(self) -> bool:
        return any(self.seeds)


def additions(ranking: Ranking) -> Additions:
    """The seeds to add, so that each undecided setting shares enough of them with the best one."""
    nothing: list[list[int]] = [[] for _ in ranking.entries]
    needy = [one for one in ranking.entries if one.found.needs and _can_run(one)]
    if not ranking.mode or not needy or len(ranking.entries) < 2:
        return Additions("", nothing)
    [key, *more] = ranking.over or [""]
    if more or not all(_is_whole(run.value(key)) for run in ranking.runs):
        keys = ", ".join(ranking.over) or "a seed"
        return Additions(key, nothing, f"No lines to add: {keys} is not one whole number a run.")
    return Additions(key, _chosen(ranking, key))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _can_run(one: Ranked) -> bool:
    """Whether more seeds make sense: not if all that were tried have failed."""
    return one.found.n > 0 or bool(_coming(one))


def _coming(one: Ranked) -> list[Run]:
    """Its runs that will bring a value without being retried."""
    return [run for run in one.setting.runs if not run.status.state.ended]


def _chosen(ranking: Ranking, key: str) -> list[list[int]]:
    best, *others = ranking.entries
    fresh = 1 + max(run.value(key) for run in ranking.runs)
    tried = _seeds(best.setting.runs, key)
    of_best: set[int] = set()
    found = []
    for one in others:
        own = _seeds(one.setting.runs, key)
        pairs = _pairs(one, best, ranking, fresh)
        found.append(sorted(pairs - own))
        of_best |= pairs - tried
    while best.verdict != BEST and _can_run(best) and len(of_best) < _wanted(best):
        of_best.add(fresh)
        fresh += 1
    return [sorted(of_best), *found]


def _pairs(one: Ranked, best: Ranked, ranking: Ranking, fresh: int) -> set[int]:
    """The seeds that the two are to share besides those that they share already.

    A seed that one of them has costs one run, a fresh one costs two.
    """
    if not _can_run(one):
        return set()
    [key] = ranking.over
    half = _ready(one, ranking.metric, key) ^ _ready(best, ranking.metric, key)
    tried = _seeds(best.setting.runs, key) & _seeds(one.setting.runs, key)
    candidates = chain(sorted(half - tried), count(fresh))
    return set(islice(candidates, _wanted(one)))


def _ready(one: Ranked, metric: str, key: str) -> set[int]:
    """The seeds that have a value."""
    finished = one.setting.finished
    return _seeds([run for run in finished if is_finite(run, metric)], key)


def _seeds(runs: Sequence[Run], key: str) -> set[int]:
    return {run.value(key) for run in runs}


def _wanted(one: Ranked) -> int:
    """How many runs to add. Those that are on their way count already."""
    return max(0, (one.found.needs or 0) - len(_coming(one)))


# --- as lines of a grid file ---


def lines(ranking: Ranking, added: Additions) -> list[str]:
    """Python for the end of `explorer(launcher)`; settings that get the same seeds share a loop."""
    loops: dict[tuple[int, ...], list[Run]] = {}
    for one, seeds in zip(ranking.entries, added.seeds):
        if seeds:
            loops.setdefault(tuple(seeds), []).append(one.setting.runs[0])
    [name] = variables([added.key])
    found = []
    for shared, runs in loops.items():
        found.append(f"    for {name} in {_sequence(shared)}:")
        found += [f"        launcher({_arguments(run, added.key, name)})" for run in runs]
    return found


def _sequence(seeds: Sequence[int]) -> str:
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"range({seeds[0]}, {seeds[-1] + 1})"
    return literal(seeds)


def _arguments(run: Run, key: str, name: str) -> str:
    """What makes the run, with another seed: a dict, and as text what a dict cannot say."""
    values: dict[str, Any] = {}
    words: list[str] = []
    for word in run.argv:
        own = word.partition("=")[0]
        if own.lstrip("+") == key:
            continue
        if own in run.delta and not own.startswith("~"):
            values[own] = run.delta[own]
        else:
            words.append(literal(word))
    pairs = [f"{literal(one)}: {literal(value)}" for one, value in values.items()]
    return ", ".join([*words, "{" + ", ".join([*pairs, f"{literal(key)}: {name}"]) + "}"])


def heading(ranking: Ranking) -> str:
    """Where the lines go."""
    grids = [set(run.grids) for run in ranking.runs]
    shared = sorted(set.intersection(*grids)) if grids else []
    if len(shared) != 1:
        return "To add these seeds, put into explorer(launcher) of a grid file:"
    grid = shared[0]
    return f"To add these seeds, append to grids/{grid}.py, then run dora grid {grid}:"


def shown(ranking: Ranking, added: Additions) -> list[str]:
    """The lines under their heading, not more than a screen of them; empty if no seed is needed."""
    if added.trouble:
        return [added.trouble]
    if not added:
        return []
    found = lines(ranking, added)
    more = len(found) - MOST_LINES
    if more > 1:
        found = [*found[:MOST_LINES], f"    # and {more} more lines: --format json has all seeds"]
    return [heading(ranking), *found]
