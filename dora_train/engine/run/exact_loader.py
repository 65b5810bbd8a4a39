"""Loaders of torch, and other iterables, made exact from outside.

Each kind of source becomes an object with `epoch(epoch, start, rank, world_size)`, as
`dora_train.data.Batches` has it: the batches from any place of any epoch depend on nothing but
(seed, epoch, place). The source itself is not changed. given.py calls `batches_from`.

What is random in a source draws from the global generators of torch, numpy and Python. They are
seeded by counters before each draw, and the states that the process had are restored behind it. A
generator that a source keeps for itself is out of reach.
"""

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    get_worker_info,
)

from ..errors import UserError

SLOW = 5.0  # seconds of skipping after which one line says so

Seed = Callable[..., Any]  # (purpose, *counters): see counters.seed_cpu


class Draws:
    """Seeds the global generators by counters, and can restore them afterwards."""

    def __init__(self, seed_cpu: Seed, purpose: str, seed: int):
        self.seed_cpu, self.purpose, self.seed = seed_cpu, purpose, seed

    def start(self, *counters: int) -> None:
        """Seed the generators for the draws at these counters."""
        self.seed_cpu(self.purpose, self.seed, *counters)

    @contextlib.contextmanager
    def apart(self, *counters: int) -> Iterator[None]:
        """The same within a block; afterwards the generators are as they were before it."""
        with kept_generators():
            self.start(*counters)
            yield


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Whatever a block draws, the generators of the process are afterwards as they were."""
    python, arrays, tensors = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
        torch.set_rng_state(tensors)


def continued(iterator: Iterator[Any], draws: Draws, *counters: int) -> Iterator[Any]:
    """What `iterator` gives, if its draws come one after the other from one start.

    Between two items the process draws numbers of its own, so both states are exchanged.
    """
    with draws.apart(*counters):
        states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    while True:
        with kept_generators():
            random.setstate(states[0])
            numpy.random.set_state(states[1])
            torch.set_rng_state(states[2])
            try:
                item = next(iterator)
            except StopIteration:
                return
            states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
        yield item


# --- data sets whose samples have a number: asked by an order, read under a seed a sample ---


class Request(NamedTuple):
    """One batch of one rank, as the workers are asked for it."""

    epoch: int
    batch: int
    places: Sequence[int]  # of the samples within the batch of all ranks
    keys: Sequence[Any]  # what the data set is indexed by


class SeededDataset(Dataset):
    """Reads each sample of `dataset` under generators seeded by (seed, epoch, batch, place).

    So it does not matter which worker reads it, or which rank. The place is counted as well as the
    sample: one that a sampler draws twice in an epoch is augmented in two ways.
    """

    def __init__(self, dataset: Any, draws: Draws):
        self.dataset, self.draws = dataset, draws

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, request: Request) -> Any:
        if get_worker_info() is not None:
            return self._read(request)
        with kept_generators():  # without workers this is the process that trains
            return self._read(request)

    def _read(self, request: Request) -> Any:
        if hasattr(self.dataset, "__getitems__"):  # it reads the whole batch at once
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
        sizes: {batch: (samples of this rank, samples of all ranks)}, of the batches asked for.
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
    """The keys of each batch of an epoch, from batch `start` on."""
    if loader.batch_sampler is None:  # each item of the data set is a batch already
        sampler: Iterable[Any] = ([key] for key in _fresh(loader.sampler, loader, draws, epoch))
        return itertools.islice(sampler, start, None)
    if _is_plain(loader):
        return _plain_order(loader, draws, epoch, start)
    sampler = _fresh(loader.batch_sampler, loader, draws, epoch)
    return itertools.islice(sampler, start, None)


def _is_plain(loader: DataLoader) -> bool:
    """Whether its order is that of `shuffle=True` or `shuffle=False`, and nothing else."""
    if type(loader.batch_sampler) is not BatchSampler:
        return False
    sampler = loader.batch_sampler.sampler
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) in (SequentialSampler, DistributedSampler)


def _plain_order(
    loader: DataLoader, draws: Draws, epoch: int, start: int
) -> Iterator[Sequence[int]]:
    """The same without torch's list of all samples: 10 million are 80 MB here, not 400.

    A DistributedSampler's share is not taken: the ranks divide each batch among themselves.
    """
    batches: Any = loader.batch_sampler
    sampler = batches.sampler
    is_distributed = type(sampler) is DistributedSampler
    shuffles = sampler.shuffle if is_distributed else type(sampler) is RandomSampler
    number = len(sampler.dataset) if is_distributed else len(sampler.data_source)
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


def _fresh(sampler: Any, loader: DataLoader, draws: Draws, epoch: int) -> Iterator[Any]:
    """What a sampler gives in this epoch, whatever it gave before."""
    inner = getattr(sampler, "sampler", None)
    for number, part in enumerate((loader, sampler, inner)):
        if isinstance(getattr(part, "generator", None), torch.Generator):
            with draws.apart(epoch, number):
                part.generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
    with draws.apart(epoch):
        iterator = iter(sampler)
    return continued(iterator, draws, epoch)


class IndexedBatches:
    """A DataLoader of a map-style data set."""

    def __init__(self, loader: DataLoader, draws: Draws, order: Draws):
        self.loader = loader
        self.requests = Requests(loader, order)
        self._workers = draws
        self._inner = DataLoader(
            SeededDataset(loader.dataset, draws),
            batch_sampler=self.requests,  # type: ignore[arg-type]
            **_settings(loader, loader.persistent_workers),
        )

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sizes(self) -> dict[int, tuple[int, int]]:
        """{batch: (samples of this rank, samples of all ranks)}; empty if a sample is a batch."""
        return {} if self.loader.batch_sampler is None else self.requests.sizes

    def epoch(
        self, epoch: int = 0, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Any]:
        if self.loader.batch_sampler is None:
            _refuse_ranks(world_size, "a DataLoader with batch_size=None")
        requests = self.requests
        requests.epoch, requests.start = epoch, start
        requests.rank, requests.world_size = rank, world_size
        requests.sizes = {}
        with self._workers.apart(epoch):  # the workers' own seeds come from a draw
            batches = iter(self._inner)
        yield from batches


# --- data sets that are read from their beginning ---


class Share(NamedTuple):
    samples: list[Any]
    of: int  # samples of the batch of all ranks
    counts: bool  # False: this rank had none of its own


class Shares(IterableDataset):
    """One rank's share of the batches of an IterableDataset, in whichever worker reads it."""

    def __init__(self, loader: DataLoader, draws: Draws):
        self.loader, self.draws = loader, draws
        self.epoch = self.rank = 0
        self.world_size = 1

    def __iter__(self) -> Iterator[Share]:
        size = self.loader.batch_size or 1
        samples = self._samples()
        while True:
            with self._generators():
                batch = list(itertools.islice(samples, size))
            if not batch or (len(batch) < size and self.loader.drop_last):
                return
            mine = batch[self.rank :: self.world_size]
            yield Share(mine or batch[:1], len(batch), bool(mine))

    def _samples(self) -> Iterator[Any]:
        """Each sample is read under a seed of its own: (seed, epoch, worker, its number)."""
        info = get_worker_info()
        worker = info.id if info else 0
        self.draws.start(self.epoch, worker, 0)
        iterator = iter(self.loader.dataset)
        for number in itertools.count(1):
            self.draws.start(self.epoch, worker, number)
            try:
                sample = next(iterator)
            except StopIteration:
                return
            yield sample

    def _generators(self) -> contextlib.AbstractContextManager:
        """Without workers, this process trains as well."""
        return contextlib.nullcontext() if get_worker_info() else kept_generators()


