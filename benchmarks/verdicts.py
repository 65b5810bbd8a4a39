"""How often a verdict errs, and how much it sees, beside the tests that are used in its place.

    python benchmarks/verdicts.py              error rates and power on drawn values: a minute or two
    python benchmarks/verdicts.py digits       four learning rates, six seeds, trained here: some minutes

Errors: the part of grids in which some setting is called worse although none differs. Power: the
part of the worse settings that are called so, if one setting is better than all others by three
standard deviations of a run (after what the seed does to all settings alike is taken away). `one
setting noisy`: the runs of one setting spread three times as much. All methods get the same draws.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dora_train.engine.experiment.folder import Experiment  # noqa: E402
from dora_train.report import compare  # noqa: E402

LEVEL = 0.05
GRIDS = 1_000
SHAPES = [(2, 5), (4, 3), (4, 5), (8, 5), (16, 5), (16, 10), (32, 3)]
CORRELATION = 0.5  # of two settings on the same seed
GAP = 3.0
RATES, SEEDS, EPOCHS = (0.01, 0.03, 0.1, 0.2), range(6), 6

Method = Callable[[np.ndarray], list[bool]]


# --- the methods: [settings, seeds], larger is better -> which settings are called worse ---


def ours(values: np.ndarray) -> list[bool]:
    found = compare(
        {setting: dict(enumerate(row)) for setting, row in enumerate(values)}, level=LEVEL
    )
    return [one.verdict == "worse" for one in found.values()]


def welch(values: np.ndarray) -> list[bool]:
    return _against_best(
        values, lambda *rows: stats.ttest_ind(*rows, axis=1, equal_var=False), LEVEL
    )


def paired(values: np.ndarray) -> list[bool]:
    return _against_best(values, lambda *rows: stats.ttest_rel(*rows, axis=1), LEVEL)


def bonferroni(values: np.ndarray) -> list[bool]:
    """The paired t test, corrected for all pairs: any may be the best one and the one that is
    worse."""
    level = LEVEL / math.comb(len(values), 2)
    return _against_best(values, lambda *rows: stats.ttest_rel(*rows, axis=1), level)


def _against_best(values: np.ndarray, test: Callable[..., Any], level: float) -> list[bool]:
    at = int(values.mean(1).argmax())
    others = np.delete(values, at, axis=0)
    best = np.broadcast_to(values[at], others.shape)
    return np.insert(test(best, others).pvalue < level, at, False).tolist()


METHODS: dict[str, Method] = {
    "Welch": welch,
    "paired t": paired,
    "paired t, Bonferroni": bonferroni,
    "ours": ours,
}


# --- drawn values ---


def drawn(
    generator: np.random.Generator, settings: int, seeds: int, skewed: bool = False
) -> np.ndarray:
    """[settings, seeds]: what is left of a run when the seed's effect is taken away has variance
    1."""

    def noise(*shape: int) -> np.ndarray:
        if not skewed:
            return generator.standard_normal(shape)
        values = np.exp(generator.standard_normal(shape))
        return (values - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)

    effect = math.sqrt(CORRELATION / (1 - CORRELATION))
    return effect * noise(1, seeds) + noise(settings, seeds)


def rates(
    values_of: Callable[[np.random.Generator], np.ndarray],
    grids: int,
    counted: Callable[[list[bool]], float],
) -> list[str]:
    """The mean of `counted` over many grids, in percent, for each method."""
    cells = []
    for method in METHODS.values():
        generator = np.random.default_rng(0)
        mean = sum(counted(method(values_of(generator))) for _ in range(grids)) / grids
        cells.append(f"{100 * mean:.1f}")
    return cells


def with_noisy(values: np.ndarray) -> np.ndarray:
    values[0] = 3 * values[0]
    return values


def with_gap(values: np.ndarray) -> np.ndarray:
    values[0] += GAP
    return values


def table() -> None:
    print(
        f"percent of {GRIDS:,} grids, {100 * LEVEL:.0f}% asked for (a rate of 5% is measured to 0.7%)\n"
    )
    print(f"| data | settings x seeds | {' | '.join(METHODS)} |")
    print(f"| --- | --- |{' --- |' * len(METHODS)}")
    kinds: dict[
        str,
        tuple[Callable[[np.random.Generator, int, int], np.ndarray], Callable[[list[bool]], float]],
    ] = {
        "no difference, normal": (drawn, any),
        "no difference, skewed": (
            lambda generator, *shape: drawn(generator, *shape, skewed=True),
            any,
        ),
        "no difference, one setting noisy": (
            lambda generator, *shape: with_noisy(drawn(generator, *shape)),
            any,
        ),
        "power": (
            lambda generator, *shape: with_gap(drawn(generator, *shape)),
            lambda worse: np.mean(worse[1:]),
        ),
    }
    for kind, (make, counted) in kinds.items():
        for shape in SHAPES:
            cells = rates(lambda generator: make(generator, *shape), GRIDS, counted)  # noqa: B023 - called at once
            print(f"| {kind} | {shape[0]} x {shape[1]} | {' | '.join(cells)} |", flush=True)


# --- real runs ---


def digits() -> None:
    """Four learning rates of `small` on the digits, six seeds each: what each method says of the
    test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [trained(Path(folder), rate, seed) for rate, seed in product(RATES, SEEDS)]
    values = np.array(runs).reshape(len(RATES), len(SEEDS))
    print(f"test accuracy of {len(RATES)} x {len(SEEDS)} runs of {EPOCHS} epochs\n")
    print(
        f"| optim.lr | mean | standard deviation | behind | its interval | {' | '.join(METHODS)} |"
    )
    print(f"| --- | --- | --- | --- | --- |{' --- |' * len(METHODS)}")
    found = compare(
        {rate: dict(zip(SEEDS, map(float, row))) for rate, row in zip(RATES, values)}, level=LEVEL
    )
    worse = {name: method(values) for name, method in METHODS.items()}
    for place, (rate, one) in enumerate(found.items()):
        low, high = one.difference_interval or (math.nan, math.nan)
        words = ["worse" if worse[name][place] else "" for name in METHODS]
        words[-1] = one.verdict
        numbers = f"{one.mean:.4f} | {one.std:.4f} | {one.difference:.4f} | {low:.4f} .. {high:.4f}"
        print(f"| {rate} | {numbers} | {' | '.join(words)} |")
    print(f"\nWelch's intervals of a difference, beside those paired by seed: {narrower(values)}")


def trained(folder: Path, rate: float, seed: int) -> float:
    """The test accuracy of one run."""
    out = folder / f"{rate}-{seed}"
    command = [
        sys.executable,
        "-m",
        "dora",
        "run",
        f"optim.lr={rate}",
        f"seed={seed}",
        "threads=1",
        "logger=[]",
        f"trainer.max_epochs={EPOCHS}",
    ]
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DORA_DIR": str(out)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [experiment] = [Experiment(path) for path in (out / "xps").iterdir()]
    return experiment.result()["test"]["acc"]


def narrower(values: np.ndarray) -> str:
    """How many times as wide Welch's intervals are, over all pairs of settings."""
    ratios = []
    for one in range(len(values)):
        for other in range(one):
            pair = stats.ttest_rel(values[one], values[other]).confidence_interval(1 - LEVEL)
            apart = stats.ttest_ind(
                values[one], values[other], equal_var=False
            ).confidence_interval(1 - LEVEL)
            ratios.append((apart.high - apart.low) / (pair.high - pair.low))
    return f"{np.median(ratios):.2f} times as wide in the median ({min(ratios):.2f} .. {max(ratios):.2f})"


if __name__ == "__main__":
    if sys.argv[1:] == ["digits"]:
        digits()
    else:
        table()
