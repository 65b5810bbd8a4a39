"""Which class is taken for which, counted while the test set is measured: no second pass, nothing
to add to module.py.

The network's outputs are seen by a hook on the module, the labels are the batch's second part.
Where they are no logits [B, classes] and labels [B] there is no matrix, and nothing else changes.
"""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

MOST_CLASSES = 200  # 40,000 numbers; what has more is not looked at as a matrix


class Confusion(Callback):
    """Counts over a test set, in whole numbers: the same for any number of ranks."""

    def __init__(self, classes: int, world_size: int):
        self.classes, self.world_size = classes, world_size
        self._counts = torch.zeros(classes * classes, dtype=torch.int64)
        self._odd = classes > MOST_CLASSES  # what came was not of the shape
        self._device = torch.device("cpu")
        self._outputs: Any = None
        self._hook: Any = None

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._device = module.device
        self._hook = module.register_forward_hook(self._see)

    def _see(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        self._outputs = outputs

    def on_test_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        logits, labels = self._outputs, _labels(batch)
        self._outputs = None
        if self._odd or not self._fit(logits, labels):
            self._odd = True
            return
        pairs = labels * self.classes + logits.argmax(1)
        self._counts += torch.bincount(pairs.cpu(), minlength=len(self._counts))

    def _fit(self, logits: Any, labels: Any) -> bool:
        return (
            isinstance(logits, torch.Tensor)
            and isinstance(labels, torch.Tensor)
            and logits.ndim == 2
            and logits.shape[1] == self.classes
            and labels.shape == logits.shape[:1]
            and not labels.is_floating_point()
        )

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._hook.remove()

    def matrix(self) -> list[list[int]] | None:
        """[true class][given class], over all ranks; all of them must call it together."""
        total = torch.cat([self._counts, torch.tensor([int(self._odd)])])
        if self.world_size > 1:
            total = total.to(self._device)
            torch.distributed.all_reduce(total)
        *counts, odd = total.tolist()
        if odd or not any(counts):
            return None
        return [
            counts[row * self.classes : (row + 1) * self.classes] for row in range(self.classes)
        ]


def _labels(batch: Any) -> Any:
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None