class Collate:
    """The user's collate function, on what `Shares` gives; picklable, since workers need it."""

    def __init__(self, collate: Callable[[Any], Any], by_batch: bool):
        self.collate, self.by_batch = collate, by_batch

    def __call__(self, share: Share) -> tuple[Any, int, int]:
        mine = len(share.samples) if share.counts else 0
        samples = share.samples if self.by_batch else share.samples[0]
        return self.collate(samples), mine, share.of


class StreamedBatches:
    """A DataLoader of an IterableDataset. A resume reads it from its beginning up to its place.

    With several ranks, each reads everything and keeps its share.
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
        if self.loader.batch_size is None:
            _refuse_ranks(world_size, "a DataLoader with batch_size=None")
        shares = self._shares
        shares.epoch, shares.rank, shares.world_size = epoch, rank, world_size
        settings = _settings(self.loader, False)  # a worker that stays would not hear of the epoch
        collate = Collate(settings.pop("collate_fn"), self.loader.batch_size is not None)
        inner: DataLoader = DataLoader(shares, batch_size=None, **settings, collate_fn=collate)  # type: ignore[arg-type]
        with self.draws.apart(epoch):
            batches = iter(inner)
        self.sizes = {}
        for number, (batch, mine, total) in _after(batches, start, self.say):
            if self.loader.batch_size is not None:
                self.sizes[number] = mine, total
            yield batch


class GivenBatches:
    """Any iterable of whole batches: a list, or a loader of another library."""

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
        _refuse_ranks(world_size, f"batches of a {type(self.source).__name__}")
        if isinstance(self.source, Sequence):
            yield from self.source[start:]
            return
        with self.draws.apart(epoch):
            iterator = iter(self.source)
        batches = continued(iterator, self.draws, epoch)
        for _, batch in _after(batches, start, self.say):
            yield batch


def _after(
    batches: Iterator[Any], start: int, say: Callable[[str], None]
) -> Iterator[tuple[int, Any]]:
    """(number, batch) from batch `start` on; those before it are read and dropped."""
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


def _refuse_ranks(world_size: int, what: str) -> None:
    if world_size > 1:
        raise UserError(
            f"{world_size} ranks cannot share {what}: nobody knows how to divide a batch.",
            "give a Dataset, or a DataLoader with a batch_size; or train on one rank",
        )


class WorkerStart:
    """Runs the user's `worker_init_fn`, which sees the user's own data set."""

    def __init__(self, dataset: Any, init: Callable[[int], None] | None):
        self.dataset, self.init = dataset, init

    def __call__(self, worker: int) -> None:
        # torch 2.14 forbids the plain assignment
        object.__setattr__(get_worker_info(), "dataset", self.dataset)
        if self.init:
            self.init(worker)


def _settings(loader: DataLoader, persistent: bool) -> dict[str, Any]:
    """How the user's loader reads: workers, memory, and how samples become a batch."""
    collate = loader.collate_fn
    if loader.batch_sampler is None and not isinstance(loader.dataset, IterableDataset):
        collate = First(collate)
    return {
        "collate_fn": collate,
        "num_workers": loader.num_workers,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": WorkerStart(loader.dataset, loader.worker_init_fn),
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": persistent,
    }


