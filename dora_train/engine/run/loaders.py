"""Our batches as loaders for Lightning: each asks where the training is, and gives this rank its
share from there.

The place is asked for when the first batch is: by then Lightning has restored its counters from the
checkpoint. What a user gives as data becomes such batches in exact_loader.py.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import CombinedLoader

from ..upstream.lightning import position
from .ranks import Ranks


class Loader:
    """The batches of a split, of which this rank gets its share.

    Args:
        batches: has `epoch(epoch, start, rank, world_size)` and may have a length, as
            `dora_train.data.Batches`.
    """

    def __init__(self, batches: Any, ranks: Ranks):
        self.batches, self.ranks = batches, ranks

    def __len__(self) -> int:
        """Raises: TypeError if nobody knows."""
        return len(self.batches)

    def share(self, batch: int) -> tuple[int, int] | None:
        """(samples of this rank, samples of all ranks) of a batch that was given; None: unknown."""
        if hasattr(self.batches, "sizes"):
            return self.batches.sizes.get(batch)
        if not hasattr(self.batches, "size_of"):
            return None
        total = self.batches.size_of(batch)
        return len(range(self.ranks.rank, total, self.ranks.world_size)), total

    def _epoch(self, epoch: int, start: int) -> Iterator[Any]:
        yield from self.batches.epoch(epoch, start, self.ranks.rank, self.ranks.world_size)


class TrainLoader(Loader):
    """The training batches of the trainer's epoch, from its next batch on.

    Args:
        overfits: every epoch has the batches of the first one.
    """

    def __init__(self, batches: Any, ranks: Ranks, trainer: Trainer, overfits: bool = False):
        super().__init__(batches, ranks)
        self.trainer, self.overfits = trainer, overfits

    def __iter__(self) -> Iterator[Any]:
        epoch, start = position(self.trainer)
        yield from self._epoch(0 if self.overfits else epoch, start)


class EvalLoader(Loader):
    """The batches of a validation or test set; each sample goes to exactly one rank."""

    def __iter__(self) -> Iterator[Any]:
        yield from self._epoch(0, 0)


def each_loader(loaders: Any, make: Callable[[Any, int], Any]) -> Any:
    """`make(loader, number)` of a loader, or of each in a list, a dict or a CombinedLoader.

    A list of anything but loaders is one loader: its batches.
    """
    if isinstance(loaders, CombinedLoader):
        loaders.flattened = [make(one, at) for at, one in enumerate(loaders.flattened)]
        return loaders
    if isinstance(loaders, dict):
        return {name: make(one, at) for at, (name, one) in enumerate(loaders.items())}
    if isinstance(loaders, (list, tuple)) and all(map(_is_loader, loaders)):
        return [make(one, at) for at, one in enumerate(loaders)]
    return make(loaders, 0)


def _is_loader(source: Any) -> bool:
    from torch.utils.data import DataLoader, Dataset

    is_ours = callable(getattr(source, "epoch", None))
    return is_ours or isinstance(source, (DataLoader, Dataset, Loader))


def share_of(loaders: Any, loader: int, batch: int) -> tuple[int, int] | None:
    """(samples of this rank, samples of all ranks) of a batch; None: unknown.

    Args:
        loaders: what the trainer has: a loader, or several of them.
        loader, batch: their numbers.
    """
    several = _several(loaders)
    if loader < len(several) and isinstance(several[loader], Loader):
        return several[loader].share(batch)
    return None


def _several(loaders: Any) -> list[Any]:
    if isinstance(loaders, CombinedLoader):
        return list(loaders.flattened)
    if isinstance(loaders, dict):
        return list(loaders.values())
    return list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]


class SameAsOneRank(Callback):
    """What makes several ranks compute what one would: fair shares, one rank's buffers, draws by
    counter.

    Args:
        seed_all: seeds the global generators from (purpose, *counters); they are seeded anew at
            each hook and batch, so that dropout does not depend on what came before.
    """

    def __init__(self, ranks: Ranks, seed: int, seed_all: Callable[..., None]):
        self.ranks, self.seed, self.seed_all = ranks, seed, seed_all
        self._share = 1.0

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seed_all("step", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)
        if self.ranks.world_size > 1:
            self._share = self._weight(trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.seed_all("valid", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)

    def on_test_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.seed_all("test", self.seed, batch_idx, self.ranks.rank)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 0)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 1)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 2)

    def _seed_hook(self, trainer: Trainer, hook: int) -> None:
        """A module may draw there as well, e.g. the noise of a picture."""
        step = trainer.global_step
        self.seed_all("hook", self.seed, trainer.current_epoch, step, hook, self.ranks.rank)

    def _weight(self, trainer: Trainer, batch_idx: int) -> float:
        """What turns DDP's mean of the ranks' means into the mean over the batch: shares differ by
        one sample."""
        share = share_of(trainer.train_dataloader, 0, batch_idx)
        if share is None:
            return 1.0
        mine, total = share
        return mine * self.ranks.world_size / total

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Any) -> None:
        if self._share != 1.0:
            loss.mul_(self._share)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Running statistics of batch norm differ between ranks; those of rank 0 are the
        checkpoint's."""
        self._seed_hook(trainer, 3)
        if self.ranks.world_size > 1:
            import torch

            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)


def num_samples(batch: Any) -> int:
    """Samples in a batch whose loader does not know: the length of its first tensor.

    Looked for in lists, tuples, mappings and dataclasses, wherever it stands. 1 if there is none.
    """
    for part in _tensors(batch):
        return int(part.shape[0]) if part.ndim else 1
    return 1


def _tensors(batch: Any) -> Iterator[Any]:
    """The tensors of a batch, in the order in which they stand."""
    if hasattr(batch, "shape") and hasattr(batch, "ndim"):
        yield batch
        return
    for part in _parts(batch):
        yield from _tensors(part)


def _parts(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Mapping):
        yield from batch.values()
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        yield from (getattr(batch, field.name) for field in dataclasses.fields(batch))
    elif isinstance(batch, Iterable) and not isinstance(batch, (str, bytes)):
        yield from batch
