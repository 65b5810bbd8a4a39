"""How an image becomes a network's input, and what its answer is called: all that classifying needs
of a data set.

A run stores it with its experiment (`Data.inputs` of data.py), as plain Python; predict.py reads
it, so that images are classified where the data set is not. They go through the very `Batches` that
the test set went through.
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
        on_white: whether images with transparency are laid on white; older experiments do not say.
    """

    classes: list[str]
    shape: list[int]
    mean: list[float]
    std: list[float]
    on_white: bool = False

    @classmethod
    def read(cls, content: Any) -> "Inputs | None":
        """From what `dataclasses.asdict` made of one; None where it is anything else."""
        try:
            inputs = cls(**content)
            channels = inputs.shape[0]
            fits = (
                len(inputs.shape) == 3
                and channels in (1, 3)
                and len(inputs.mean) == len(inputs.std) == channels
            )
        except (TypeError, LookupError):
            return None
        return inputs if fits else None

    @property
    def image_size(self) -> int:
        """The shorter side of an image, pixels."""
        return min(self.shape[1:])

    def batches(self, paths: list[str], batch_size: int, num_workers: int = 0) -> Batches:
        """Image files as a test set's batches, in the order of `paths`; all labels are 0.

        Its `epoch()` gives images [B, 3, H, W] float32, and raises DataError where one cannot be
        read.
        """
        files = InFiles(paths, tuple(self.shape), num_workers, self.on_white)
        labels = torch.zeros(len(paths), dtype=torch.int64)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return Batches(files, torch.arange(len(paths)), labels, batch_size, mean, std)
