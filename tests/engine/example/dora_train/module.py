"""The LightningModule: what a step computes, and which optimizer and schedule it is trained with.

A step returns a dict: `loss`, and each metric as a number (its mean over the batch) or as one value
per sample. The engine averages them over the epoch and all ranks, and writes them to history,
TensorBoard and CSV. To add a metric, return one more. To change the loss, edit `loss`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .confusion import Confusion
from .model import WithAuxiliary, of_both_sides
from .optim import Schedule, build_optimizer

HOW_MIRRORED = "averaged over mirrored images"
Batch = tuple[Tensor, Tensor]  # images [B, 3, H, W] float32, labels [B] int64


class Classifier(pl.LightningModule):
    """Trains `model` to tell classes apart.

    Args:
        model: from images [B, 3, H, W] float32 to logits [B, classes].
        optim: name, lr and more, as `build_optimizer` takes them.
        schedule: name, warmup_epochs and more, as `Schedule` takes them.
        loss: label_smoothing, which is used in training only.
        mirror: whether validation and test average the logits of each image and of its mirror image.
    """

    # The main metric of each past validation, for `Schedule`. The engine keeps it up to date.
    monitored: Sequence[float] = ()

    def __init__(
        self,
        model: nn.Module,
        optim: Mapping[str, Any],
        schedule: Mapping[str, Any],
        loss: Mapping[str, Any],
        mirror: bool = False,
    ):
        super().__init__()
        self.model = model
        self.optim, self.schedule = dict(optim), dict(schedule)
        self.label_smoothing = loss["label_smoothing"]
        self.mirror = mirror
        self.how_tested = HOW_MIRRORED if mirror else ""  # the last line of a run says it
        self.confusion = Confusion()

    def forward(self, images: Tensor) -> Tensor | WithAuxiliary:
        """Logits [B, classes]. In training, some networks give auxiliary outputs as well."""
        return self.model(images)

    def loss(self, outputs: Tensor | WithAuxiliary, labels: Tensor) -> Tensor:
        """The loss of each sample: [B] float32."""
        if isinstance(outputs, WithAuxiliary):
            others = [self.loss(logits, labels) for logits in outputs.others]
            return self.loss(outputs.logits, labels) + outputs.weight * sum(others)
        smoothing = self.label_smoothing if self.training else 0.0  # arXiv 1512.00567, section 7
        return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        outputs = self(images)
        logits = outputs.logits if isinstance(outputs, WithAuxiliary) else outputs
        return {"loss": self.loss(outputs, labels).mean(), "acc": logits.argmax(1) == labels}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        return self.measured(self.evaluated(images), labels)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self.evaluated(images)
        self.confusion.add(logits, labels)
        return self.measured(logits, labels)

    def evaluated(self, images: Tensor) -> Tensor:
        """Logits [B, classes], as validation and test use them."""
        return of_both_sides(self, images) if self.mirror else self(images)

    def measured(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Each metric as one value per sample, [B]."""
        return {"loss": self.loss(logits, labels), "acc": logits.argmax(1) == labels}

    def on_test_epoch_end(self) -> None:
        self.confusion.sum_over_ranks()

    def artifacts(self, folder: Path) -> None:
        """Write our own files into the folder of a finished run. The engine calls it."""
        self.confusion.write(folder / "confusion.json")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = build_optimizer(self.parameters(), **self.optim)
        # the peak, as `lr` is changed at each step
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        # Lightning counts the batches of an epoch later. Until then they are infinitely many.
        self.trainer.fit_loop.setup_data()
        steps = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        total = self.trainer.estimated_stepping_batches
        self.factor = Schedule(**self.schedule, steps_per_epoch=steps, total_steps=total)
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of this step.

        A scheduler of torch would have a state, which a resumed run would have to restore exactly.
        """
        factor = self.factor(self.global_step, self.monitored)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor
