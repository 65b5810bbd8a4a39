"""How an image becomes an input of a network, and the names of the classes.

A run stores it with its experiment, as plain Python (`Data.inputs` of load.py). predict.py reads it,
so that images can be classified on a machine without the data set. They go through the same
`Batches` as the test set.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .batches import Batches
from .image_files import InFiles


@dataclass
class Inputs:
    """What is known of a data set's images and classes.

    Attributes:
        classes: their names, in the order of the network's outputs.
        shape: [C, H, W] of an image, C is 1 (grey) or 3.
        mean, std: [C] of the training set, in the units of the pixels (0 .. 255).
        on_white: whether images with transparency are laid on white. Older experiments have no such
            entry, and did not.
    """

    classes: list[str]
    shape: list[int]
    mean: list[float]
    std: list[float]
    on_white: bool = False

    @classmethod
    def read(cls, content: Any) -> "Inputs | None":
        """The inputs that `dataclasses.asdict` was called on. None if `content` is no such dict."""
        try:
            inputs = cls(**content)
            if inputs._fits():
                return inputs
        except (TypeError, LookupError):
            pass
        return None

    def _fits(self) -> bool:
        channels = self.shape[0]
        has_channels = len(self.shape) == 3 and channels in (1, 3)
        return has_channels and len(self.mean) == len(self.std) == channels

    @property
    def image_size(self) -> int:
        """The shorter side of an image, pixels."""
        return min(self.shape[1:])

    def batches(self, paths: list[str], batch_size: int, num_workers: int = 0) -> Batches:
        """Image files as the batches of a test set, in the order of `paths`. All labels are 0.

        Their `epoch()` gives images [B, 3, H, W] float32. It raises DataError if an image cannot be
        read.
        """
        files = InFiles(paths, tuple(self.shape), num_workers, self.on_white)
        labels = torch.zeros(len(paths), dtype=torch.int64)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return Batches(files, torch.arange(len(paths)), labels, batch_size, mean, std)
