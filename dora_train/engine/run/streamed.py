"""Batches that can only be read from their beginning, made exact.

They come from a DataLoader of an IterableDataset, or from any other iterable. A resume reads those
before its place again, and drops them.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..errors import UserError
from .draws import Draws, continued, kept_in_training
from .workers import refuse_ranks, sent_to_workers, settings_of

SLOW = 5.0  # seconds of skipping after which one line says so


class Share(NamedTuple):
    """One rank's share of a batch."""

    samples: list[Any]
    total: int  # samples of the batch of all ranks
    counts: bool  # False: this rank had no sample of its own


class Shares(IterableDataset):
    """One rank's share of the batches of an IterableDataset, in the worker that reads it."""

    def __init__(self, loader: DataLoader, draws: Draws):
        self.loader, self.draws = loader, draws
        self.epoch = self.rank = 0
        self.world_size = 1

    def __iter__(self) -> Iterator[Share]:
        size = self.loader.batch_size or 1
        samples = self._samples()
        while True:
            with kept_in_training():
                batch = list(itertools.islice(samples, size))
            if not batch or (len(batch) < size and self.loader.drop_last):
                return
            mine = batch[self.rank :: self.world_size]
            # A rank without a sample takes one that does not count: all ranks must do each step.
            yield Share(mine or batch[:1], len(batch), bool(mine))

    def _samples(self) -> Iterator[Any]:
        """Give the samples, each read under a seed of its own: (seed, epoch, worker, number)."""
        worker = getattr(get_worker_info(), "id", 0)
        # Some data sets draw when they are asked for an iterator, e.g. to shuffle their files.
        self.draws.start(self.epoch, worker, 0)
        iterator = iter(self.loader.dataset)
        for number in itertools.count(1):
            self.draws.start(self.epoch, worker, number)
            try:
                sample = next(iterator)
            except StopIteration:
                return
            yield sample


class CollateShare:
    """The user's collate function, for the shares that `Shares` gives.

    Args:
        by_batch: whether it takes a list of samples, or the one item that is a batch already.

    Returns:
        (batch, samples of this rank, samples of all ranks)
    """

    # A class and not a closure: workers that are spawned need to unpickle it.
    def __init__(self, collate: Callable[[Any], Any], by_batch: bool):
        self.collate, self.by_batch = collate, by_batch

    def __call__(self, share: Share) -> tuple[Any, int, int]:
        mine = len(share.samples) if share.counts else 0
        batch = self.collate(share.samples if self.by_batch else share.samples[0])
        return batch, mine, share.total


class StreamedBatches:
    """The batches of a DataLoader of an IterableDataset.

    With several ranks, each rank reads everything and keeps its share.

    Args:
        say: called with a line if a resume is slow.

    Attributes:
        sizes: {batch: (samples of this rank, samples of all ranks)} of the batches that were given.
    """

    def __init__(self, loader: DataLoader, draws: Draws, say: Callable[[str], None]):
        self.loader, self.draws, self.say = loader, draws, say
        self.sizes: dict[int, tuple[int, int]] = {}
        self._shares = Shares(loader, draws)

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """Give this rank's share of each batch of an epoch, from batch `start` on.

        Raises:
            UserError: several ranks would have to share batches that cannot be divided.
        """
        by_batch = self.loader.batch_size is not None
        if not by_batch:
            refuse_ranks(world_size, "a DataLoader with batch_size=None")
        shares = self._shares
        shares.epoch, shares.rank, shares.world_size = epoch, rank, world_size
        # A worker that stays would not learn of the new epoch.
        settings = settings_of(self.loader, persistent=False)
        settings["collate_fn"] = CollateShare(settings["collate_fn"], by_batch)
        inner: DataLoader = DataLoader(shares, batch_size=None, **settings)
        # torch draws the seeds of the workers here.
        with self.draws.apart(epoch), sent_to_workers(self.loader):
            batches = iter(inner)
        self.sizes = {}
        for number, (batch, mine, total) in _after(batches, start, self.say):
            if by_batch:
                self.sizes[number] = mine, total
            yield batch


class GivenBatches:
    """Any iterable of whole batches: a list, or a loader of another library.

    Args:
        say: called with a line if a resume is slow.

    Raises:
        UserError: the source can be read only once.
    """

    def __init__(self, source: Iterable[Any], draws: Draws, say: Callable[[str], None]):
        if iter(source) is source:
            raise UserError(
                f"the data are an iterator ({type(source).__name__}), which can be read once.",
                "give a list, a Dataset or a DataLoader, which each epoch can read anew",
            )
        self.source, self.draws, self.say = source, draws, say

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """Give each batch of an epoch, from batch `start` on.

        Raises:
            UserError: there are several ranks.
        """
        refuse_ranks(world_size, f"batches of a {type(self.source).__name__}")
        if isinstance(self.source, Sequence):
            yield from self.source[start:]
            return
        # Some iterables draw when they are asked for an iterator, e.g. to shuffle.
        with self.draws.apart(epoch):
            iterator = iter(self.source)
        batches = continued(iterator, self.draws, epoch)
        for _, batch in _after(batches, start, self.say):
            yield batch


def _after(
    batches: Iterator[Any], start: int, say: Callable[[str], None]
) -> Iterator[tuple[int, Any]]:
    """Give (number, batch) from batch `start` on. The batches before it are read and dropped."""
    began = time.monotonic()
    for _ in itertools.islice(batches, start):
        pass
    took = time.monotonic() - began
    if took > SLOW:
        say(
            f"read the {start} batches before this one again, which took {took:.0f} s: these data "
            "can only be read from their beginning"
        )
    yield from enumerate(batches, start)
