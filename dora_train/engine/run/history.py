"""From what the steps return and log to one history entry an epoch: train and valid together, no
clock in it.

The running sums of an epoch are part of the checkpoint, and so is the history: `history.json` is
only ever its copy.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from torchmetrics import Metric

from ...best_so_far import monitored
from ..errors import UserError
from ..upstream.lightning import LoggedSums
from .averages import Averages, loss_first
from .loaders import num_samples, share_of
from .logged import load_metric_states, metric_states, of_each_rank, split_and_name

Entry = dict[str, dict[str, float]]
RULE = 2  # of the runs that begin now: see `History.rule`


class History(Checkpoint):
    """Builds the history, keeps the best epoch, and carries both in the checkpoint.

    Lightning calls a `Checkpoint` after the hooks of the module. So a number that is logged in
    `on_train_epoch_end` belongs to its own epoch.

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
        self.splits = {split: Averages() for split in ("train", "valid", "test")}
        # "cpu", "cuda": sums are rounded in another order elsewhere, and with other ranks
        self.device = ""
        self.logged: LoggedSums | None = None
        # {split: [{name: value}]} of the present batch; several dicts if a name comes again
        self._step: dict[str, list[dict[str, Any]]] = {}
        self._metrics: dict[tuple[str, str], Metric] = {}  # {(split, name): what was logged}
        self._of_before: set[int] = set()  # ids of those that an earlier attempt logged
        self._computed: dict[str, dict[str, float]] = {}  # {split: {name: what they gave}}
        self._module: LightningModule | None = None
        self._before_validation: dict[str, Any] | None = None  # see `metric_states`
        self._epoch_ended = False
        self._gathered: dict[str, Any] = {
            split: Averages().state(1) for split in ("train", "valid")
        }
        self._restored: dict[str, Any] = {}
        self._restored_module: list[dict[str, Any]] = []  # of each rank

    @property
    def monitored(self) -> list[float]:
        """What each validation reached in the metric, larger is better: see optim.py."""
        return monitored(self.entries, self.metric, self.mode, measured_only=self.rule > 1)

    def _tell(self, module: LightningModule) -> None:
        """A module that declares `monitored` gets it."""
        if hasattr(module, "monitored"):
            module.monitored = self.monitored  # type: ignore[assignment]

    # --- gathering ---

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self.logged is None:
            self.logged = LoggedSums(trainer, self._take_logged)
        self._module, self._trainer = module, trainer

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._tell(module)
        self.device = module.device.type
        for split, state in self._restored.items():  # only now is the device known
            self.splits[split].load(state, module.device, self.rank == 0)
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._restore_module(module)
        self._epoch_ended = False
        self.splits["train"], self.splits["valid"] = Averages(), Averages()

    def on_train_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._restore_module(module)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Lightning 2.6.6 has divided it by the batches that make a step
        if trainer.accumulate_grad_batches > 1 and outputs and "loss" in outputs:
            outputs = {**outputs, "loss": outputs["loss"] * trainer.accumulate_grad_batches}
        samples = _samples(trainer.train_dataloader, 0, batch_idx, batch)
        self._add_step("train", outputs, samples, "training_step")

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._restore_module(module)
        self._before_validation = metric_states(module)

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.splits["valid"] = Averages()
        self._computed.pop("valid", None)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            loaders = trainer.val_dataloaders
            samples = _samples(loaders, dataloader_idx, batch_idx, batch)
            outputs = _of_loader(outputs, trainer.num_val_batches, dataloader_idx)
            self._add_step("valid", outputs, samples, "validation_step")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._take_metrics("valid")
        self._before_validation = None

    def on_test_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.splits["test"] = Averages()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        samples = _samples(trainer.test_dataloaders, dataloader_idx, batch_idx, batch)
        outputs = _of_loader(outputs, trainer.num_test_batches, dataloader_idx)
        self._add_step("test", outputs, samples, "test_step")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._take_metrics("test")

    # --- what the module logs ---

    def _take_logged(
        self, name: str, value: Any, hook: str, operation: str, samples: int | None, loader: Any
    ) -> None:
        """Called at each `self.log`; a step's values are added when its batch ends."""
        if self._trainer.sanity_checking:
            return
        stage = _stage(self._trainer)
        split, name = split_and_name(name, stage, loader)
        if isinstance(value, Metric):
            self._metrics[split, name] = value
            self._of_before.discard(id(value))
        elif not is_of_a_step(hook) or operation != "mean" or samples is not None:
            self.splits[split].add({name: value}, samples or 1, operation)
        else:
            _put(self._step.setdefault(split, []), name, value)

    def _add_step(self, stage: str, outputs: Any, samples: int, step: str) -> None:
        """What a step returned, and above it what it logged under the same name."""
        logged, self._step = self._step, {}
        mine, *again = logged.pop(stage, [{}])
        if outputs is not None and not isinstance(outputs, Mapping):
            outputs = {"loss": outputs}
        self.splits[stage].add({**(outputs or {}), **mine}, samples, step=step)
        for split, several in (logged | {stage: again}).items():
            for values in several:
                self.splits[split].add(values, samples)

    def _take_metrics(self, *splits: str) -> None:
        """Compute what torchmetrics objects have gathered; all ranks must call it together."""
        for (split, name), metric in list(self._metrics.items()):
            if split in splits:
                del self._metrics[split, name]
                value = metric.compute()
                if getattr(value, "ndim", None) == 0:
                    self._computed.setdefault(split, {})[name] = float(value)
                if id(metric) in self._of_before:  # Lightning does not know of it
                    metric.reset()

    def means(self, split: str) -> dict[str, float]:
        """What a split's steps gave on average, and what its torchmetrics objects did.

        All ranks must call it together.
        """
        means = self.splits[split].means(self.world_size) | self._computed.get(split, {})
        return {name: means[name] for name in sorted(means, key=loss_first)}

    # --- an epoch is over ---

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._take_metrics("train", "valid")
        entry = {split: self.means(split) for split in ("train", "valid")}
        self.entries.append({split: metrics for split, metrics in entry.items() if metrics})
        self._note_best()
        self._tell(module)
        self._epoch_ended = True
        self._computed = {}
        self.splits["train"], self.splits["valid"] = Averages(), Averages()

    def _note_best(self) -> None:
        """Raises: UserError if the split was measured, but the metric never was: no epoch would
        ever be the best."""
        split, _, metric = self.metric.partition(".")
        value = self.entries[-1].get(split, {}).get(metric)
        if value is None and split in self.entries[-1]:
            if not any(metric in entry.get(split, {}) for entry in self.entries):
                raise UserError(
                    f"best.metric={self.metric}: {split} has no such metric.",
                    f"{split} has: {', '.join(self.entries[-1][split])}.",
                )
        before = self.best.get("value")
        self.improved = value is not None and value == value and self._is_better(value, before)
        if self.improved:
            self.best = {
                "epoch": len(self.entries),
                **self.entries[-1].get("valid", {}),
                "value": value,
            }

    def _is_better(self, value: float, before: float | None) -> bool:
        if before is None:
            return True
        return value > before if self.mode == "max" else value < before

    # --- in the checkpoint ---

    def gather(self) -> None:
        """Sum the epoch so far over the ranks, for a checkpoint within it.

        Also its last validation: with `trainer.val_check_interval`, none may follow in this epoch.
        All ranks must call it together.
        """
        train = self.splits["train"].state(self.world_size)
        valid = self.splits["valid"].state(self.world_size)
        self._gathered = {"train": train, "valid": valid, **self._module_state()}
        if self._computed:
            self._gathered["computed"] = self._computed
        if self.check:
            self.check({"train": so_far(train)}, len(self.entries) + 1)

    def _module_state(self) -> dict[str, Any]:
        """What the module's metrics and logged sums hold, of each rank; empty if they hold nothing."""
        if self.logged is None or self._module is None:
            return {}
        state: dict[str, Any] = {}
        if self._before_validation is not None:
            state["metrics"] = self._before_validation
        else:
            ends = self.logged.metrics_to_reset() if self._epoch_ended else set()
            state["metrics"] = metric_states(self._module, without=ends)
        if not self._epoch_ended:
            state["sums"] = self.logged.sums()
            state["logged"] = self._places_logged(self._module)
        state["monitored"] = self.logged.monitored()
        every = of_each_rank(state, self.world_size)
        return {"module": every} if any(any(one.values()) for one in every) else {}

    def _places_logged(self, module: LightningModule) -> list[list[str]]:
        """[split, name, place in the module] of each metric that was logged in this epoch."""
        places = {id(part): place for place, part in module.named_modules()}
        logged = self._metrics.items()
        return [[*key, places[id(metric)]] for key, metric in logged if id(metric) in places]

    def _restore_module(self, module: LightningModule) -> None:
        """Once, after the module's own on_train_start, which may reset its metrics."""
        if not self._restored_module or self.logged is None:
            return
        of_ranks, self._restored_module = self._restored_module, []
        self.logged.load_monitored(of_ranks[0]["monitored"])
        mine = of_ranks[self.rank : self.rank + 1]
        if self.rank == 0:  # there may be fewer ranks than before
            mine += of_ranks[self.world_size :]
        load_metric_states(module, [state["metrics"] for state in mine])
        self.logged.load(mine[0].get("sums", {}) if mine else {})
        for split, name, place in of_ranks[0].get("logged", []):
            metric: Any = module.get_submodule(place)
            self._metrics[split, name] = metric
            self._of_before.add(id(metric))

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
        self._restored_module = state_dict.get("module", [])
        self._computed = state_dict.get("computed", {})
        self.rule = state_dict.get("rule", 1)


