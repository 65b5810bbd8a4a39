"""The confusion matrix of the test set: how often each class is taken for each other.

module.py fills it, and writes `confusion.json` at the end of a run. The report draws it.
"""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

MOST_CLASSES = 200  # 40,000 numbers. Nobody looks at a larger matrix.


class Confusion:
    """Counts of (true class, given class). Sums of integers are the same for any number of ranks.

    Attributes:
        counts: [classes, classes] int64, a row for each true class. None: nothing was counted, or
            there are more than `MOST_CLASSES` classes.
    """

    def __init__(self) -> None:
        self.counts: Tensor | None = None

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits [B, classes] float, labels [B] int64."""
        classes = logits.shape[1]
        if classes > MOST_CLASSES:
            return
        # MPS counts no 64-bit integers
        if logits.device.type == "mps":
            logits, labels = logits.cpu(), labels.cpu()
        # each pair (true class, given class) as one number, so that one call counts all
        pairs = labels * classes + logits.argmax(1)
        counts = torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
        self.counts = counts if self.counts is None else self.counts + counts

    def sum_over_ranks(self) -> None:
        """Add up the counts of all ranks. All ranks must call it together."""
        if self.counts is not None and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.counts)

    def write(self, path: Path) -> None:
        """Write [[count, ...], ...] as JSON, or null if there are no counts."""
        matrix = None if self.counts is None else self.counts.tolist()
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a reader sees the whole file
        aside.write_text(json.dumps(matrix))
        os.replace(aside, path)
