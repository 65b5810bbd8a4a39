"""One split of a data set in batches: the order of an epoch, each rank's share, normalised images.

`basic/`, the engine's loaders and notebooks all iterate over `Batches.epoch(...)`. It has no state:
the batches from any place of any epoch are a function of (seed, epoch, place).
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

    The split is cut into the fewest batches of at most `batch_size` samples. Their sizes differ by
    one at most, and no sample is left out. `check` finds out if a network can be trained on them.

    Args:
        source: of the pixels, [N, C, H, W] uint8, C is 1 or 3.
        rows: [n] int64, the rows of the source that belong to this split.
        labels: [n] int64 in 0 .. number of classes - 1.
        batch_size: samples over all ranks.
        mean, std: [C] float32 of the training set, in the units of the pixels (0 .. 255).
        seed: of the order.
        shuffle: whether each epoch has a new order. Else it is the order of `rows`.
        augmentation: changes each image. None: images stay as they are.
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
        # [C, 1, 1] broadcasts over images [B, C, H, W]
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.seed, self.shuffle, self.augmentation = seed, shuffle, augmentation
        self.device = self.made_on = torch.device("cpu")

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        # the minus signs make the division round up
        return -(-self.num_samples // self.batch_size)

    def bounds(self, batch: int) -> tuple[int, int]:
        """The first place of a batch in the epoch's order, and the first place after it."""
        return self.num_samples * batch // len(self), self.num_samples * (batch + 1) // len(self)

    def size_of(self, batch: int) -> int:
        """The number of samples in a batch, over all ranks."""
        first, last = self.bounds(batch)
        return last - first

    def check(self, network: nn.Module, ranks: int = 1, batches: int | None = None) -> None:
        """Check that `network` can be trained on these batches.

        Batch norm needs two values per channel, so two samples if it sees one pixel of each.

        Args:
            network: from images to anything. It is not changed.
            ranks: the number of ranks that share each batch.
            batches: the number of batches that are used of an epoch. None: all.

        Raises:
            DataError: a rank gets no sample of some batch, or only one where two are needed.
        """
        used = len(self) if batches is None else min(batches, len(self))
        share = min(map(self.size_of, range(used)), default=2 * ranks) // ranks
        if share > 1:
            return
        if share == 1 and _learns_from_one(network, self.batch(torch.tensor([0]))[0]):
            return
        what = "one sample" if share else "no sample"
        if ranks > 1:
            what += f" for one of {ranks} ranks"
        if share:
            what += ", and this network's batch norm needs two"
        raise DataError(
            f"data.batch_size={self.batch_size}: {self.num_samples:,} training samples "
            f"are cut into batches with {what}: {self._advice(ranks)}."
        )

    def _advice(self, ranks: int) -> str:
        """The next batch size with which each rank gets two samples of each batch."""
        for size in range(self.batch_size + 1, self.num_samples + 1):
            batches = -(-self.num_samples // size)
            if self.num_samples // batches >= 2 * ranks:
                return f"take data.batch_size={size} or more"
        if ranks > 1:
            return f"take more samples, or fewer ranks than {ranks}"
        return "take more samples"

    def to(self, device: torch.device | str) -> "Batches":
        """From now on, give batches on this device.

        On a CUDA GPU they are made there, and the whole set is moved there if it has room. For any
        other device they are made on the CPU and moved: 64-bit draws were never tried on MPS.
        """
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.made_on = self.device if self.device.type == "cuda" else torch.device("cpu")
        self.source.to(self.made_on)
        self.mean, self.std = self.mean.to(self.made_on), self.std.to(self.made_on)
        self.labels = self.labels.to(self.made_on)
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
        """The batches of an epoch: (images [B, 3, H, W] float32, labels [B] int64).

        The images have mean 0 and variance 1 over the training set. With several ranks, each gets
        its share of every batch: `batch_size` is that of all ranks together.

        Args:
            start: the first batch.

        Raises:
            DataError: an image cannot be read any more.
        """
        # No `one_thread` around a `yield`: the caller's training step would run in one thread.
        with one_thread():
            order = self._order(epoch).to(self.source.device)
            draws = self._draws(order, epoch)
        rows = self.rows.to(self.source.device)
        shares = []
        for batch in range(start, len(self)):
            first, last = self.bounds(batch)
            shares.append(slice(first + rank, last, world_size))
        pixels = self.source.read(rows[order[share]] for share in shares)
        for share, raw in zip(shares, pixels):
            with one_thread():
                own_draws = {name: values[share] for name, values in draws.items()}
                finished = self._finished(raw, order[share], own_draws)
            yield finished

    def batch(self, samples: Tensor, epoch: int = 0) -> Batch:
        """These samples ([B] int64) as a batch, with the draws that they have in this epoch."""
        samples = samples.to(self.source.device)
        rows = self.rows.to(self.source.device)[samples]
        pixels = next(iter(self.source.read([rows])))
        return self._finished(pixels, samples, self._draws(samples, epoch))

    def examples(self, count: int) -> Tensor:
        """At most so many images, evenly spaced and without augmentation: [n, 3, H, W] float32."""
        plain = copy.copy(self)
        plain.augmentation = None
        count = min(count, self.num_samples)
        return plain.batch(torch.arange(count) * self.num_samples // count)[0]

    def _order(self, epoch: int) -> Tensor:
        if self.shuffle:
            return permutation(self.num_samples, "order", self.seed, epoch)
        return torch.arange(self.num_samples)

    def _draws(self, samples: Tensor, epoch: int) -> Draws:
        """The draws of the augmentation. `epoch` asks for all at once: each call costs time."""
        if self.augmentation is None:
            return {}
        return self.augmentation.draw(samples, epoch, *self.source.shape[2:])

    def _finished(self, pixels: Tensor, samples: Tensor, draws: Draws) -> Batch:
        """Augmented and normalised images with their labels, on the device of the batches."""
        pixels, samples = pixels.to(self.made_on), samples.to(self.made_on)
        draws = {name: values.to(self.made_on) for name, values in draws.items()}
        if self.augmentation is not None:
            pixels = self.augmentation.moved(pixels, draws)
        images = self.normalised(pixels)
        if self.augmentation is not None:
            images = self.augmentation.erased(images, draws)
        # networks take 3 channels, so a grey image is repeated
        images = images.expand(-1, 3, -1, -1).contiguous()
        return images.to(self.device), self.labels[samples].to(self.device)

    def normalised(self, pixels: Tensor) -> Tensor:
        """[B, C, H, W] uint8 as float32 with mean 0 and variance 1 over the training set."""
        return pixels.float().sub_(self.mean).div_(self.std)


def _learns_from_one(network: nn.Module, image: Tensor) -> bool:
    """Whether a copy of the network takes a single image in training.

    Batch norm does not, if it sees one pixel per channel.
    """
    try:
        # dropout draws random numbers, and a check must not change those of the run
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(network).train()(image)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True
