"""The statistics behind a verdict: how far settings are behind the best one, and what chance does.

`verdict.py` calls `behind_best` on the measured values, and `critical` for the distances that occur
if no setting differs. numpy and scipy are imported inside the functions, because most calls of the
report need neither.

The method, in the order of its steps:

1. Two settings are compared on the seeds that they share, if there are at least three of them (a
   paired t statistic), else by Welch's statistic (Biometrika 34, 1947).
2. With few seeds, an estimated variance is often far too small by chance. Each is therefore moved
   towards the average variance of all comparisons, as if that were known with `PRIOR_FREEDOM`
   degrees of freedom (Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004).
   Two settings alone have no average, so their variance stays as it is.
3. One of many settings has the best mean by chance, even if all are equal. Therefore the largest
   statistic of all settings against the best one is used. It is compared with the same number from
   random data without a difference, drawn thousands of times with the same seeds missing (max-t).
   So in 95 of 100 grids no setting is called worse by mistake, even if all of them are equal. The
   idea is that of Hsu's comparisons with the best (Annals of Statistics 12, 1984).
4. Once the worst setting is found to be worse, the next one is compared with fewer rivals
   (step-down: Romano and Wolf, Econometrica 73, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

ENOUGH_SHARED = 3  # seeds that two settings must share to be compared seed by seed
# Degrees of freedom of the average variance. Error rates and power: benchmarks/verdicts.py.
PRIOR_FREEDOM = 2.0
DRAWS = 20_000  # of data without a difference. A probability of 5% is then known to 0.3%.
CHUNK = 2_000_000  # numbers in memory at a time


@dataclass(frozen=True)
class Distances:
    """How far settings are behind the best one.

    Attributes:
        best: [...] int64, the setting with the highest mean.
        difference: [..., settings] float64, the best mean minus this one, on the compared seeds.
        error: [..., settings] float64, the standard error of that difference.
        paired: [..., settings] bool, whether it is compared on shared seeds.
    """

    best: ndarray
    difference: ndarray
    error: ndarray
    paired: ndarray

    @property
    def t(self) -> ndarray:
        """[..., settings] float64: the difference in standard errors.

        Infinite if there is no spread at all.
        """
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            t = self.difference / self.error
        return np.where(self.difference == 0, 0.0, t)


def behind_best(values: ndarray, known: ndarray) -> Distances:
    """How far each setting is behind the highest mean.

    Args:
        values: [..., settings, seeds] float64, larger is better. A value that is not known may be
            any finite number.
        known: [settings, seeds] bool. Each setting has at least two values.
    """
    import numpy as np

    one = known.astype(float)
    counts = one.sum(1)
    means = (values * one).sum(-1) / counts
    centred = (values - means[..., None]) * one
    best = means.argmax(-1)

    paired = (one @ one.T)[best] >= ENOUGH_SHARED
    shift, paired_squares = _paired(centred, known, best)
    of_mean = _own((centred**2).sum(-1), counts - 1) / counts
    welch_squares = of_mean + np.take_along_axis(of_mean, best[..., None], -1)

    differences = means.max(-1)[..., None] - means + np.where(paired, shift, 0.0)
    error = np.sqrt(np.where(paired, paired_squares, welch_squares))
    return Distances(best, differences, error, paired)


def _paired(centred: ndarray, known: ndarray, best: ndarray) -> tuple[ndarray, ndarray]:
    """Corrects the difference of the means so that it is that of the shared seeds.

    Args:
        centred: [..., settings, seeds], the values minus the mean of their setting. 0 if not known.

    Returns:
        (correction, squared standard error of the difference), each [..., settings].
    """
    import numpy as np

    common = known & known[best][..., None, :]
    count = np.maximum(common.sum(-1), ENOUGH_SHARED)
    of_best = np.take_along_axis(centred, best[..., None, None], -2)
    apart = (of_best - centred) * common
    shift = apart.sum(-1) / count
    squares = np.maximum((apart**2).sum(-1) - count * shift**2, 0.0)
    freedom = count - 1
    if len(known) <= 2:
        return shift, squares / freedom / count
    total, all_freedom = _of_all_pairs(centred, known)
    return shift, _moderated(squares, freedom, total, all_freedom) / count


def _of_all_pairs(centred: ndarray, known: ndarray) -> tuple[ndarray, int]:
    """The squares of the paired differences of all pairs of settings, around their means.

    Settings with the same seeds form a group, and a pair of groups is computed at once: there are
    many settings, and few groups.

    Returns:
        (the sum of the squares [..., 1], its degrees of freedom).
    """
    import numpy as np

    patterns, group = np.unique(known, axis=0, return_inverse=True)
    members = [np.flatnonzero(group.ravel() == at) for at in range(len(patterns))]
    total, freedom = np.zeros((*centred.shape[:-2], 1)), 0
    for one, other in combinations_with_replacement(range(len(patterns)), 2):
        common = patterns[one] & patterns[other]
        if common.sum() < ENOUGH_SHARED:
            continue
        squares, summed = _around_mean(centred[..., members[one], :], common)
        n = len(members[one])
        if one == other:
            total += n * squares - (summed**2).sum(-1, keepdims=True)
            pairs = n * (n - 1) // 2
        else:
            others, other_summed = _around_mean(centred[..., members[other], :], common)
            m = len(members[other])
            total += m * squares + n * others - 2 * (summed * other_summed).sum(-1, keepdims=True)
            pairs = n * m
        freedom += pairs * (int(common.sum()) - 1)
    return np.maximum(total, 0.0), freedom


def _around_mean(rows: ndarray, common: ndarray) -> tuple[ndarray, ndarray]:
    """Sums over rows, whose means are subtracted, on the seeds that are `common`.

    Returns:
        (the sum of all squares [..., 1], the sum of the rows [..., seeds]).
    """
    rows = rows[..., common]
    rows = rows - rows.mean(-1, keepdims=True)
    return (rows**2).sum((-1, -2))[..., None], rows.sum(-2)


def _own(squares: ndarray, freedom: ndarray) -> ndarray:
    """The variances of single settings, moderated if there are more than two."""
    if len(freedom) <= 2:
        return squares / freedom
    return _moderated(squares, freedom, squares.sum(-1, keepdims=True), freedom.sum())


def _moderated(squares: ndarray, freedom: ndarray, total: ndarray, all_freedom: float) -> ndarray:
    """Variances moved towards the average one, which is `total / all_freedom`."""
    if not all_freedom:
        return squares / freedom
    return (PRIOR_FREEDOM * total / all_freedom + squares) / (PRIOR_FREEDOM + freedom)


def critical(t: ndarray, known: ndarray, level: float) -> tuple[list[float], float]:
    """How many standard errors a setting must be behind to be worse, for three settings and more.

    Args:
        t: [settings] float64, the statistics that were observed.
        known: [settings, seeds] bool.
        level: the probability of declaring any setting worse if all are equal.

    Returns:
        (limits, limit): one limit for each setting, when it is compared with the settings that are
        not further behind, and the limit for all settings at once, for simultaneous intervals.
    """
    import numpy as np

    draws = _drawn(known.tobytes(), known.shape)
    ascending = np.argsort(t, kind="stable")
    largest = np.maximum.accumulate(draws[ascending], axis=0)
    unsure = 2 * math.sqrt(level * (1 - level) / DRAWS)  # the draws are many, not infinitely many
    place = min(DRAWS - 1, math.ceil((1 - level + unsure) * DRAWS))
    limits = np.partition(largest, place, axis=1)[:, place]
    of_each = np.empty(len(t))
    of_each[ascending] = limits
    return of_each.tolist(), float(limits[-1])


def critical_of_two(values: ndarray, known: ndarray, level: float) -> float:
    """The same for two settings, where Student's t is exact.

    Either setting may be the best one by chance, so both tails count.

    Args:
        values, known: [2, seeds], as `behind_best` takes them.
    """
    from scipy.special import stdtrit

    return -float(stdtrit(freedom_of_two(values, known), level / 2))


def freedom_of_two(values: ndarray, known: ndarray) -> float:
    """The degrees of freedom of the comparison of two settings.

    For paired values, one less than the number of pairs. Else by Welch and Satterthwaite
    (Biometrics Bulletin 2, 1946).
    """
    import numpy as np

    shared = known.all(0).sum()
    if shared >= ENOUGH_SHARED:
        return float(shared - 1)
    counts = known.sum(1)
    of_mean = np.array([value[there].var(ddof=1) for value, there in zip(values, known)]) / counts
    if not of_mean.any():
        return float(counts.min() - 1)
    return float(of_mean.sum() ** 2 / (of_mean**2 / (counts - 1)).sum())


@lru_cache(maxsize=2)  # of 500 settings, one takes 80 MB
def _drawn(known_bytes: bytes, shape: tuple[int, int]) -> ndarray:
    """The statistics of random data without a difference: [settings, DRAWS] float64.

    The data are normal with equal variances. Their seed is fixed, so that a report gives the same
    verdicts each time. Seeds have no effect on the values: a paired difference would remove it.
    """
    import numpy as np

    known = np.frombuffer(known_bytes, dtype=bool).reshape(shape)
    generator = np.random.default_rng(0)
    size = max(1, CHUNK // (shape[0] * shape[1]))
    found = []
    for start in range(0, DRAWS, size):
        values = generator.standard_normal((min(size, DRAWS - start), *shape))
        found.append(behind_best(values, known).t)
    return np.concatenate(found).T.copy()
