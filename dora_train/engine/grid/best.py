"""Which value of a metric is the best one: as the experiments were told, else by the metric's name.

An experiment stores `best.metric` and `best.mode` with its values; they hold for the same metric of every split. The
rest goes by words that mean the same everywhere. Of a metric that neither knows, no value is the best.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..store import Birth

MAX, MIN = "max", "min"
LOW = {"loss", "err", "error", "errors", "nll", "ce", "mse", "mae", "rmse", "perplexity", "ppl", "wer", "cer", "fid",
       "ece", "brier", "bpc", "bits"}
HIGH = {"acc", "accuracy", "top1", "top5", "f1", "auc", "auroc", "ap", "map", "precision", "recall", "iou", "dice",
        "bleu", "rouge", "psnr", "ssim", "sdr", "snr", "pesq", "r2", "score", "reward"}
BEST = {"best", "value"}  # the names under which tables show the stored metric itself


class Better:
    """What is better, max or min, by metric.

    Args:
        told: `{"acc": "max"}`.
    """

    def __init__(self, told: Mapping[str, str] | None = None):
        self.told = dict(told or {})

    @classmethod
    def of(cls, births: Iterable[Birth | None]) -> "Better":
        """As these experiments were told; where they contradict each other, nothing is known."""
        told: dict[str, str] = {}
        for birth in births:
            metric, mode = monitored(birth.config if birth else {})
            for word in {metric.rpartition(".")[2], *BEST} if metric else ():
                told[word] = mode if told.get(word, mode) == mode else ""
        return cls(told)

    def mode(self, metric: str) -> str:
        """`max`, `min`, or empty where there is no telling.

        >>> Better().mode("valid.loss"), Better().mode("top5_error"), Better().mode("epoch")
        ('min', 'min', '')
        """
        name = re.split(r"[./\s]", metric)[-1].lower()
        if name in self.told:
            return self.told[name]
        words = set(re.split(r"[_\-@]", name))
        return MIN if words & LOW else MAX if words & HIGH else ""

    def best(self, metric: str, values: Sequence[Any]) -> set[int]:
        """Where the best of `values` stands; nowhere, where there are not two that differ."""
        numbers = {index: value for index, value in enumerate(values) if is_number(value)}
        mode = self.mode(metric)
        if not mode or len(set(numbers.values())) < 2:
            return set()
        best = (max if mode == MAX else min)(numbers.values())
        return {index for index, value in numbers.items() if value == best}

    def key(self, metric: str, value: Any) -> tuple[bool, float]:
        """To sort by: the best first (small ones where there is no telling), what is no number last."""
        if not is_number(value):
            return True, 0.0
        return False, -value if self.mode(metric) == MAX else value


def monitored(config: Mapping[str, Any]) -> tuple[str, str]:
    """(metric, mode) that the best epoch is chosen by, e.g. ("valid.acc", "max"); empty where nothing was stored."""
    best = config.get("best")
    best = best if isinstance(best, Mapping) else {}
    return str(best.get("metric") or ""), str(best.get("mode") or "")


def is_number(value: Any) -> bool:
    """Whether it can be compared with others: NaN cannot."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
