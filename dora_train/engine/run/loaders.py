"""Our batches as loaders for Lightning: each asks where the training is, and gives this rank its
share from there.

The place is asked for when the first batch is: by then Lightning has restored its counters from the
checkpoint.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from ..upstream.lightning import position
from .ranks import Ranks


class TrainLoader:
    """The training batches of the trainer's epoch, from its next batch on.

    Args:
        batches: has `epoch(epoch, start, rank, world_size)` and a length, as
            `dora_train.data.Batches`.
        overfits: every epoch has the batches of the first one.
    """

    def __init__(self, batches: Any, ranks: Ranks, overfits: bool = False):
        self.batches, self.ranks, self.overfits = batches, ranks, overfits
        self.trainer: Trainer | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        assert self.trainer is not None
        epoch, start = position(self.trainer)
        epoch = 0 if self.overfits else epoch
        yield from self.batches.epoch(epoch, start, self.ranks.rank, self.ranks.world_size)


class EvalLoader:
    """The batches of a validation or test set; each sample goes to exactly one rank."""

    def __init__(self, batches: Any, ranks: Ranks):
        self.batches, self.ranks = batches, ranks

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches.epoch(0, 0, self.ranks.rank, self.ranks.world_size)


def loaders(data: Any, ranks: Ranks, overfits: bool) -> tuple[TrainLoader, EvalLoader]:
    """For training and validation; to overfit, both give the first epoch's batches in every epoch.

    Lightning's `overfit_batches` limits how many.
    """
    valid = data.train if overfits else data.valid
    return TrainLoader(data.train, ranks, overfits), EvalLoader(valid, ranks)


class SameAsOneRank(Callback):
    """What makes several ranks compute what one would: fair shares, one rank's buffers, draws by
    counter.

    Args:
        seed_all: seeds the global generators from (purpose, *counters); they are seeded anew at
            each batch, so that dropout does not depend on what came before.
    """

    def __init__(self, ranks: Ranks, seed: int, seed_all: Callable[..., None]):
        self.ranks, self.seed, self.seed_all = ranks, seed, seed_all
        self._share = 1.0

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seed_all("step", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)
        if self.ranks.world_size > 1:
            self._share = self._weight(trainer, batch_idx, num_samples(batch))

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.seed_all("valid", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)

    def on_test_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.seed_all("test", self.seed, batch_idx, self.ranks.rank)

    def _weight(self, trainer: Trainer, batch_idx: int, mine: int) -> float:
        """What turns DDP's mean of the ranks' means into the mean over the batch: shares differ by
        one sample."""
        loader: Any = trainer.train_dataloader
        sizes = getattr(getattr(loader, "batches", None), "size_of", None)
        return mine * self.ranks.world_size / sizes(batch_idx) if sizes else 1.0

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Any) -> None:
        if self._share != 1.0:
            loss.mul_(self._share)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Running statistics of batch norm differ between ranks; those of rank 0 are the
        checkpoint's."""
        if self.ranks.world_size > 1:
            import torch

            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)


def num_samples(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor, wherever that stands in tuples and
    dicts."""
    if hasattr(batch, "shape"):
        return int(batch.shape[0])
    parts = batch.values() if isinstance(batch, dict) else batch
    return num_samples(next(iter(parts)))
