"""The settings of a user's DataLoader, for the DataLoader that reads in its place.

indexed.py and streamed.py make one each.
"""

import contextlib
import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ...children import Parent, end_with_starter
from ..errors import UserError


def settings_of(loader: DataLoader, persistent: bool) -> dict[str, Any]:
    """Return how a loader reads, as keywords of DataLoader: workers, memory and collate function.

    Args:
        persistent: whether the workers stay from epoch to epoch.
    """
    collate = loader.collate_fn
    # Without a batch sampler, each item of a map-style data set is a batch.
    if loader.batch_sampler is None and not isinstance(loader.dataset, IterableDataset):
        collate = CollateFirst(collate)
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


class WorkerStart:
    """Runs the user's `worker_init_fn`, which sees the user's own data set.

    Args:
        dataset: the user's data set, not the one that the workers read.
        init: the user's function.
    """

    # A class and not a closure: workers that are spawned need to unpickle it.
    def __init__(self, dataset: object, init: Callable[[int], None] | None):
        self.dataset, self.init = dataset, init
        self.run = Parent.here()

    def __call__(self, worker: int) -> None:
        # A worker that was forked ends with the run already (`end_all_with_this_process`).
        if multiprocessing.get_start_method() != "fork":
            end_with_starter(self.run)
        # torch 2.14 forbids the plain assignment
        object.__setattr__(get_worker_info(), "dataset", self.dataset)
        if self.init:
            self.init(worker)


class CollateFirst:
    """The user's collate function, for a data set whose items are batches already.

    A batch sampler asks for a list of items. That list holds one batch.
    """

    def __init__(self, collate: Callable[[Any], Any]):
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        return self.collate(items[0])


@contextlib.contextmanager
def sent_to_workers(loader: DataLoader) -> Iterator[None]:
    """Say what cannot be sent to workers that are not forks of the run, as on macOS.

    Raises:
        UserError: the data set, or a function of the loader, cannot be pickled.
    """
    try:
        yield
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        # Their messages differ from one Python to the next.
        places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if not places[-1].endswith("multiprocessing/reduction.py"):
            raise
        raise UserError(
            f"{type(loader.dataset).__name__} cannot be sent to data workers: {error}.",
            "put its classes and functions at the top of a file, without lambda; or without workers: "
            "data.num_workers=0",
        ) from error


def refuse_ranks(world_size: int, what: str) -> None:
    """Refuse batches that cannot be divided among several ranks.

    Args:
        what: the batches in words.

    Raises:
        UserError: there are several ranks.
    """
    if world_size > 1:
        raise UserError(
            f"{world_size} ranks cannot share {what}: such a batch cannot be divided.",
            "give a Dataset, or a DataLoader with a batch_size; or train on one rank",
        )
