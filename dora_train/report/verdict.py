"""Which setting is the best, which are worse, and how many more seeds would tell: `compare`.

The same seed means the same first weights, the same order of the samples and the same draws. Runs
are therefore compared seed by seed where that is possible. The method and its sources are in
`max_t.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from . import max_t

if TYPE_CHECKING:
    from numpy import ndarray

BEST, WORSE, UNDECIDED = "best", "worse", "undecided"
MOST_NEEDED = 50  # seeds: nobody runs more than that for one comparison
LIMIT = 1e150  # a value as large as that has diverged
LIKELY = 0.8  # the probability with which that many seeds would tell
Values = Mapping[Any, float | None]  # by seed
K = TypeVar("K", bound=Hashable)  # a setting
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What can be said of one setting.

    All numbers are in the units of the values that were compared.
    """

    n: int  # finite values
    mean: float | None  # None without a value
    std: float | None  # of the sample, n - 1 in the denominator; None below two values
    interval: Interval | None  # of the mean, Student's t; None below two values
    difference: (
        float | None
    )  # how much worse the mean is than that of the best setting; 0 of the best itself
    difference_interval: (
        Interval | None
    )  # of the difference, for all settings at once; None if nothing can be said
    verdict: str  # "best", "worse" or "undecided"
    paired: bool = False  # compared with the best one seed by seed; of the best one: all others are
    # More seeds, of this setting and the best one, that would probably decide it; 0: it is decided.
    needs: int | None = None
    missing: int = 0  # values that are no finite number: the seed diverged, or is not finished


def compare(
    values: Mapping[K, Values], mode: str = "max", level: float = 0.05
) -> dict[K, Comparison]:
    """Compare settings by what they reached with each seed.

    If no setting differs from another, any of them is called worse in at most `level` of all grids.
    A setting with one value is undecided: its spread is not known.

    Args:
        values: {setting: {seed: value}}. A value that is None, NaN or infinite counts as missing.
        mode: "max" if larger values are better, "min" if smaller ones are.
        level: the error rate of the verdicts, and one less the confidence of the intervals.

    Returns:
        A `Comparison` of each setting, in the order of `values`.

    Raises:
        ValueError: another mode, or a level that is not between 0 and 1.
    """
    if mode not in ("max", "min"):
        raise ValueError(f'mode "{mode}": it is "max" or "min".')
    if not 0 < level < 1:
        raise ValueError(f"level {level}: it is between 0 and 1, e.g. 0.05.")
    finite = {setting: _finite(of_seeds) for setting, of_seeds in values.items()}
    found = {
        setting: _alone(finite[setting], len(of_seeds), level)
        for setting, of_seeds in values.items()
    }
    comparable = {setting: of_seeds for setting, of_seeds in finite.items() if len(of_seeds) >= 2}
    means = {setting: one.mean for setting, one in found.items() if one.mean is not None}
    best = _highest(comparable or finite, means, mode)
    for setting, mean in means.items():
        behind = means[best] - mean if mode == "max" else mean - means[best]
        found[setting] = replace(found[setting], difference=behind)
    if len(comparable) >= 2:
        found.update(_judged(found, comparable, mode, level))
    elif len(found) == 1 and means:
        found[best] = replace(found[best], verdict=BEST, needs=0)
    return found


def _highest(among: Iterable[Any], means: Mapping[Any, float], mode: str) -> Any:
    """The setting with the best mean; None if none has a value."""
    choose = max if mode == "max" else min
    return choose(
        (setting for setting in among if setting in means),
        key=lambda setting: means[setting],
        default=None,
    )


def _finite(of_seeds: Values) -> dict[Any, float]:
    """The values that can be reckoned with:

    NaN is below no limit, and the square of what is above overflows.
    """
    return {
        seed: float(value)
        for seed, value in of_seeds.items()
        if value is not None and abs(value) < LIMIT
    }


def _alone(finite: Mapping[Any, float], asked: int, level: float) -> Comparison:
    """What is known of a setting without looking at the others; undecided, and in need of seeds to
    compare."""
    n = len(finite)
    if n == 0:
        return Comparison(
            0, None, None, None, None, None, UNDECIDED, needs=max_t.ENOUGH_SHARED, missing=asked
        )
    numbers = list(finite.values())
    mean = math.fsum(numbers) / n
    std = statistics.stdev(numbers) if n > 1 else None
    interval = None
    if std is not None:
        half = half_width(std, n, level)
        interval = (mean - half, mean + half)
    needs = max(0, max_t.ENOUGH_SHARED - n)
    return Comparison(n, mean, std, interval, None, None, UNDECIDED, needs=needs, missing=asked - n)


