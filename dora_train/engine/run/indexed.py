"""DataLoaders of data sets whose samples have a number, made exact.

The order of an epoch comes from the user's sampler under seeded generators. Each sample is then
read under a seed of its own. So a resume begins at any batch, without reading those before it.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
)

from .draws import Draws, continued, kept_in_training
from .workers import refuse_ranks, sent_to_workers, settings_of


class Request(NamedTuple):
    """The share of one batch that one rank asks its workers for."""

    epoch: int
    batch: int
    places: Sequence[int]  # of the samples within the batch of all ranks
    keys: Sequence[Any]  # by which the data set is indexed


class SeededDataset(Dataset):
    """Reads each sample of `dataset` under generators seeded by (seed, epoch, batch, place).

    So the worker and the rank that read a sample do not matter. The place is counted, not only the
    sample: if a sampler draws a sample twice in an epoch, it is augmented in two ways.
    """

    def __init__(self, dataset: Dataset, draws: Draws):
        self.dataset, self.draws = dataset, draws

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitems__(self, request: Request) -> Any:
        with kept_in_training():
            return self._read(request)

    def _read(self, request: Request) -> Any:
        # Such a data set reads a whole batch at once, so one seed must do for all its samples.
        if hasattr(self.dataset, "__getitems__"):
            self.draws.start(request.epoch, request.batch, request.places[0])
            return self.dataset.__getitems__(list(request.keys))
        samples = []
        for place, key in zip(request.places, request.keys):
            self.draws.start(request.epoch, request.batch, place)
            samples.append(self.dataset[key])
        return samples


class Requests:
    """The batch sampler of one rank: its share of each batch that the user's sampler gives.

    Attributes:
        sizes: {batch: (samples of this rank, samples of all ranks)} of the batches asked for.
    """

    def __init__(self, loader: DataLoader, draws: Draws):
        self.loader, self.draws = loader, draws
        self.sizes: dict[int, tuple[int, int]] = {}
        self.epoch = self.start = self.rank = 0
        self.world_size = 1

    def __iter__(self) -> Iterator[Request]:
        batches = orders(self.loader, self.draws, self.epoch, self.start)
        for number, keys in enumerate(batches, self.start):
            places = range(self.rank, len(keys), self.world_size)
            self.sizes[number] = len(places), len(keys)
            # A rank without a sample takes one that does not count: all ranks must do each step.
            taken = places or range(1)
            yield Request(self.epoch, number, taken, [keys[place] for place in taken])


def orders(loader: DataLoader, draws: Draws, epoch: int, start: int) -> Iterator[Sequence[Any]]:
    """Give the keys of each batch of an epoch, from batch `start` on."""
    # Without a batch sampler, each item of the data set is a batch already.
    if loader.batch_sampler is None:
        keys = _fresh(loader.sampler, loader, draws, epoch)
        return itertools.islice(([key] for key in keys), start, None)
    if _is_plain(loader):
        return _plain_order(loader, draws, epoch, start)
    sampler = _fresh(loader.batch_sampler, loader, draws, epoch)
    return itertools.islice(sampler, start, None)


def _is_plain(loader: DataLoader) -> bool:
    """Whether the order is that of `shuffle=True` or `shuffle=False`, and nothing else."""
    # Exact types: a subclass may give any order.
    if type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.batch_sampler.sampler
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) in (SequentialSampler, DistributedSampler)


def _plain_order(
    loader: DataLoader, draws: Draws, epoch: int, start: int
) -> Iterator[Sequence[int]]:
    """Give the same as `orders`, without torch's list of all samples.

    10 million samples need 80 MB here, and 400 MB as a list. A DistributedSampler's share is not
    taken: the ranks divide each batch among themselves.
    """
    batches: Any = loader.batch_sampler
    sampler = batches.sampler
    if type(sampler) is DistributedSampler:
        number, shuffles = len(sampler.dataset), sampler.shuffle  # type: ignore[arg-type]
    else:
        number, shuffles = len(sampler.data_source), type(sampler) is RandomSampler
    size = batches.batch_size
    order = None
    if shuffles:
        with draws.apart(epoch):
            order = torch.randperm(number)
    end = number
    if batches.drop_last:
        end = number // size * size
    for first in range(start * size, end, size):
        last = min(first + size, end)
        if order is None:
            yield range(first, last)
        else:
            yield order[first:last].tolist()


def _fresh(sampler: Iterable[Any], loader: DataLoader, draws: Draws, epoch: int) -> Iterator[Any]:
    """Give the items of a sampler in this epoch. They do not depend on earlier epochs."""
    parts: list[object] = [loader, sampler, getattr(sampler, "sampler", None)]
    for number, part in enumerate(parts):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            with draws.apart(epoch, number):
                generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
    # Some samplers draw when they are asked for an iterator, others when they are asked for items.
    with draws.apart(epoch):
        iterator = iter(sampler)
    return continued(iterator, draws, epoch)


class IndexedBatches:
    """The batches of a DataLoader of a map-style data set.

    Args:
        draws: for the samples.
        order: for the order of an epoch.
    """

    def __init__(self, loader: DataLoader, draws: Draws, order: Draws):
        self.loader = loader
        self.requests = Requests(loader, order)
        self._draws = draws
        self._inner = DataLoader(
            SeededDataset(loader.dataset, draws),
            batch_sampler=self.requests,  # type: ignore[arg-type]
            **settings_of(loader, loader.persistent_workers),
        )

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """{batch: (samples of this rank, samples of all ranks)}, empty if a sample is a batch."""
        return {} if self.loader.batch_sampler is None else self.requests.sizes

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        """Give this rank's share of each batch of an epoch, from batch `start` on.

        Raises:
            UserError: several ranks would have to share batches that cannot be divided.
        """
        if self.loader.batch_sampler is None:
            refuse_ranks(world_size, "a DataLoader with batch_size=None")
        requests = self.requests
        requests.epoch, requests.start = epoch, start
        requests.rank, requests.world_size = rank, world_size
        requests.sizes = {}  # of the batches of another epoch
        # torch draws the seeds of the workers here.
        with self._draws.apart(epoch), sent_to_workers(self.loader):
            batches = iter(self._inner)
        yield from batches
