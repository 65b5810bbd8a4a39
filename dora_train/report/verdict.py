"""Which setting is the best, which are worse, and how many more seeds would tell: `compare`.

The same seed means the same initial weights, the same order of the samples and the same random
draws. Runs are therefore compared seed by seed if that is possible. The method and its sources are
in `max_t.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from . import max_t

if TYPE_CHECKING:
    from numpy import ndarray

BEST, WORSE, UNDECIDED = "best", "worse", "undecided"
MOST_NEEDED = 50  # seeds. Nobody runs more than that for one comparison.
LIMIT = 1e150  # a value as large as that has diverged, and its square would overflow
LIKELY = 0.8  # the probability that `needs` more seeds are enough for a verdict
Values = Mapping[Any, float | None]  # by seed
K = TypeVar("K", bound=Hashable)  # a setting
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What the values of one setting say, alone and next to the best setting.

    All numbers are in the units of the values that were compared.

    Attributes:
        n: the number of finite values.
        mean: None without a value.
        std: of the sample, with n - 1 in the denominator. None for less than two values.
        interval: of the mean (Student's t). None for less than two values.
        difference: how much worse the mean is than that of the best setting. 0 for the best itself.
        difference_interval: of the difference, for all settings at once. None if it is not known.
        verdict: "best", "worse" or "undecided".
        paired: whether it is compared with the best one seed by seed. For the best one: whether
            all others are.
        needs: how many more seeds of this setting and of the best one would probably decide it.
            0: it is decided. None: more than `MOST_NEEDED`.
        missing: the number of values that are not finite: the seed diverged, or is not finished.
    """

    n: int
    mean: float | None
    std: float | None
    interval: Interval | None
    difference: float | None
    difference_interval: Interval | None
    verdict: str
    paired: bool = False
    needs: int | None = None
    missing: int = 0


