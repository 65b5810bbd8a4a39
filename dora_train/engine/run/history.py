"""From what the steps return to one history entry an epoch: train and valid together, no clock in
it.

The running sums of an epoch are part of the checkpoint, and so is the history: `history.json` is
only ever its copy.
"""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ...best_so_far import monitored
from ..errors import UserError
from .loaders import num_samples

Entry = dict[str, dict[str, float]]
RULE = 2  # of the runs that begin now: see `History.rule`


class Averages:
    """Means over an epoch of what its steps return, over all ranks; every sample counts once.

    Sums are kept in float64 (float32 on MPS, which has no float64), on the device: reading them
    waits for the GPU.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: torch.Tensor | None = None  # [names] of values times samples
        self.count = 0

    def add(self, outputs: Any, samples: int) -> None:
        """Take in a step's outputs: scalars are means over the batch, others have one value a
        sample."""
        if not isinstance(outputs, dict):
            outputs = {"loss": outputs}
        if self.sums is None:
            numbers = [name for name, value in outputs.items() if _is_number(value)]
            self.names = sorted(numbers, key=lambda name: (name != "loss", name))
        values = [_sum(outputs[name], samples) for name in self.names]
        if values:
            total = torch.stack(values)
            self.sums = total if self.sums is None else self.sums + total
        self.count += samples

    def means(self, world_size: int) -> dict[str, float]:
        """{name: mean}; all ranks must call it together, and get the same."""
        if self.sums is None:
            return {}
        count = torch.full((1,), float(self.count), dtype=self.sums.dtype, device=self.sums.device)
        total = torch.cat([self.sums, count])
        if world_size > 1:
            torch.distributed.all_reduce(total)
        *sums, number = total.tolist()
        return {name: value / number for name, value in zip(self.names, sums)}

    def state(self, world_size: int) -> dict[str, Any]:
        """Plain Python, as checkpoints take it: the sums of all ranks together."""
        sums = self.sums
        count = torch.tensor([float(self.count)], dtype=torch.float64)
        total = torch.cat([sums.cpu().double(), count]) if sums is not None else count
        if world_size > 1 and sums is not None:
            total = total.to(sums.device, sums.dtype)
            torch.distributed.all_reduce(total)
        values = total.tolist()
        return {"names": list(self.names), "sums": values[:-1], "count": int(values[-1])}

    def load(self, state: dict[str, Any], device: torch.device, first: bool) -> None:
        """Go on from `state`; the first rank takes the sums of all, the others begin at zero."""
        self.names, self.count = list(state["names"]), state["count"] if first else 0
        dtype = torch.float32 if device.type == "mps" else torch.float64
        sums = torch.tensor(state["sums"], dtype=dtype, device=device)
        self.sums = (sums if first else torch.zeros_like(sums)) if self.names else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or isinstance(value, torch.Tensor)


def _sum(value: Any, samples: int) -> torch.Tensor:
    value = torch.as_tensor(value).detach()
    value = value.to(torch.float32 if value.device.type == "mps" else torch.float64)
    return value * samples if value.ndim == 0 else value.sum()


class History(Callback):
    """Builds the history, keeps the best epoch, and carries both in the checkpoint.

    Args:
        metric: what `best.ckpt` is chosen by, e.g. "valid.acc".
        mode: "max" or "min".

    Attributes:
        rule: 1, of checkpoints that do not name it: epochs without a validation count for early
            stopping and plateau, and `trainer.overfit_batches` draws new batches in each epoch. 2:
            only validations count, and the batches stay. A run ends by the rule that it began with.
    """

    rule = RULE

    def __init__(self, metric: str, mode: str, rank: int, world_size: int):
        self.metric, self.mode, self.rank, self.world_size = metric, mode, rank, world_size
        self.entries: list[Entry] = []
        # {"epoch": 5, "loss": 0.1, "acc": 0.97, "value": 0.97}; epochs from 1
        self.best: dict[str, Any] = {}
        self.improved = False  # by the last entry
        # looks at what a checkpoint within an epoch would hold
        self.check: Callable[[Entry, int], None] | None = None
        self.train, self.valid, self.test = Averages(), Averages(), Averages()
        # "cpu", "cuda": sums are rounded in another order elsewhere, and with other ranks
        self.device = ""
        self._gathered: dict[str, Any] = {
            split: Averages().state(1) for split in ("train", "valid")
        }
        self._restored: dict[str, Any] = {}

    @property
    def monitored(self) -> list[float]:
        """What each validation reached in the metric, larger is better: see optim.py."""
        return monitored(self.entries, self.metric, self.mode, measured_only=self.rule > 1)

    # --- gathering ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        module.monitored = self.monitored  # type: ignore[assignment]
        self.device = module.device.type
        for split, averages in (("train", self.train), ("valid", self.valid)):
            if split in self._restored:  # only now is the device known
                averages.load(self._restored[split], module.device, self.rank == 0)
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.train, self.valid = Averages(), Averages()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning 2.6.6 has divided it by the batches that make a step
        if trainer.accumulate_grad_batches > 1:
            outputs = {**outputs, "loss": outputs["loss"] * trainer.accumulate_grad_batches}
        self.train.add(outputs, num_samples(batch))

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.valid = Averages()

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        if not trainer.sanity_checking:
            self.valid.add(outputs, num_samples(batch))

    def on_test_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.test = Averages()

    def on_test_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self.test.add(outputs, num_samples(batch))

    # --- an epoch is over ---

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        entry = {
            "train": self.train.means(self.world_size),
            "valid": self.valid.means(self.world_size),
        }
        for name, value in trainer.callback_metrics.items():  # what the module gave to self.log
            split, _, metric = name.partition("/")
            if split in entry and metric:
                entry[split].setdefault(metric, float(value))
        self.entries.append({split: metrics for split, metrics in entry.items() if metrics})
        self._note_best()
        module.monitored = self.monitored  # type: ignore[assignment]
        self.train, self.valid = Averages(), Averages()

    def _note_best(self) -> None:
        """Raises: UserError where the first epoch measured others: without it no epoch would ever
        be the best."""
        split, _, metric = self.metric.partition(".")
        value = self.entries[-1].get(split, {}).get(metric)
        if value is None and len(self.entries) == 1 and split in self.entries[0]:
            raise UserError(
                f"best.metric={self.metric}: {split} has no such metric.",
                f"{split} has: {', '.join(self.entries[0][split])}.",
            )
        before = self.best.get("value")
        self.improved = (
            value is not None
            and value == value
            and (  # NaN is never the best
                before is None or (value > before if self.mode == "max" else value < before)
            )
        )
        if self.improved:
            self.best = {
                "epoch": len(self.entries),
                **self.entries[-1].get("valid", {}),
                "value": value,
            }

    # --- in the checkpoint ---

    def gather(self) -> None:
        """Sum the epoch so far over the ranks, for a checkpoint within it.

        Also its last validation: with `trainer.val_check_interval`, none may follow in this epoch.
            All
        ranks must call it together.
        """
        train, valid = self.train.state(self.world_size), self.valid.state(self.world_size)
        self._gathered = {"train": train, "valid": valid}
        if self.check:
            sums, count = dict(zip(train["names"], train["sums"])), train["count"]
            means = {name: value / count for name, value in sums.items()}
            self.check({"train": means}, len(self.entries) + 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.entries,
            "best": self.best,
            **self._gathered,
            "ranks": self.world_size,
            "device": self.device,
            "rule": self.rule,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entries = [dict(entry) for entry in state_dict["history"]]
        self.best = dict(state_dict["best"])
        self._restored = {key: state_dict[key] for key in ("train", "valid") if key in state_dict}
        self.rule = state_dict.get("rule", 1)


def batches_of(trainer: Trainer) -> int | None:
    number = trainer.num_training_batches
    return int(number) if number != float("inf") else None
