"""What a module gives to `self.log`, and what its torchmetrics objects hold: for the history, and
for a checkpoint within an epoch.

Lightning 2.6.6 keeps both in memory alone. A run that is killed within an epoch would average its
rest only. history.py is the one user.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torchmetrics import Metric

from ..upstream.lightning import LoggedSums
from ..upstream.torchmetrics import add_states, states_of, was_updated
from .averages import Averages

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
    """`val/acc`, `val_acc` and `valid.acc` are ("valid", "acc"); other names are of the stage.

    Args:
        stage: "train", "valid" or "test": what the trainer does.
        loader: its number, if there are several.
    """
    found = _NAMED.fullmatch(name)
    split = stage
    # Only a test gives numbers of the test set: no epoch has any.
    if found and (SPLITS[found[1]] == "test") == (stage == "test"):
        split, name = SPLITS[found[1]], found[2]
    return split, name if loader is None else f"{name}/dataloader_idx_{loader}"


class ModuleLog:
    """Takes what a module logs into the averages of its split, and what its torchmetrics objects
    compute; carries both through a checkpoint.

    Args:
        splits: the averages of train, valid and test; the history renews them.

    Attributes:
        computed: {split: {name: value}}, of the metrics of this epoch that were computed.
    """

    def __init__(self, splits: dict[str, Averages], rank: int, world_size: int):
        self.splits, self.rank, self.world_size = splits, rank, world_size
        self.computed: dict[str, dict[str, float]] = {}
        # {split: [{name: value}]} of the present batch; several dicts if a name comes again
        self._step: dict[str, list[dict[str, Any]]] = {}
        self._metrics: dict[tuple[str, str], Metric] = {}  # {(split, name): what was logged}
        self._of_before: set[int] = set()  # ids of those that an earlier attempt logged
        self._before_validation: dict[str, Any] | None = None  # see `metric_states`
        self._restored: list[dict[str, Any]] = []  # of each rank
        self._sums: LoggedSums | None = None

    def attach(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to `self.log` from here on."""
        self._trainer, self._module = trainer, module
        if self._sums is None:
            self._sums = LoggedSums(trainer, self._take)

    # --- within an epoch ---

    def _take(
        self, name: str, value: Any, hook: str, operation: str, samples: int | None, loader: Any
    ) -> None:
        """Called at each `self.log`; a step's values are added when its batch ends."""
        if self._trainer.sanity_checking:
            return
        split, name = split_and_name(name, _stage(self._trainer), loader)
        if isinstance(value, Metric):
            self._metrics[split, name] = value
            self._of_before.discard(id(value))
        elif not _is_of_a_step(hook) or operation != "mean" or samples is not None:
            self.splits[split].add({name: value}, samples or 1, operation)
        else:
            _put(self._step.setdefault(split, []), name, value)

    def add_step(self, stage: str, outputs: Any, samples: int, step: str) -> None:
        """Add what a step returned; what it logged under the same name stands in its place.

        Args:
            stage: train, valid or test.
            samples: of the batch, on this rank.
            step: what to call it in an error.
        """
        logged, self._step = self._step, {}
        if not samples:  # this rank has no sample of the batch: it took one that does not count
            return
        mine, *again = logged.pop(stage, [{}])
        if outputs is not None and not isinstance(outputs, Mapping):
            outputs = {"loss": outputs}
        self.splits[stage].add({**(outputs or {}), **mine}, samples, step=step)
        for split, several in (logged | {stage: again}).items():
            for values in several:
                self.splits[split].add(values, samples)

    def compute(self, *splits: str) -> None:
        """Compute what torchmetrics objects have gathered; all ranks must call it together."""
        for (split, name), metric in list(self._metrics.items()):
            if split in splits:
                del self._metrics[split, name]
                self._compute(split, name, metric)
                if id(metric) in self._of_before:  # Lightning does not know of it
                    metric.reset()

    def compute_so_far(self, split: str) -> None:
        """Compute them and let them go on: Lightning resets those of training as the epoch ends."""
        for (of, name), metric in self._metrics.items():
            if of == split:
                self._compute(split, name, metric)

    def _compute(self, split: str, name: str, metric: Metric) -> None:
        value = metric.compute()
        if getattr(value, "ndim", None) == 0:
            self.computed.setdefault(split, {})[name] = float(value)

    def validation_begins(self) -> None:
        """A checkpoint within a validation is of the moment before it."""
        self._before_validation = metric_states(self._module)

    def validation_ends(self) -> None:
        self._before_validation = None

    # --- in the checkpoint ---

    def state(self, epoch_ended: bool) -> dict[str, Any]:
        """What is summed so far, of each rank; all of them must call it together.

        Args:
            epoch_ended: Lightning is about to reset the metrics that were logged.
        """
        found: dict[str, Any] = {"computed": self.computed} if self.computed else {}
        if self._sums is None:
            return found
        state: dict[str, Any] = {"monitored": self._sums.monitored()}
        if self._before_validation is not None:
            state["metrics"] = self._before_validation
        else:
            ends = self._sums.metrics_to_reset() if epoch_ended else set()
            state["metrics"] = metric_states(self._module, without=ends)
        if not epoch_ended:
            state["sums"] = self._sums.sums()
            state["logged"] = self._places()
        every = of_each_rank(state, self.world_size)
        if any(any(one.values()) for one in every):
            found["module"] = every
        return found

    def _places(self) -> list[list[str]]:
        """[split, name, place in the module] of each metric that was logged in this epoch."""
        places = {id(part): place for place, part in self._module.named_modules()}
        logged = self._metrics.items()
        return [[*key, places[id(metric)]] for key, metric in logged if id(metric) in places]

    def load(self, state: Mapping[str, Any]) -> None:
        """Keep what `state` gave, until `restore`."""
        self._restored = state.get("module", [])
        self.computed = state.get("computed", {})

    def restore(self) -> None:
        """Once, after the module's own on_train_start, which may reset its metrics."""
        if not self._restored or self._sums is None:
            return
        of_ranks, self._restored = self._restored, []
        self._sums.load_monitored(of_ranks[0]["monitored"])
        mine = of_ranks[self.rank : self.rank + 1]
        if self.rank == 0:  # there may be fewer ranks than before
            mine += of_ranks[self.world_size :]
        load_metric_states(self._module, [state["metrics"] for state in mine])
        self._sums.load(mine[0].get("sums", {}) if mine else {})
        for split, name, place in of_ranks[0].get("logged", []):
            metric: Any = self._module.get_submodule(place)
            self._metrics[split, name] = metric
            self._of_before.add(id(metric))