def compare(
    values: Mapping[K, Values], mode: str = "max", level: float = 0.05
) -> dict[K, Comparison]:
    """Compare settings by the value that each seed reached.

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
    found: dict[K, Comparison] = {}
    means: dict[K, float] = {}
    comparable: dict[K, dict[Any, float]] = {}  # settings with at least two values
    for setting, of_seeds in values.items():
        finite = _finite(of_seeds)
        one = found[setting] = _alone(finite, len(of_seeds), level)
        if one.mean is not None:
            means[setting] = one.mean
        if one.n >= 2:
            comparable[setting] = finite
    best = _best_of(comparable or means, means, mode)
    for setting, mean in means.items():
        behind = means[best] - mean
        if mode == "min":
            behind = mean - means[best]
        found[setting] = replace(found[setting], difference=behind)
    if len(comparable) >= 2:
        found.update(_judged(found, comparable, mode, level))
    elif len(found) == 1 and means:
        found[best] = replace(found[best], verdict=BEST, needs=0)
    return found


def _best_of(among: Iterable[Any], means: Mapping[Any, float], mode: str) -> Any:
    """The setting with the best mean. None if none has a value."""
    choose = max if mode == "max" else min
    return choose(among, key=means.__getitem__, default=None)


def _finite(of_seeds: Values) -> dict[Any, float]:
    """The values that can be computed with, by seed. NaN is left out too: it is below no limit."""
    found = {}
    for seed, value in of_seeds.items():
        if value is not None and abs(value) < LIMIT:
            found[seed] = float(value)
    return found


def _alone(finite: Mapping[Any, float], asked: int, level: float) -> Comparison:
    """A setting without the others: it is undecided, and needs enough seeds to be compared.

    Args:
        finite: its values by seed.
        asked: the number of its seeds, with those that have no value.
    """
    n = len(finite)
    numbers = list(finite.values())
    mean = std = interval = None
    if n >= 1:
        mean = math.fsum(numbers) / n  # exact, so that the order of the seeds does not matter
        if n >= 2:
            std = statistics.stdev(numbers)
            half = half_width(std, n, level)
            interval = (mean - half, mean + half)
    needs = max(0, max_t.ENOUGH_SHARED - n)
    return Comparison(n, mean, std, interval, None, None, UNDECIDED, needs=needs, missing=asked - n)


def half_width(std: float, n: int, level: float = 0.05) -> float:
    """Half the width of the confidence interval of a mean (Student 1908).

    Args:
        std: the standard deviation of the values.
        n: the number of values, at least 2.
    """
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)


def _judged(
    found: Mapping[Any, Comparison],
    finite: Mapping[Any, Mapping[Any, float]],
    mode: str,
    level: float,
) -> dict[Any, Comparison]:
    """The comparisons of settings that have at least two values each, with their verdicts.

    Args:
        found: each setting by itself, as `_alone` returns it.
        finite: the values of each setting by seed.
    """
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
        difference = float(distances.difference[place]) * unit
        error = float(distances.error[place]) * unit
        paired = bool(distances.paired[place])
        low, high = difference - limit * error, difference + limit * error
        needs: int | None = 0
        if place == best:
            low = high = 0.0
        elif verdicts[place] == WORSE:
            # A verdict is found step by step, and an interval holds for all settings at once. So
            # the interval of a worse setting may reach below 0.
            low = max(0.0, low)
        elif verdicts[place] == UNDECIDED:
            seeds = _seeds(known[place], known[best], paired)
            needs = more_seeds(difference, error, seeds, limits[place], paired)
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
    all_paired = all(one.paired for one in others)
    judged[best] = replace(judged[best], needs=_needs_of_best(others), paired=all_paired)
    return dict(zip(finite, judged))


def _matrix(finite: Mapping[Any, Mapping[Any, float]], mode: str) -> tuple[ndarray, ndarray, float]:
    """The values as arrays.

    Returns:
        (values, known, unit): values is [settings, seeds] float64, and larger is better. known is
        [settings, seeds] bool. unit is the largest distance between two values: the values are
        divided by it, so that their squares neither overflow nor vanish.
    """
    import numpy as np

    seeds = list(dict.fromkeys(chain.from_iterable(finite.values())))
    numbers: list[float] = []
    for of_seeds in finite.values():
        numbers += of_seeds.values()
    lowest = min(numbers)
    unit = (max(numbers) - lowest) or 1.0
    unit_with_sign = -unit if mode == "min" else unit
    values = np.zeros((len(finite), len(seeds)))
    known = np.zeros(values.shape, bool)
    for row, of_seeds in enumerate(finite.values()):
        for column, seed in enumerate(seeds):
            if seed in of_seeds:
                values[row, column] = (of_seeds[seed] - lowest) / unit_with_sign
                known[row, column] = True
    return values, known, unit


def _stepped_down(t: Sequence[float], limits: Sequence[float]) -> list[str]:
    """The verdict on each setting.

    A setting that is not behind at all is best. The others are judged from the worst one on. Once
    a setting is not far enough behind, it and the rest are undecided.
    """
    verdicts = [BEST if one <= 0 else UNDECIDED for one in t]
    for place in sorted(range(len(t)), key=lambda place: -t[place]):
        if t[place] <= limits[place]:
            break
        verdicts[place] = WORSE
    return verdicts


def _seeds(one: ndarray, best: ndarray, paired: bool) -> int:
    """The number of seeds in a comparison. If it is not paired, that of the smaller setting.

    Args:
        one, best: [seeds] bool, the seeds of the two settings.
    """
    if paired:
        return int((one & best).sum())
    return int(min(one.sum(), best.sum()))


def more_seeds(
    difference: float, error: float, seeds: int, limit: float, paired: bool
) -> int | None:
    """How many more seeds would probably decide a comparison.

    It is assumed that neither the difference nor the spread will change.

    Args:
        error: the standard error of the difference, with `seeds` seeds.
        limit: how many standard errors the difference must be for a verdict.

    Returns:
        1 or more. None if it is more than `MOST_NEEDED`.
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


def _needs_of_best(others: Sequence[Comparison]) -> int | None:
    """How many more seeds the best setting needs. It takes part in each comparison."""
    undecided = [one.needs for one in others if one.verdict == UNDECIDED]
    if not undecided:
        return 0
    return max(filter(None, undecided), default=None)
