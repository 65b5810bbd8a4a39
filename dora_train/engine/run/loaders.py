"""Our batches as loaders for Lightning. Each loader gives this rank its share of every batch.

A training loader asks for its place in the epoch when its first batch is asked for. By then
Lightning has restored its counters from the checkpoint. exact_loader.py makes such batches of the
data that a user gives.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset

from ..upstream.lightning import position
from .ranks import Ranks

# Added to the number of an epoch for each time that a loader is read again within it, so that its
# order and its draws are others. No run has so many epochs.
ROUND = 10**6


class EpochBatches(Protocol):
    """Gives the batches of any epoch, from any place on: see `dora_train.data.Batches`.

    It may also have a length, and `sizes` or `size_of(batch)` for the samples of a batch.
    """

    def epoch(self, epoch: int, start: int, rank: int, world_size: int, /) -> Iterator[Any]:
        """Give this rank's share of each batch, from batch `start` on."""


class Loader:
    """The batches of a split, of which this rank gets its share.

    Args:
        repeats: whether it is read again when it has ended, beside a longer loader.
    """

    def __init__(self, batches: EpochBatches, ranks: Ranks, repeats: bool = False):
        self.batches, self.ranks, self.repeats = batches, ranks, repeats

    def __len__(self) -> int:
        """Return the batches of an epoch.

        Raises:
            TypeError: the number is not known.
        """
        return len(self.batches)  # type: ignore[arg-type]

    def share(self, batch: int) -> tuple[int, int] | None:
        """Return (samples of this rank, samples of all ranks) of a batch that was given.

        None if the numbers are not known.
        """
        length = self.length()
        if self.repeats and length:
            batch %= length
        if hasattr(self.batches, "sizes"):
            return self.batches.sizes.get(batch)
        if not hasattr(self.batches, "size_of"):
            return None
        total = self.batches.size_of(batch)
        return len(range(self.ranks.rank, total, self.ranks.world_size)), total

    def length(self) -> int | None:
        """Return the batches of an epoch. None if their number is not known."""
        try:
            return len(self)
        except (TypeError, NotImplementedError):
            return None

    def _epoch(self, epoch: int, start: int) -> Iterator[Any]:
        yield from self.batches.epoch(epoch, start, self.ranks.rank, self.ranks.world_size)


class TrainLoader(Loader):
    """The training batches of the trainer's epoch, from its next batch on.

    Args:
        overfits: every epoch has the batches of the first one.
        repeats: see `Loader`.
    """

    def __init__(
        self,
        batches: EpochBatches,
        ranks: Ranks,
        trainer: Trainer,
        overfits: bool = False,
        repeats: bool = False,
    ):
        super().__init__(batches, ranks, repeats)
        self.trainer, self.overfits = trainer, overfits
        self._read = -1  # the epoch that was read last
        self._round = 0  # how often it was read in this epoch before

    # A generator reads the position when its first batch is asked for, not when it is made.
    def __iter__(self) -> Iterator[Any]:
        epoch, start = position(self.trainer)
        if self.repeats:
            start = self._start_of_round(epoch, start)
        if self.overfits:
            epoch = 0
        yield from self._epoch(epoch + self._round * ROUND, start)

    def _start_of_round(self, epoch: int, start: int) -> int:
        """Note how often the loader was read in this epoch before, and return its next batch.

        Args:
            start: the next batch of the trainer's epoch, which the longest loader defines.
        """
        is_again, self._read = epoch == self._read, epoch
        if is_again:
            self._round += 1
            return 0
        self._round = 0
        length = self.length()
        if length and start < self.trainer.num_training_batches:
            self._round, start = divmod(start, length)
        return start


class EvalLoader(Loader):
    """The batches of a validation or test set. Each sample goes to exactly one rank."""

    def __iter__(self) -> Iterator[Any]:
        yield from self._epoch(0, 0)


def can_resume_within(loaders: Iterable[object]) -> bool:
    """Whether a resume within an epoch finds the place of each of these training loaders.

    If one is read again beside a longer one, each must have a length: else nobody knows how often
    it was read.
    """
    lengths = []
    for one in loaders:
        if isinstance(one, Loader) and one.repeats:
            lengths.append(one.length())
    return len(lengths) < 2 or None not in lengths


def each_loader(loaders: object, make: Callable[[object, int], object]) -> object:
    """Return `make(loader, number)` of a loader, or of each in a list, dict or CombinedLoader.

    A list that holds anything but loaders is itself one loader: a list of batches.
    """
    # In place: it also holds in which turns its loaders are read.
    if isinstance(loaders, CombinedLoader):
        loaders.flattened = [make(one, at) for at, one in enumerate(loaders.flattened)]
        return loaders
    if isinstance(loaders, dict):
        return {name: make(one, at) for at, (name, one) in enumerate(loaders.items())}
    if isinstance(loaders, (list, tuple)) and all(map(_is_loader, loaders)):
        return [make(one, at) for at, one in enumerate(loaders)]
    return make(loaders, 0)


def _is_loader(source: object) -> bool:
    is_ours = callable(getattr(source, "epoch", None))
    return is_ours or isinstance(source, (DataLoader, Dataset, Loader))


def share_of(loaders: object, loader: int, batch: int) -> tuple[int, int] | None:
    """Return (samples of this rank, samples of all ranks) of a batch, or None if not known.

    Args:
        loaders: as the trainer has them: a loader, or several of them.
        loader: the number of the loader.
        batch: the number of the batch.
    """
    several = _several(loaders)
    if loader >= len(several):
        return None
    found = several[loader]
    return found.share(batch) if isinstance(found, Loader) else None


def _several(loaders: object) -> list[object]:
    if isinstance(loaders, CombinedLoader):
        return list(loaders.flattened)
    if isinstance(loaders, dict):
        return list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return list(loaders)
    return [loaders]


def num_samples(batch: object) -> int:
    """Return the samples of a batch whose loader does not know them.

    That is the length of the first tensor in its lists, tuples, mappings and dataclasses. It is 1
    if there is no tensor, or if the first one is a scalar.
    """
    first = next(_tensors(batch), None)
    if first is None or not first.ndim:
        return 1
    return int(first.shape[0])


def _tensors(batch: object) -> Iterator[Any]:
    """Give the tensors and arrays of a batch, in their order."""
    if hasattr(batch, "shape") and hasattr(batch, "ndim"):
        yield batch
        return
    for part in _parts(batch):
        yield from _tensors(part)


def _parts(batch: object) -> Iterator[object]:
    if isinstance(batch, Mapping):
        yield from batch.values()
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        yield from (getattr(batch, field.name) for field in dataclasses.fields(batch))
    elif isinstance(batch, Iterable) and not isinstance(batch, (str, bytes)):
        yield from batch
