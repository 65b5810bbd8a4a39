"""Loaders of torch, and other iterables, made exact from outside.

Each kind of source becomes an object with `epoch(epoch, start, rank, world_size)`, as
`dora_train.data.Batches` has it. Its batches, from any place of any epoch, depend on nothing but
(seed, epoch, place). The source itself is not changed. given.py calls `batches_from`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..errors import UserError
from .draws import Draws, Seed
from .indexed import IndexedBatches
from .loaders import EpochBatches
from .streamed import GivenBatches, StreamedBatches


def batches_from(
    source: Any,
    seed_cpu: Seed,
    seed: int,
    purpose: str,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> EpochBatches:
    """Return the data of a split as an object with `epoch(...)`.

    Args:
        source: an object that has `epoch(...)`, a DataLoader, a Dataset, or an iterable of batches.
        seed_cpu: seeds the global generators of the CPU, see counters.seed_cpu.
        seed: the run's `seed`.
        purpose: "train", "valid" or "test". A second loader of the same split: "train 1".
        settings: `batch_size` and `num_workers`, for a Dataset that has no loader.
        say: called with a line if a resume is slow.

    Raises:
        UserError: the source is none of these.
    """
    # Callable, because many data sets have a number of that name.
    if callable(getattr(source, "epoch", None)):
        return source
    draws = Draws(seed_cpu, f"{purpose} sample", seed)
    if isinstance(source, Dataset):
        # the second of several training sets has the purpose "train 1"
        source = _loader_of(source, purpose.split()[0] == "train", settings)
    # A subclass with an `__iter__` of its own may give any batches: it is read as it is.
    if isinstance(source, DataLoader) and type(source).__iter__ is DataLoader.__iter__:
        if isinstance(source.dataset, IterableDataset):
            return StreamedBatches(source, draws, say)
        return IndexedBatches(source, draws, Draws(seed_cpu, f"{purpose} order", seed))
    if isinstance(source, Iterable):
        return GivenBatches(source, draws, say)
    raise UserError(
        f"the {purpose} data are a {type(source).__name__}, which gives no batches.",
        "give a Dataset, a DataLoader, or an iterable of batches",
    )


def _loader_of(dataset: Dataset, is_train: bool, settings: Mapping[str, Any]) -> DataLoader:
    # A stream has an order of its own, and DataLoader refuses to shuffle it.
    shuffle = is_train and not isinstance(dataset, IterableDataset)
    return DataLoader(
        dataset,
        batch_size=settings.get("batch_size") or 1,
        shuffle=shuffle,
        num_workers=settings.get("num_workers") or 0,
    )
