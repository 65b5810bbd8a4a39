"""Private parts of Lightning's trainer: where it is, and what it does next."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Lightning takes seconds to import
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.trainer.connectors.logger_connector.result import (
        _ResultCollection,
        _ResultMetric,
    )


def without_signal_handlers(trainer: pl.Trainer) -> None:
    """Keep Lightning 2.6.6 from installing its signal handlers.

    They broadcast inside the handler, so that two ranks wait for each other without an end.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def resumed_by_epochs(trainer: pl.Trainer) -> None:
    """Let a trainer with `max_steps` resume as one without.

    With `max_steps`, Lightning 2.6.6 takes a checkpoint of an epoch's end for one within the epoch.
    It ends the epoch a second time, with no batch in it (`_FitLoop.restarting`).
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


@contextlib.contextmanager
def as_before_validation(trainer: pl.Trainer) -> Iterator[None]:
    """Let a checkpoint that is saved within a validation repeat all of it after a resume.

    Lightning 2.6.6 resumes a validation at the batch that its counters name. With the counters of
    one that has done no batch, that is the first.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = progress.state_dict()
    progress.reset()
    total: Any = progress.total  # its class in fact has `started`
    total.ready = total.started = 1
    yield
    progress.load_state_dict(before)


def trains_no_further(trainer: pl.Trainer) -> bool:
    """Whether a Lightning 2.6.6 trainer has just done its last step.

    It is the last one of `max_steps`, or something told the trainer to stop.
    """
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.should_stop and trainer.fit_loop._can_stop_early  # by min_steps and min_epochs


def ends_the_epoch(trainer: pl.Trainer) -> bool:
    """Whether the batch that a Lightning 2.6.6 trainer has just done is the last one of the epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trains_no_further(trainer)


def validates_next(trainer: pl.Trainer) -> bool:
    """Whether a Lightning 2.6.6 trainer validates after the batch that it has just done."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None  # a trainer that has done a batch has one
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def position(trainer: pl.Trainer) -> tuple[int, int]:
    """Where the training of a Lightning 2.6.6 trainer is.

    Returns:
        (epochs finished, batches of this epoch finished).
    """
    loop = trainer.fit_loop
    epoch: Any = loop.epoch_progress.current  # its class in fact has `processed`
    # Between two epochs the counter of batches is still that of the epoch before. A loader without
    # a length is asked for batches there, too.
    if epoch.ready == epoch.processed:
        return epoch.processed, 0
    return epoch.processed, loop.epoch_loop.batch_progress.current.ready


def repeats(loaders: object) -> bool:
    """Whether Lightning 2.6.6 reads a shorter one of several training loaders again.

    It does so for a list, a dict, and a CombinedLoader of that mode.
    """
    from pytorch_lightning.utilities import CombinedLoader

    if isinstance(loaders, CombinedLoader):
        return loaders._mode == "max_size_cycle"
    return isinstance(loaders, (list, tuple, dict))


def train_loaders(trainer: pl.Trainer) -> list[Any]:
    """The training loaders of a Lightning 2.6.6 trainer, also those within others."""
    combined = trainer.fit_loop._combined_loader
    return list(combined.flattened) if combined is not None else []