class First:
    """A collate function for a data set whose items are batches."""

    def __init__(self, collate: Callable[[Any], Any]):
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        return self.collate(items[0])


# --- any of them ---


def batches_from(
    source: Any,
    seed_cpu: Seed,
    seed: int,
    purpose: str,
    settings: Any,
    say: Callable[[str], None],
) -> Any:
    """Whatever a user gives as the data of a split, as an object with `epoch(...)`.

    Args:
        source: has `epoch(...)` already; or a DataLoader, a Dataset, an iterable of batches.
        purpose: "train", "valid" or "test".
        settings: of a Dataset that has no loader: `batch_size` and `num_workers`.
        say: told if a resume is slow.

    Raises:
        UserError: it is none of these.
    """
    if callable(getattr(source, "epoch", None)):  # many data sets have a number of that name
        return source
    draws = Draws(seed_cpu, f"{purpose} sample", seed)
    if isinstance(source, Dataset):
        source = _loader_of(source, purpose == "train", settings)
    if isinstance(source, DataLoader) and type(source).__iter__ is DataLoader.__iter__:
        if isinstance(source.dataset, IterableDataset):
            return StreamedBatches(source, draws, say)
        return IndexedBatches(source, draws, Draws(seed_cpu, f"{purpose} order", seed))
    if isinstance(source, Iterable):
        return GivenBatches(source, draws, say)
    raise UserError(
        f"the {purpose} data are a {type(source).__name__}: nothing that batches can be read from.",
        "give a Dataset, a DataLoader, or an iterable of batches",
    )


def _loader_of(dataset: Dataset, is_train: bool, settings: Any) -> DataLoader:
    shuffle = is_train and not isinstance(dataset, IterableDataset)
    return DataLoader(
        dataset,
        batch_size=settings.get("batch_size") or 1,
        shuffle=shuffle,
        num_workers=settings.get("num_workers") or 0,
    )