def _put(several: list[dict[str, Any]], name: str, value: Any) -> None:
    """Into the first dict that has no such name."""
    for values in several:
        if name not in values:
            values[name] = value
            return
    several.append({name: value})


def so_far(state: dict[str, Any]) -> dict[str, float]:
    """The means that `Averages.state` stands for."""
    means = {}
    for group in (state, *state.get("more", [])):
        count = group["count"] if group.get("operation", "mean") == "mean" else 1
        for name, value in zip(group["names"], group["sums"]):
            means[name] = value / count
    return means


def is_of_a_step(hook: str) -> bool:
    """Whether a hook is training_step and the like; of several loaders it carries the number."""
    return hook.partition(".")[0].endswith("_step")


def _stage(trainer: Trainer) -> str:
    if trainer.testing:
        return "test"
    return "valid" if trainer.validating else "train"


def _samples(loaders: Any, loader: int, number: int, batch: Any) -> int:
    share = share_of(loaders, loader, number)
    return num_samples(batch) if share is None else share[0]


def _of_loader(outputs: Any, several: Any, loader: int) -> Any:
    """With several loaders, what a step returns carries the number of its own."""
    if len(several) < 2 or outputs is None:
        return outputs
    if not isinstance(outputs, Mapping):
        outputs = {"loss": outputs}
    return {f"{name}/dataloader_idx_{loader}": value for name, value in outputs.items()}


def batches_of(trainer: Trainer) -> int | None:
    number = trainer.num_training_batches
    return int(number) if number != float("inf") else None
