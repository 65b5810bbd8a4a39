"""Which class is taken for which, counted while the test set is measured.

module.py counts here, and writes `confusion.json` at the end of a run. The report draws it.
"""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

MOST_CLASSES = 200  # 40,000 numbers; what has more is not looked at as a matrix


class Confusion:
    """Counts in whole numbers: the same for any number of ranks."""

    def __init__(self) -> None:
        self.counts: Tensor | None = None  # [classes, classes] int64: true class, given class

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Args: logits: [B, classes] float. labels: [B] int64."""
        classes = logits.shape[1]
        if classes > MOST_CLASSES:
            return
        pairs = labels * classes + logits.argmax(1)
        counts = torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
        self.counts = counts if self.counts is None else self.counts + counts

    def sum_over_ranks(self) -> None:
        """All ranks must call it together."""
        if self.counts is not None and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.counts)

    def write(self, path: Path) -> None:
        """[[count, ...], ...] as JSON, a row for each true class; null if there is no matrix."""
        matrix = None if self.counts is None else self.counts.tolist()
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a reader sees the whole file
        aside.write_text(json.dumps(matrix))
        os.replace(aside, path)
