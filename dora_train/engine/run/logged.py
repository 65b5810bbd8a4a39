"""The values that a module gives to `self.log`, and what its torchmetrics objects have gathered.

Both go into the history, and into a checkpoint within an epoch. Lightning 2.6.6 keeps them in
memory only. So a run that is killed within an epoch would average only the rest of that epoch.
`History` is the one user.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torchmetrics import Metric

from ..upstream.lightning import LoggedSums
from .averages import Averages, by_name
from .metric_states import load_metric_states, metric_states, of_each_rank

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}
_NAMED = re.compile(rf"({'|'.join(SPLITS)})[/_.](.+)", re.DOTALL)


def split_and_name(name: str, stage: str, loader: int | None = None) -> tuple[str, str]:
    """Return the split and the metric of a logged name.

    `val/acc`, `val_acc` and `valid.acc` are ("valid", "acc"). A name without a split belongs to
    the stage.

    Args:
        name: as the module logs it.
        stage: what the trainer does: "train", "valid" or "test".
        loader: the number of the loader, if there are several.
    """
    found = _NAMED.fullmatch(name)
    split = stage
    # Only a test gives numbers of the test set. So `test_time`, logged in an epoch, is a name of
    # that epoch.
    if found and (SPLITS[found[1]] == "test") == (stage == "test"):
        split, name = SPLITS[found[1]], found[2]
    if loader is not None:
        name = f"{name}/dataloader_idx_{loader}"
    return split, name


class ModuleLog:
    """Adds what a module logs to the averages of its split, and computes its torchmetrics objects.

    It carries both through a checkpoint.

    Args:
        splits: the averages of train, valid and test. The history replaces them at each entry.

    Attributes:
        computed: {split: {name: value}} of the torchmetrics objects that this epoch has computed.
    """

    def __init__(self, splits: dict[str, Averages], rank: int, world_size: int):
        self.splits, self.rank, self.world_size = splits, rank, world_size
        self.computed: dict[str, dict[str, float]] = {}
        # {split: [{name: value}]} of the present batch. Several dicts if a name is logged twice.
        self._step: dict[str, list[dict[str, object]]] = {}
        # {(split, name): metric} of the torchmetrics objects that were logged
        self._metrics: dict[tuple[str, str], Metric] = {}
        # ids of the metrics that only an earlier attempt has logged
        self._logged_before: set[int] = set()
        self._before_validation: dict[str, Any] | None = None  # see `validation_begins`
        # what each rank stored in the checkpoint, until `restore`
        self._restored: list[dict[str, Any]] = []
        self._sums: LoggedSums | None = None

    def attach(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to `self.log` from here on."""
        self._trainer, self._module = trainer, module
        # Lightning calls setup for the fit and again for the test, with the same trainer.
        if self._sums is None:
            self._sums = LoggedSums(trainer, self._take)

    # --- within an epoch ---

    def _take(
        self,
        name: str,
        value: Metric | torch.Tensor | float,
        hook: str,
        operation: str,
        samples: int | None,
        loader: int | None,
    ) -> None:
        """Take one value that the module gave to `self.log`.

        The value of a step is added when its batch ends, because the number of its samples is only
        known then.
        """
        # Lightning validates a few batches before the training. Their numbers mean nothing.
        if self._trainer.sanity_checking:
            return
        split, name = split_and_name(name, _stage(self._trainer), loader)
        if isinstance(value, Metric):
            self._metrics[split, name] = value
            self._logged_before.discard(id(value))
        elif not _is_of_a_step(hook) or operation != "mean" or samples is not None:
            self.splits[split].add({name: value}, samples or 1, operation)
        else:
            _put(self._step.setdefault(split, []), name, value)

    def add_step(self, stage: str, outputs: object, samples: int, step: str) -> None:
        """Add what a step returned and logged. A logged value wins if both have the same name.

        Args:
            stage: "train", "valid" or "test".
            outputs: what the step returned.
            samples: in the batch, on this rank.
            step: the name of the step in an error message.
        """
        logged, self._step = self._step, {}
        # A rank without a sample of its own has computed on one that does not count.
        if not samples:
            return
        # A name that was logged twice in a step counts twice.
        mine, *again = logged.pop(stage, [{}])
        self.splits[stage].add({**by_name(outputs), **mine}, samples, step=step)
        for split, several in (logged | {stage: again}).items():
            for values in several:
                self.splits[split].add(values, samples)

    def compute(self, *splits: str) -> None:
        """Compute the torchmetrics objects of these splits, at the end of an epoch.

        All ranks must call it together.
        """
        for (split, name), metric in list(self._metrics.items()):
            if split in splits:
                del self._metrics[split, name]
                self._compute(split, name, metric)
                # Lightning resets only the metrics that were logged in this process.
                if id(metric) in self._logged_before:
                    metric.reset()

    def compute_so_far(self, split: str) -> None:
        """Compute the torchmetrics objects of a split in the middle of an epoch.

        They gather on: Lightning resets those of the training when the epoch ends.
        """
        for (of, name), metric in self._metrics.items():
            if of == split:
                self._compute(split, name, metric)

    def _compute(self, split: str, name: str, metric: Metric) -> None:
        value = metric.compute()
        # A metric may also compute a dict or a matrix, which the history has no place for.
        if getattr(value, "ndim", None) == 0:
            self.computed.setdefault(split, {})[name] = float(value)

    def validation_begins(self) -> None:
        """Note the metrics now: a checkpoint within a validation describes the moment before it."""
        self._before_validation = metric_states(self._module)

    def validation_ends(self) -> None:
        """Forget what `validation_begins` noted."""
        self._before_validation = None

    # --- in the checkpoint ---

    def state(self, epoch_ended: bool) -> dict[str, Any]:
        """Return what each rank has gathered so far. All ranks must call it together.

        Args:
            epoch_ended: Lightning is about to reset the metrics that were logged.
        """
        found: dict[str, Any] = {}
        if self.computed:
            found["computed"] = self.computed
        if self._sums is None:
            return found
        state: dict[str, Any] = {"monitored": self._sums.monitored()}
        if self._before_validation is not None:
            state["metrics"] = self._before_validation
        elif epoch_ended:
            resets = self._sums.metrics_to_reset()
            state["metrics"] = metric_states(self._module, without=resets)
        else:
            state["metrics"] = metric_states(self._module)
        if not epoch_ended:
            state["sums"] = self._sums.sums()
            state["logged"] = self._places()
        every = of_each_rank(state, self.world_size)
        # Most modules log nothing, and then their checkpoints have no such key.
        if any(any(one.values()) for one in every):
            found["module"] = every
        return found

    def _places(self) -> list[list[str]]:
        """Return [split, name, place in the module] of each metric logged in this epoch."""
        places = {id(part): place for place, part in self._module.named_modules()}
        logged = self._metrics.items()
        return [[*key, places[id(metric)]] for key, metric in logged if id(metric) in places]

    def load(self, state: Mapping[str, Any]) -> None:
        """Keep what `state` returned until `restore` is called."""
        self._restored = state.get("module", [])
        self.computed = state.get("computed", {})

    def restore(self) -> None:
        """Put the loaded state into the module, once.

        It must be called after the module's own `on_train_start`, which may reset its metrics.
        """
        if not self._restored or self._sums is None:
            return
        of_ranks, self._restored = self._restored, []
        self._sums.load_monitored(of_ranks[0]["monitored"])
        mine = of_ranks[self.rank : self.rank + 1]
        # If there are fewer ranks than before, the first one also takes what the missing ranks had.
        if self.rank == 0:
            mine += of_ranks[self.world_size :]
        load_metric_states(self._module, [state["metrics"] for state in mine])
        self._sums.load(mine[0].get("sums", {}) if mine else {})
        for split, name, place in of_ranks[0].get("logged", []):
            metric: Any = self._module.get_submodule(place)
            self._metrics[split, name] = metric
            self._logged_before.add(id(metric))


def _put(several: list[dict[str, object]], name: str, value: object) -> None:
    """Put a value into the first dict that does not have its name."""
    for values in several:
        if name not in values:
            values[name] = value
            return
    several.append({name: value})


def _is_of_a_step(hook: str) -> bool:
    """Whether a value was logged in `training_step` or the like.

    With several loaders, Lightning appends the number of the loader to the name of the hook.
    """
    return hook.partition(".")[0].endswith("_step")


def _stage(trainer: Trainer) -> str:
    if trainer.testing:
        return "test"
    return "valid" if trainer.validating else "train"