def half_width(std: float, n: int, level: float = 0.05) -> float:
    """Half of the interval of a mean of `n` >= 2 values with this standard deviation (Student
    1908)."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)


def _judged(
    found: Mapping[Any, Comparison],
    finite: Mapping[Any, Mapping[Any, float]],
    mode: str,
    level: float,
) -> dict[Any, Comparison]:
    """The comparisons of settings that have at least two values each, with their verdicts."""
    values, known, unit = _matrix(finite, mode)
    distances = max_t.behind_best(values, known)
    t = distances.t
    if len(finite) == 2:
        limit = max_t.critical_of_two(values, known, level)
        limits = [limit, limit]
    else:
        limits, limit = max_t.critical(t, known, level)
    verdicts = _stepped_down(t.tolist(), limits)
    best = int(distances.best)
    judged = []
    for place, setting in enumerate(finite):
        difference, error = (
            float(distances.difference[place]) * unit,
            float(distances.error[place]) * unit,
        )
        paired = bool(distances.paired[place])
        low, high = difference - limit * error, difference + limit * error
        needs: int | None = 0
        if place == best:
            low = high = 0.0
        elif (
            verdicts[place] == WORSE
        ):  # step by step it is sharper than an interval for all at once
            low = max(0.0, low)
        elif verdicts[place] == UNDECIDED:
            needs = more_seeds(
                difference, error, _seeds(known[place], known[best], paired), limits[place], paired
            )
        judged.append(
            replace(
                found[setting],
                difference=difference,
                difference_interval=(low, high),
                verdict=verdicts[place],
                paired=paired,
                needs=needs,
            )
        )
    others = judged[:best] + judged[best + 1 :]
    judged[best] = replace(
        judged[best], needs=_of_best(others), paired=all(one.paired for one in others)
    )
    return dict(zip(finite, judged))


def _matrix(finite: Mapping[Any, Mapping[Any, float]], mode: str) -> tuple[ndarray, ndarray, float]:
    """(values [settings, seeds] float64, larger is better; which of them are known; the unit that
    they are in).

    The unit is the largest distance between two values, so that squares neither overflow nor
    vanish.
    """
    import numpy as np

    seeds = list(dict.fromkeys(seed for of_seeds in finite.values() for seed in of_seeds))
    numbers = [value for of_seeds in finite.values() for value in of_seeds.values()]
    lowest = min(numbers)
    unit = (max(numbers) - lowest) or 1.0
    if mode == "min":
        unit_with_sign = -unit
    else:
        unit_with_sign = unit
    values = np.zeros((len(finite), len(seeds)))
    known = np.zeros(values.shape, bool)
    for row, of_seeds in enumerate(finite.values()):
        for column, seed in enumerate(seeds):
            if seed in of_seeds:
                values[row, column] = (of_seeds[seed] - lowest) / unit_with_sign
                known[row, column] = True
    return values, known, unit


def _stepped_down(t: Sequence[float], limits: Sequence[float]) -> list[str]:
    """Verdicts from the worst setting on, until one is not far enough behind; best if it is not
    behind at all."""
    verdicts = [BEST if one <= 0 else UNDECIDED for one in t]
    for place in sorted(range(len(t)), key=lambda place: -t[place]):
        if t[place] <= limits[place]:
            break
        verdicts[place] = WORSE
    return verdicts


def _seeds(one: ndarray, best: ndarray, paired: bool) -> int:
    """How many seeds a comparison rests on; of two settings that are not paired, the fewer."""
    if paired:
        return int((one & best).sum())
    return int(min(one.sum(), best.sum()))


def more_seeds(
    difference: float, error: float, seeds: int, limit: float, paired: bool
) -> int | None:
    """How many more seeds would probably tell, if neither the difference nor the spread changed.

    Args:
        error: the standard error of the difference, with `seeds` seeds.
        limit: how many standard errors it must be.

    Returns:
        None if it is more than `MOST_NEEDED`.
    """
    import numpy as np
    from scipy.special import stdtr, stdtrit

    if difference <= 0:
        return None
    samples = 1 if paired else 2
    more = np.arange(1, MOST_NEEDED + 1)
    freedom = samples * (seeds + more - 1)
    tail = stdtr(samples * (seeds - 1), -limit)
    wanted = stdtrit(freedom, LIKELY) - stdtrit(freedom, tail)
    enough = more[difference >= wanted * error * np.sqrt(seeds / (seeds + more))]
    if not len(enough):
        return None
    return int(enough[0])


def _of_best(others: Sequence[Comparison]) -> int | None:
    """The best setting is one of the two in each comparison: it needs as many seeds as the one that
    needs most."""
    undecided = [one.needs for one in others if one.verdict == UNDECIDED]
    if not undecided:
        return 0
    return max((needs for needs in undecided if needs is not None), default=None)
