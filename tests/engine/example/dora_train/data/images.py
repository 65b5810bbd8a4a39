"""A data set before it is cut into batches: all its images, their labels, and which of them are for
what.

`Images` is what a data set's function gives (datasets.py, image_folder.py). Its pixels are a
`Source`: held in memory here, or read from files batch by batch (image_folder.py); both give the
same bytes.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..counters import permutation
from ..data_error import DataError
from .augment import Augmentation

SPLIT_SEED = 2026  # which samples are held out never depends on the experiment's seed
PARTS = ("train", "valid", "test")

Contents = dict[str, list[Any]]  # file name -> [part, size, checksum or None]


class Source(Protocol):
    """Where pixels come from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @property
    def device(self) -> torch.device:
        """Where the rows must lie, and the pixels come out."""

    def read(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each [B] int64 of rows their [B, C, H, W] uint8."""

    def to(self, device: torch.device) -> None:
        """Hold the pixels there, if that is better than moving batches."""


@contextmanager
def one_thread() -> Iterator[None]:
    """For work of microseconds an image: a second thread gains a third where a core is free for it.

    Where none is, each operation waits for it for a slice of the scheduler: measured, a tenth of
        the speed
    (benchmarks/README.md).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # 0.4 us there and back
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class InMemory:
    """Pixels as one tensor, which may be the view of a file.

    Args:
        pixels: [N, C, H, W] uint8.
    """

    def __init__(self, pixels: Tensor):
        self.pixels = pixels

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def read(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        for rows in wanted:
            with one_thread():
                pixels = self.pixels.index_select(0, rows)
            yield pixels

    def to(self, device: torch.device) -> None:
        """To a CUDA GPU that has room for it: half of what is free stays for the network."""
        if device.type == "cuda" and self.pixels.device != device:
            if self.pixels.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
                self.pixels = self.pixels.to(device)


@dataclass
class Images:
    """A whole data set.

    Attributes:
        pixels: [N, C, H, W] uint8, C is 1 or 3; a tensor, or another source.
        labels: [N] int64 in 0 .. number of classes - 1.
        classes: their names.
        parts: {"train" | "valid" | "test": [n] int64, the rows of this part}; held out by label
            where none are given.
        suits: how such images are augmented where the user does not say; None: cropped by an eighth
            of their side.
        statistics_from: at most so many images of the training set, evenly spaced, give its mean
            and std.
        on_white: whether images with transparency were laid on white.
        contents: what the set consists of; None: it is computed, one entry per part, from pixels in
            memory.
    """

    pixels: "Tensor | Source"
    labels: Tensor
    classes: list[str]
    parts: dict[str, Tensor] = field(default_factory=dict)
    suits: Augmentation | None = None
    statistics_from: float = math.inf
    on_white: bool = True
    contents: Contents | None = None

    def __post_init__(self) -> None:
        self.source: Source = (
            InMemory(self.pixels) if isinstance(self.pixels, Tensor) else self.pixels
        )
        self.parts = self.parts or split(self.labels, SPLIT_SEED)
        self.suits = self.suits or Augmentation(crop=self.source.shape[-1] // 8)
        for part in PARTS:
            if len(self.parts[part]) == 0:
                raise DataError(
                    f"no image is left for the {part} set: {len(self.labels):,} images in "
                    f"{len(self.classes)} classes are too few to hold some out."
                )

    def known_contents(self) -> Contents:
        """What the set consists of, to know it again; empty if all of it would have to be read."""
        if self.contents is None and isinstance(self.source, InMemory):
            self.contents = {
                part: [part, len(self.parts[part]), self._checksum(part)] for part in PARTS
            }
        return self.contents or {}

    def _checksum(self, part: str) -> str:
        """Of the pixels and labels of a part."""
        rows = self.parts[part]
        checksum = zlib.crc32(self.labels[rows].numpy().data)
        for pixels in self.source.read(rows.split(1024)):
            checksum = zlib.crc32(pixels.cpu().numpy().data, checksum)
        return f"{checksum:08x}"

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std of the training set's pixels, by channel: two [C] float32 in 0 .. 255.

        From sums of integers, which are exact: neither the order nor the size of the pieces can
            change a bit.
        """
        rows = self.parts["train"]
        rows = rows[:: max(1, math.ceil(len(rows) / self.statistics_from))]
        channels, height, width = self.source.shape[1:]
        total, squares = (
            torch.zeros(channels, dtype=torch.int64),
            torch.zeros(channels, dtype=torch.int64),
        )
        for pixels in self.source.read(rows.split(128)):
            total += pixels.sum((0, 2, 3), dtype=torch.int64)
            squares += pixels.int().square_().sum((0, 2, 3), dtype=torch.int64)
        count = len(rows) * height * width
        pairs = list(zip(total.tolist(), squares.tolist()))
        # whole numbers
        variances = [(count * square - one * one) / (count * (count - 1)) for one, square in pairs]
        # a black channel stays black
        stds = [max(math.sqrt(variance), 1.0) for variance in variances]
        return torch.tensor([one / count for one, _ in pairs]), torch.tensor(stds)


def split(
    labels: Tensor, seed: int, valid: float = 1 / 6, test: float = 1 / 6
) -> dict[str, Tensor]:
    """A fixed split with the same share of each class in every part: {part: [n] int64, in rising
    order}."""
    parts: dict[str, list[Tensor]] = {"train": [], "valid": [], "test": []}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[permutation(len(members), "split", seed, label)]
        sizes = [round(len(members) * share) for share in (valid, test)]
        for part, chosen in zip(
            ("valid", "test", "train"), members.split([*sizes, len(members) - sum(sizes)])
        ):
            parts[part].append(chosen)
    return {part: torch.cat(chosen).sort().values for part, chosen in parts.items()}
