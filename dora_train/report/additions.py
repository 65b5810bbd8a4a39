"""The seeds that would probably decide a comparison, and the lines that add them to a grid file."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from ..engine.config.gridfile import literal, variables
from .ranking import Ranked, Ranking, is_finite
from .runs import Run
from .verdict import BEST

MOST_LINES = 20  # lines of Python that are shown. The others are counted.


@dataclass(frozen=True)
class Additions:
    """The seeds to add to each setting of a ranking.

    Attributes:
        key: the key that they are values of, e.g. `seed`.
        seeds: one list for each setting, in the order of the ranking. Most are empty.
        trouble: why there are none although some are needed. Else empty.
    """

    key: str
    seeds: list[list[int]]
    trouble: str = ""

    def __bool__(self) -> bool:
        return any(self.seeds)


def additions(ranking: Ranking) -> Additions:
    """The seeds to add, so that each undecided setting shares enough of them with the best one.

    A setting and the best one are compared seed by seed if they share seeds. That needs fewer runs.
    """
    nothing: list[list[int]] = [[] for _ in ranking.entries]
    needy = [one for one in ranking.entries if one.found.needs and _can_run(one)]
    if not ranking.mode or not needy or len(ranking.entries) < 2:
        return Additions("", nothing)
    # A new seed can be named only if runs are grouped over one key with whole numbers.
    [key, *more] = ranking.over or [""]
    if more or not all(_is_whole(run.value(key)) for run in ranking.runs):
        keys = ", ".join(ranking.over) or "a seed"
        return Additions(key, nothing, f"No lines to add: {keys} is not one whole number a run.")
    return Additions(key, _chosen(ranking, key))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _can_run(one: Ranked) -> bool:
    """Whether more seeds make sense: not if all that were tried have failed."""
    return one.found.n > 0 or bool(_coming(one))


def _coming(one: Ranked) -> list[Run]:
    """Its runs that have not ended: they will bring a value without a retry."""
    return [run for run in one.setting.runs if not run.status.state.ended]


def _chosen(ranking: Ranking, key: str) -> list[list[int]]:
    """The seeds to add to each setting. The best setting comes first, as in the ranking."""
    best, *others = ranking.entries
    fresh = 1 + max(_seeds(ranking.runs, key))
    tried = _seeds(best.setting.runs, key)
    of_best: set[int] = set()
    found = []
    for one in others:
        own = _seeds(one.setting.runs, key)
        pairs = _pairs(one, best, ranking, fresh)
        found.append(sorted(pairs - own))
        of_best |= pairs - tried
    # Without a verdict, the best setting itself has too few seeds for a comparison.
    while best.verdict != BEST and _can_run(best) and len(of_best) < _wanted(best):
        of_best.add(fresh)
        fresh += 1
    return [sorted(of_best), *found]


def _pairs(one: Ranked, best: Ranked, ranking: Ranking, fresh: int) -> set[int]:
    """The seeds that the two should share besides those that they share already.

    Seeds that one of them has come first, since such a seed costs one run. A new one costs two.

    Args:
        fresh: the lowest seed that no run has, with all higher ones.
    """
    if not _can_run(one):
        return set()
    [key] = ranking.over
    of_one_alone = _ready(one, ranking.metric, key) ^ _ready(best, ranking.metric, key)
    tried = _seeds(best.setting.runs, key) & _seeds(one.setting.runs, key)
    candidates = chain(sorted(of_one_alone - tried), count(fresh))
    return set(islice(candidates, _wanted(one)))


def _ready(one: Ranked, metric: str, key: str) -> set[int]:
    """The seeds of a setting that have a value."""
    finished = one.setting.finished
    return _seeds([run for run in finished if is_finite(run, metric)], key)


def _seeds(runs: Sequence[Run], key: str) -> set[int]:
    return {run.value(key) for run in runs}


def _wanted(one: Ranked) -> int:
    """How many runs to add. Runs that have not ended are subtracted."""
    return max(0, (one.found.needs or 0) - len(_coming(one)))


# --- as lines of a grid file ---


def lines(ranking: Ranking, added: Additions) -> list[str]:
    """Python for the end of `explorer(launcher)`. Settings that get the same seeds share a loop."""
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
    """`range(3, 7)`, or `[3, 5]` if seeds between them are missing. They ascend."""
    if len(seeds) > 1 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"range({seeds[0]}, {seeds[-1] + 1})"
    return literal(seeds)


def _arguments(run: Run, key: str, name: str) -> str:
    """The arguments of a launcher that make this run with another seed.

    Args:
        key: of the seed.
        name: the variable that holds the seed.
    """
    values: dict[str, str] = {}
    words: list[str] = []
    for word in run.argv:
        own = word.partition("=")[0]
        if own.lstrip("+") == key:
            continue
        if own in run.delta and not own.startswith("~"):
            values[own] = literal(run.delta[own])
        else:  # a dict has no way to add or to remove a key
            words.append(literal(word))
    pairs = {**values, key: name}.items()
    shown_pairs = [f"{literal(one)}: {value}" for one, value in pairs]
    return ", ".join([*words, "{" + ", ".join(shown_pairs) + "}"])


def heading(ranking: Ranking) -> str:
    """The line that says which file to append to: the file of the one grid that has all runs."""
    first, *others = ranking.runs
    shared = set(first.grids)
    for run in others:
        shared &= set(run.grids)
    if len(shared) != 1:
        return "To add these seeds, put into explorer(launcher) of a grid file:"
    [grid] = shared
    return f"To add these seeds, append to {file_of(grid)}, then run dora grid {grid}:"


def file_of(grid: str) -> str:
    """The file of a grid: grids/sub/mysweep.py of `sub.mysweep`. A name may also hold a dot."""
    file = Path("grids", f"{grid}.py")
    if not file.exists():
        file = Path("grids", *grid.split(".")).with_suffix(".py")
    return file.as_posix()


def shown(ranking: Ranking, added: Additions) -> list[str]:
    """The lines under their heading, at most `MOST_LINES` of them. Empty if no seed is needed."""
    if added.trouble:
        return [added.trouble]
    if not added:
        return []
    found = lines(ranking, added)
    more = len(found) - MOST_LINES
    if more > 1:
        found = [*found[:MOST_LINES], f"    # and {more} more lines: --format json has all seeds"]
    return [heading(ranking), *found]
