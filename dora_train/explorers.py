"""The columns that the table of a grid shows for any task: the loss, and `best.metric`.

A grid file decorates its function with an explorer. Columns of your own go into
`grids/_explorers.py`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import filterfalse
from typing import Any

import treetable as tt
from dora import Explorer

from .best_so_far import metrics_of, monitored


class MainMetrics(Explorer):
    """Loss and `best.metric` of the last entry of the history, and the best value so far."""

    metric, mode = (
        "valid.loss",
        "min",
    )  # the table sets best.metric and best.mode of the experiments

    @property
    def better(self) -> dict[str, str]:
        """The direction of each column: the table marks the best value with a star."""
        split, _, name = self.metric.partition(".")
        return {f"train.{name}": self.mode, self.metric: self.mode, f"{split}.best": self.mode}

    def get_grid_metrics(self) -> list[Any]:
        """The columns, as groups of treetable: one for each split."""
        split, _, name = self.metric.partition(".")
        shown = list(dict.fromkeys(["loss", name]))
        groups = {"train": shown, "valid": shown}
        groups[split] = [*groups.get(split, [name]), "best"]
        return [tt.group(group, _leaves(names)) for group, names in groups.items()]

    def process_history(self, history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        """The values of the columns, by split and name."""
        found = {}
        for entry in history:
            # Not every entry measures each split: its last values stay.
            for split, metrics in metrics_of(entry).items():
                found[split] = dict(metrics)
        values = monitored(history, self.metric, self.mode, measured_only=True)
        numbers = list(filterfalse(math.isnan, values))  # NaN is never the best
        if numbers:
            best = max(numbers)
            found[self.metric.partition(".")[0]]["best"] = best if self.mode == "max" else -best
        return found


def _leaves(names: Iterable[str]) -> list[Any]:
    return [tt.leaf(name, ".3f") for name in names]
