"""A data set before it is cut into batches: all its images, their labels, and its parts.

The functions of datasets.py and image_folder.py return `Images`. Its pixels are a `Source`: in
memory (`InMemory`), or read from files batch by batch (image_files.py). Both give the same bytes.
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

SPLIT_SEED = 2026  # fixed, so that experiments with other seeds hold out the same samples
PARTS = ("train", "valid", "test")

Contents = dict[str, list[Any]]  # file name -> [part, size, checksum or None]


class Source(Protocol):
    """The pixels of a data set, wherever they are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    @property
    def device(self) -> torch.device:
        """The device of the pixels. The rows that are asked for must be on it."""

    def read(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each [B] int64 of rows their [B, C, H, W] uint8."""

    def to(self, device: torch.device) -> None:
        """Move the pixels to a device, if that is better than moving batches."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, for work of microseconds per image.

    A second thread makes it faster by a third if a core is free. If none is, each operation waits
    until the scheduler runs that thread: then it has a tenth of the speed (benchmarks/README.md).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # both calls together take 0.4 us
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class InMemory:
    """Pixels as one tensor, which may be a view of a file.

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
        """Move the pixels to a CUDA GPU if they take less than half of its free memory.

        The other half is for the network.
        """
        if device.type == "cuda" and self.pixels.device != device:
            free, _ = torch.cuda.mem_get_info(device)
            if self.pixels.nbytes < free / 2:
                self.pixels = self.pixels.to(device)


@dataclass
class Images:
    """A whole data set.

    Attributes:
        pixels: [N, C, H, W] uint8, C is 1 or 3. A tensor, or another source.
        labels: [N] int64 in 0 .. number of classes - 1.
        classes: their names.
        parts: {"train" | "valid" | "test": [n] int64, the rows of this part}. Empty: the same share
            of each class is held out.
        suits: the augmentation if the user chooses none. None: a crop by an eighth of the side.
        statistics_from: the mean and the std are those of at most so many training images, evenly
            spaced.
        on_white: whether images with transparency were laid on white.
        contents: the files of the set. None: one entry per part is computed from pixels in memory.
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
        pixels = self.pixels
        self.source: Source = InMemory(pixels) if isinstance(pixels, Tensor) else pixels
        self.parts = self.parts or split(self.labels, SPLIT_SEED)
        self.suits = self.suits or Augmentation(crop=self.source.shape[-1] // 8)
        for part in PARTS:
            if len(self.parts[part]) == 0:
                raise DataError(
                    f"no image is left for the {part} set: {len(self.labels):,} images in "
                    f"{len(self.classes)} classes are too few to hold some out."
                )

    def known_contents(self) -> Contents:
        """Names, sizes and checksums, to find out later if the set has changed.

        Empty if they are not known and all files would have to be read.
        """
        if self.contents is None and isinstance(self.source, InMemory):
            self.contents = {}
            for part in PARTS:
                self.contents[part] = [part, len(self.parts[part]), self._checksum(part)]
        return self.contents or {}

    def _checksum(self, part: str) -> str:
        """The CRC-32 of the labels and pixels of a part."""
        rows = self.parts[part]
        checksum = zlib.crc32(self.labels[rows].numpy().data)
        # in pieces, so that a view of a file is not copied into memory as a whole
        for pixels in self.source.read(rows.split(1024)):
            checksum = zlib.crc32(pixels.cpu().numpy().data, checksum)
        return f"{checksum:08x}"

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and std of the training set's pixels, by channel: two [C] float32 in 0 .. 255.

        They are computed from sums of integers. These are exact, so the order and the size of the
        pieces cannot change a bit.
        """
        rows = self.parts["train"]
        rows = rows[:: max(1, math.ceil(len(rows) / self.statistics_from))]
        channels, height, width = self.source.shape[1:]
        total = torch.zeros(channels, dtype=torch.int64)
        squares = torch.zeros(channels, dtype=torch.int64)
        for pixels in self.source.read(rows.split(128)):
            total += pixels.sum((0, 2, 3), dtype=torch.int64)
            squares += pixels.int().square_().sum((0, 2, 3), dtype=torch.int64)
        count = len(rows) * height * width
        means, stds = [], []
        for one, square in zip(total.tolist(), squares.tolist()):
            # Python's integers have no limit, so only the division rounds.
            variance = (count * square - one * one) / (count * (count - 1))
            means.append(one / count)
            stds.append(max(math.sqrt(variance), 1.0))  # a channel of one colour has no spread
        return torch.tensor(means), torch.tensor(stds)


def split(
    labels: Tensor, seed: int, valid: float = 1 / 6, test: float = 1 / 6
) -> dict[str, Tensor]:
    """A fixed split with the same share of each class in every part.

    Returns:
        {part: [n] int64, the rows of the part in rising order}.
    """
    parts: dict[str, list[Tensor]] = {"train": [], "valid": [], "test": []}
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        members = members[permutation(len(members), "split", seed, label)]
        num_valid, num_test = round(len(members) * valid), round(len(members) * test)
        rest = len(members) - num_valid - num_test
        pieces = members.split([num_valid, num_test, rest])
        for part, rows in zip(("valid", "test", "train"), pieces):
            parts[part].append(rows)
    return {part: torch.cat(chosen).sort().values for part, chosen in parts.items()}


def thinned(rows: Tensor, labels: Tensor, share: float) -> Tensor:
    """About the same share of each class, at least one of each. A smaller share is part of a larger.

    Args:
        rows: [n] int64, of one part.
        labels: [N] int64, of the whole set.
        share: 0 .. 1.

    Returns:
        [m] int64: some of the rows, in their order.
    """
    if share == 1:
        return rows
    chosen = []
    for label in labels[rows].unique().tolist():
        members = rows[labels[rows] == label]
        count = max(1, round(share * len(members)))
        chosen.append(members[permutation(len(members), "share", SPLIT_SEED, label)[:count]])
    return torch.cat(chosen).sort().values
