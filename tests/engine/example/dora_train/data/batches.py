"""One split of a data set, batch by batch: the order of an epoch, each rank's share, pixels to
normalised images.

`basic/`, the engine's loaders and notebooks all iterate over `Batches.epoch(...)`. There is no
state in it: the batches from any place of any epoch are a function of (seed, epoch, place).
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..counters import permutation
from ..data_error import DataError
from .augment import Augmentation, Draws
from .images import Source, one_thread

Batch = tuple[Tensor, Tensor]


class Batches:
    """One split of a data set.

    The set is cut into the fewest batches of at most `batch_size` samples, all of equal size (give
    or take one): no sample is left out. `check` says whether a network can be trained on them.

    Args:
        source: of the pixels, [N, C, H, W] uint8, C is 1 or 3.
        rows: [n] int64, which of the N are this split's.
        labels: [n] int64 in 0 .. number of classes - 1.
        batch_size: samples over all ranks.
        mean, std: [C] float32 of the training set, in the units of the pixels (0 .. 255).
        seed: of the order.
        shuffle: a new order each epoch, or the order of the set.
        augmentation: what is done to each image; nothing without one.
    """

    def __init__(
        self,
        source: Source,
        rows: Tensor,
        labels: Tensor,
        batch_size: int,
        mean: Tensor,
        std: Tensor,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augmentation: Augmentation | None = None,
    ):
        self.source, self.rows, self.labels, self.batch_size = source, rows, labels, batch_size
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.seed, self.shuffle, self.augmentation = seed, shuffle, augmentation
        self.device = self.made_on = torch.device("cpu")

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

    def check(self, network: nn.Module, ranks: int = 1, batches: int | None = None) -> None:
        """Whether `network` can be trained on these batches: batch norm needs two values a channel.

        Args:
            network: from images to anything; it stays as it is.
            ranks: that share each batch.
            batches: that are used of an epoch; None: all.

        Raises:
            DataError: of some batch, a rank gets no sample, or one that is too few.
        """
        used = range(len(self) if batches is None else min(batches, len(self)))
        share = min((self.size_of(batch) for batch in used), default=2 * ranks) // ranks
        if share > 1 or (
            share == 1 and _learns_from_one(network, self.batch(torch.tensor([0]))[0])
        ):
            return
        what = "one sample" if share else "no sample"
        what += f" for one of {ranks} ranks" if ranks > 1 else ""
        what += ", and this network's batch norm needs two" if share else ""
        raise DataError(
            f"data.batch_size={self.batch_size}: {self.num_samples:,} training samples "
            f"are cut into batches with {what}: {self._advice(ranks)}."
        )

    def _advice(self, ranks: int) -> str:
        """The next batch size that gives each rank two samples of each batch."""
        for size in range(self.batch_size + 1, self.num_samples + 1):
            if self.num_samples // -(-self.num_samples // size) >= 2 * ranks:
                return f"take data.batch_size={size} or more"
        return "take more samples" + (f", or fewer ranks than {ranks}" if ranks > 1 else "")

    def to(self, device: torch.device | str) -> "Batches":
        """From here on batches come on this device; on a CUDA GPU with room, the whole set lies
        there.

        For any other device they are made on the CPU and moved: nobody tried 64-bit draws on MPS.
        """
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.made_on = self.device if self.device.type == "cuda" else torch.device("cpu")
        self.source.to(self.made_on)
        self.mean, self.std, self.labels = (
            x.to(self.made_on) for x in (self.mean, self.std, self.labels)
        )
        return self

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "Batches":
        """The same batches with another mean and std, one number per channel."""
        other = copy.copy(self)
        other.mean = torch.tensor(mean).view(-1, 1, 1).to(self.made_on)
        other.std = torch.tensor(std).view(-1, 1, 1).to(self.made_on)
        return other

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """The batches of an epoch from batch `start` on: (images [B, 3, H, W] float32, labels [B]
        int64).

        The images have mean 0 and variance 1 over the training set. With several ranks each gets
        its share of every batch: `batch_size` is that of all ranks together.

        Raises:
            DataError: an image cannot be read any more.
        """
        with one_thread():
            order = self._order(epoch).to(self.source.device)
            draws = self._draws(order, epoch)
        rows = self.rows.to(self.source.device)
        shares = [
            slice(first + rank, last, world_size)
            for first, last in map(self.bounds, range(start, len(self)))
        ]
        pixels = self.source.read(rows[order[share]] for share in shares)
        for share, raw in zip(shares, pixels):
            with one_thread():
                batch = self._finished(
                    raw, order[share], {name: values[share] for name, values in draws.items()}
                )
            yield batch

    def batch(self, samples: Tensor, epoch: int = 0) -> Batch:
        """These samples ([B] int64) as a batch, with the draws that they have in this epoch."""
        samples = samples.to(self.source.device)
        rows = self.rows.to(self.source.device)[samples]
        return self._finished(
            next(iter(self.source.read([rows]))), samples, self._draws(samples, epoch)
        )

    def _order(self, epoch: int) -> Tensor:
        if self.shuffle:
            return permutation(self.num_samples, "order", self.seed, epoch)
        return torch.arange(self.num_samples)

    def _draws(self, samples: Tensor, epoch: int) -> Draws:
        """For a whole epoch at once: a batch at a time, the calls would cost more than the
        numbers."""
        if self.augmentation is None:
            return {}
        return self.augmentation.draw(samples, epoch, *self.source.shape[2:])

    def _finished(self, pixels: Tensor, samples: Tensor, draws: Draws) -> Batch:
        pixels, samples = pixels.to(self.made_on), samples.to(self.made_on)
        draws = {name: values.to(self.made_on) for name, values in draws.items()}
        if self.augmentation is not None:
            pixels = self.augmentation.moved(pixels, draws)
        images = self.normalised(pixels)
        if self.augmentation is not None:
            images = self.augmentation.erased(images, draws)
        images = images.expand(-1, 3, -1, -1).contiguous()
        return images.to(self.device), self.labels[samples].to(self.device)

    def normalised(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W] uint8 as float32 with mean 0 and variance 1 over the training set."""
        return pixels.float().sub_(self.mean).div_(self.std)


def _learns_from_one(network: nn.Module, image: Tensor) -> bool:
    """Whether a copy of the network takes a single image in training.

    Batch norm does not, where it sees one pixel a channel.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(network).train()(image)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True