def _put(several: list[dict[str, Any]], name: str, value: Any) -> None:
    """Into the first dict that has no such name."""
    for values in several:
        if name not in values:
            values[name] = value
            return
    several.append({name: value})


def _is_of_a_step(hook: str) -> bool:
    """Whether a hook is training_step and the like; of several loaders it carries the number."""
    return hook.partition(".")[0].endswith("_step")


def _stage(trainer: Trainer) -> str:
    if trainer.testing:
        return "test"
    return "valid" if trainer.validating else "train"


# --- the states of metrics ---


def metric_states(module: LightningModule, without: Collection[int] = ()) -> dict[str, Any]:
    """{its place in the module: what it has gathered}, of each metric that has gathered something.

    Args:
        without: ids of metrics that Lightning is about to reset.
    """
    found = {}
    for place, metric in _metrics(module):
        if id(metric) not in without and was_updated(metric):
            found[place] = states_of(metric)
    return found


def load_metric_states(module: LightningModule, of_ranks: Sequence[Mapping[str, Any]]) -> None:
    """Put back what `metric_states` gave; a metric that is not named is reset.

    Args:
        of_ranks: of this rank; on the first one also of ranks that are no more.
    """
    for place, metric in _metrics(module):
        if was_updated(metric):
            metric.reset()
        for states in of_ranks:
            if place in states:
                add_states(metric, states[place])


def _metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(place, part) for place, part in module.named_modules() if isinstance(part, Metric)]


def of_each_rank(own: Any, world_size: int) -> list[Any]:
    """What each rank has; all must call it together."""
    if world_size == 1:
        return [own]
    every: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(every, _on_cpu(own))
    return every


def _on_cpu(content: Any) -> Any:
    if isinstance(content, torch.Tensor):
        return content.cpu()
    if isinstance(content, Mapping):
        return {key: _on_cpu(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_on_cpu(part) for part in content]
    return content