def batches_that_stepped(trainer: pl.Trainer) -> int:
    """The number of batches after which a Lightning 2.6.6 trainer's optimizers stepped.

    With two optimizers, `global_step` counts each batch twice.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


# --- logged values ---


class LoggedSums:
    """Reports each call of `self.log`, and carries Lightning's own sums through a checkpoint.

    Lightning 2.6.6 sums logged values in `_results`, for early stopping and schedulers. A resume
    within an epoch would begin those sums again.

    Args:
        told: called with (name, value, hook, operation, batch_size, number of the loader).
    """

    def __init__(self, trainer: pl.Trainer, told: Callable[..., None]):
        self.trainer, self.told = trainer, told
        self._kept: dict[str, Any] = {}
        fit = trainer.fit_loop.epoch_loop
        for results in (fit._results, fit.val_loop._results, trainer.test_loop._results):
            results.log = functools.partial(self._log, results, results.log)

    def _log(
        self,
        results: _ResultCollection,
        log: Callable[..., None],
        fx: str,
        name: str,
        value: object,
        **how: Any,
    ) -> None:
        """Log a value as Lightning does, and report it."""
        # Means over an epoch reach the loggers from the history, once and under one name.
        how["logger"] = how.get("logger", True) and how.get("on_step", False)
        # Schedulers and early stopping must see the same value on every rank.
        if how.get("on_epoch") and not how.get("on_step") and not how.get("rank_zero_only"):
            how["sync_dist"] = self.trainer.world_size > 1
        log(fx, name, value, **how)
        loader = None
        if how.get("add_dataloader_idx", True):
            loader = results.dataloader_idx
        key = f"{fx}.{name}"
        if loader is None and key in self._kept and results is self._of_epoch:
            _add_sums(results[key], self._kept.pop(key))
        reduce = how.get("reduce_fx", "mean")
        operation = reduce if isinstance(reduce, str) else reduce.__name__
        self.told(name, value, fx, operation.replace("avg", "mean"), how.get("batch_size"), loader)

    @property
    def _of_epoch(self) -> _ResultCollection:
        return self.trainer.fit_loop.epoch_loop._results

    def sums(self) -> dict[str, Any]:
        """{key: {name: the tensors of its sum}}, of the epoch so far."""
        found = {}
        for key, item in self._of_epoch.items():
            if item.is_tensor and not item.has_reset and item.meta.on_epoch:
                found[key] = {name: getattr(item, name).clone() for name in item._defaults}
        return self._kept | found

    def load(self, sums: dict[str, Any]) -> None:
        """Add these to the sums of the epoch. Each is added when its name is logged again."""
        self._kept = dict(sums)

    def metrics_to_reset(self) -> set[int]:
        """The ids of the metric objects that Lightning resets when the epoch ends."""
        return {id(item.value) for item in self._of_epoch.values() if not item.is_tensor}

    def monitored(self) -> dict[str, Any]:
        """The values that schedulers and early stopping see: {name: scalar tensor}."""
        return {name: value.clone() for name, value in self.trainer.callback_metrics.items()}

    def load_monitored(self, values: dict[str, Any]) -> None:
        """Let schedulers and early stopping see these values, as `monitored` gave them."""
        self.trainer._logger_connector._callback_metrics.update(values)


def _add_sums(item: _ResultMetric, kept: dict[str, torch.Tensor]) -> None:
    """Add sums of before a resume to those of after it. A maximum or minimum is taken of both."""
    kept = {name: value.to(item.value.device) for name, value in kept.items()}
    if item.meta.is_max_reduction or item.meta.is_min_reduction:
        item.value = item.meta.reduce_fx(item.value, kept["value"])
        return
    for name, value in kept.items():
        setattr(item, name, getattr(item, name) + value)


class PlateausBeforeTheSave:
    """Steps ReduceLROnPlateau before the checkpoint of an epoch's end is saved.

    Lightning 2.6.6 does it after all callbacks, so the checkpoint would lack the step. In an epoch
    that was resumed, it does not do it at all.
    """

    def __init__(self, trainer: pl.Trainer):
        self.loop = trainer.fit_loop.epoch_loop
        self._update = self.loop.update_lr_schedulers
        self.loop.update_lr_schedulers = self._without_plateaus  # type: ignore[method-assign]

    def _without_plateaus(self, interval: str, update_plateau_schedulers: bool) -> None:
        if interval != "epoch" or not update_plateau_schedulers:
            self._update(interval, update_plateau_schedulers=update_plateau_schedulers)

    def step(self) -> None:
        """Step the schedulers, as Lightning does at the end of a whole epoch."""
        if self.loop._num_ready_batches_reached():
            self._update("epoch", update_plateau_schedulers=True)
