"""Makes several ranks compute the same as one rank."""

from collections.abc import Callable

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from .loaders import share_of
from .ranks import Ranks


class SameAsOneRank(Callback):
    """Makes several ranks compute the same as one rank.

    It weighs the ranks' losses by their samples, gives all ranks the buffers of rank 0, and seeds
    the draws by counters.

    Args:
        seed_all: seeds the global generators from (purpose, *counters). It is called at each hook
            and batch, so that dropout does not depend on earlier draws.
    """

    def __init__(self, ranks: Ranks, seed: int, seed_all: Callable[..., None]):
        self.ranks, self.seed, self.seed_all = ranks, seed, seed_all
        self._weight = 1.0  # of this rank's loss in the present batch

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.seed_all("step", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)
        if self.ranks.world_size > 1:
            self._weight = self._weight_of(trainer, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: object,
        batch_idx: int,
        *args: object,
    ) -> None:
        self.seed_all("valid", self.seed, trainer.current_epoch, batch_idx, self.ranks.rank)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: object,
        batch_idx: int,
        *args: object,
    ) -> None:
        self.seed_all("test", self.seed, batch_idx, self.ranks.rank)

    # The numbers are part of the seeds. With others, a resumed run would draw other numbers.
    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 0)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 1)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._seed_hook(trainer, 2)

    def _seed_hook(self, trainer: Trainer, hook: int) -> None:
        """Seed the draws of the module's own hook, e.g. the noise of a picture that it logs."""
        step = trainer.global_step
        self.seed_all("hook", self.seed, trainer.current_epoch, step, hook, self.ranks.rank)

    def _weight_of(self, trainer: Trainer, batch_idx: int) -> float:
        """Return the factor of this rank's loss for a batch.

        DDP averages the ranks' means. Their shares of a batch may differ by one sample, so that
        would not be the mean over the batch.
        """
        share = share_of(trainer.train_dataloader, 0, batch_idx)
        if share is None:
            return 1.0
        mine, total = share
        return mine * self.ranks.world_size / total

    def on_before_backward(
        self, trainer: Trainer, module: LightningModule, loss: torch.Tensor
    ) -> None:
        # In place: Lightning continues with the tensor that it gave.
        if self._weight != 1.0:
            loss.mul_(self._weight)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Seed the hook, and give all ranks the buffers of rank 0.

        The running statistics of batch norm differ between ranks, and the checkpoint holds those
        of rank 0.
        """
        self._seed_hook(trainer, 3)
        if self.ranks.world_size > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)
