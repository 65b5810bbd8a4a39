"""From `cfg.data` to train, validation and test batches, in plain PyTorch: `load_data(**cfg.data, seed=cfg.seed)`.

A split is held in memory as uint8 and a batch is made by indexing: faster than workers, and exact to resume, since
the order of an epoch and the draws of a sample are functions of (seed, epoch, sample). Knows nothing of Lightning,
Dora or Hydra: `basic/` and notebooks use it as well.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .counters import integers, permutation

SPLIT_SEED = 2026  # which samples are held out never depends on the experiment's seed


class Batches:
    """One split of a data set, batch by batch.

    The set is cut into the fewest batches of at most `batch_size` samples, all of equal size (give or take one):
    no sample is left out, and no batch is too small for batch norm.

    Args:
        images: [N, C, H, W] uint8, C is 1 or 3.
        labels: [N] int64 in 0 .. number of classes - 1.
        mean, std: [C] float32 of the training set, in the units of the pixels (0 .. 255).
        seed: of the order and the augmentation.
        shuffle: a new order each epoch, or the order of the set.
        shift: pixels by which a sample is moved at most, in each direction; 0: as it is.
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int, mean: torch.Tensor,
                 std: torch.Tensor, *, seed: int = 0, shuffle: bool = False, shift: int = 0):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.seed, self.shuffle, self.shift = seed, shuffle, shift
        padded = torch.nn.functional.pad(images, [shift] * 4)
        height, width = images.shape[2:]
        self._windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [N, C, 2s + 1, 2s + 1, H, W]

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self.num_samples // self.batch_size)

    def bounds(self, batch: int) -> tuple[int, int]:
        """Where a batch begins and ends in the epoch's order."""
        return self.num_samples * batch // len(self), self.num_samples * (batch + 1) // len(self)

    def size_of(self, batch: int) -> int:
        """Samples of a batch, over all ranks."""
        first, last = self.bounds(batch)
        return last - first

    def epoch(self, epoch: int = 0, start: int = 0, rank: int = 0,
              world_size: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of an epoch from batch `start` on: (images [B, 3, H, W] float32, labels [B] int64).

        The images have mean 0 and variance 1 over the training set. With several ranks each gets its share of
        every batch: `batch_size` is that of all ranks together.
        """
        order = permutation(self.num_samples, "order", self.seed, epoch) if self.shuffle else None
        for batch in range(start, len(self)):
            first, last = self.bounds(batch)
            samples = torch.arange(first, last) if order is None else order[first:last]
            yield self.batch(samples[rank::world_size], epoch)

    def batch(self, samples: torch.Tensor, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """These samples ([B] int64) as a batch, with the draws that they have in this epoch."""
        if self.shift:
            places = 2 * self.shift + 1
            row = integers(samples, places, "row", self.seed, epoch)
            column = integers(samples, places, "column", self.seed, epoch)
            pixels = self._windows[samples, :, row, column]
        else:
            pixels = self.images[samples]
        images = pixels.float().sub_(self.mean).div_(self.std)
        return images.expand(-1, 3, -1, -1).contiguous(), self.labels[samples]


@dataclass
class Data:
    """A data set, ready to train on."""

    name: str
    classes: list[str]
    train: Batches
    valid: Batches
    test: Batches

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __str__(self) -> str:
        sizes = ", ".join(f"{getattr(self, split).num_samples:,} {split}" for split in ("train", "valid", "test"))
        return f"{self.name} ({sizes})"


def load_data(name: str, batch_size: int, augment: bool, seed: int = 0) -> Data:
    """The data set `name`, in batches of `batch_size` over all ranks.

    Raises:
        ValueError: there is no such data set, or the batch size is below 2 (batch norm needs two samples).
    """
    check_data(name, batch_size)
    images, labels, classes = DATASETS[name]()
    parts = split(labels, SPLIT_SEED)
    pixels = images[parts["train"]].double()
    mean, std = pixels.mean((0, 2, 3)).float(), pixels.std((0, 2, 3)).float()

    def batches(part: str, **how) -> Batches:
        return Batches(images[parts[part]], labels[parts[part]], batch_size, mean, std, seed=seed, **how)

    return Data(name, classes, batches("train", shuffle=True, shift=int(augment)), batches("valid"), batches("test"))


def check_data(name: str, batch_size: int = 2, **_: object) -> None:
    """Whether `load_data` can take this, without loading anything.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(str(name), DATASETS, n=1)
        hint = f": did you mean {close[0]}?" if close else f"; there is: {', '.join(DATASETS)}."
        raise ValueError(f'unknown data set "{name}"{hint}')
    if batch_size < 2:
        raise ValueError(f"data.batch_size={batch_size}: it takes 2 or more (batch norm needs two samples).")


def split(labels: torch.Tensor, seed: int, valid: float = 1 / 6, test: float = 1 / 6) -> dict[str, torch.Tensor]:
    """A fixed split with the same share of each class in every part: {part: [n] int64, in rising order}."""
    parts: dict[str, list[torch.Tensor]] = {"train": [], "valid": [], "test": []}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[permutation(len(members), "split", seed, label)]
        sizes = [round(len(members) * share) for share in (valid, test)]
        for part, chosen in zip(("valid", "test", "train"), members.split([*sizes, len(members) - sum(sizes)])):
            parts[part].append(chosen)
    return {part: torch.cat(chosen).sort().values for part, chosen in parts.items()}


def _digits() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    from sklearn.datasets import load_digits  # here: it takes a second to import

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)  # pixels are 0 .. 16
    return images.unsqueeze(1), torch.from_numpy(digits.target).long(), [str(name) for name in digits.target_names]


# name -> () -> (images [N, C, H, W] uint8, labels [N] int64, names of the classes)
DATASETS: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor, list[str]]]] = {"digits": _digits}
