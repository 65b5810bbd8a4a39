"""Which columns the table of a grid shows, of whatever task: the loss, and `best.metric`.

A grid file decorates its question with an explorer. `grids/_explorers.py` is the place for columns of
your own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import treetable as tt
from dora import Explorer

from .best_so_far import metrics_of, monitored


class MainMetrics(Explorer):
    """Loss and `best.metric` of the last entry of the history, and the best value so far.

    Attributes:
        metric, mode: `best.metric` and `best.mode` of the experiments; the table sets them.
    """

    metric, mode = "valid.loss", "min"

    @property
    def better(self) -> dict[str, str]:
        """Which value of a column gets a star. Of a loss it is the lowest."""
        split, _, name = self.metric.partition(".")
        return {f"train.{name}": self.mode, self.metric: self.mode, f"{split}.best": self.mode}

    def get_grid_metrics(self) -> list[Any]:
        split, _, name = self.metric.partition(".")
        shown = list(dict.fromkeys(["loss", name]))
        groups = {"train": shown, "valid": shown}
        groups[split] = [*groups.get(split, [name]), "best"]
        return [tt.group(group, _leaves(names)) for group, names in groups.items()]

    def process_history(self, history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        # the last of each
        found = {split: dict(own) for entry in history for split, own in metrics_of(entry).items()}
        values = monitored(history, self.metric, self.mode, measured_only=True)
        if values:
            best = max(values)
            found[self.metric.partition(".")[0]]["best"] = best if self.mode == "max" else -best
        return found


def _leaves(names: Iterable[str]) -> list[Any]:
    return [tt.leaf(name, ".3f") for name in names]
