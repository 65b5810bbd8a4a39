"""What Lightning's trainer has no public name for: where it is, and what it does next."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


def without_signal_handlers(trainer: Any) -> None:
    """Keep Lightning 2.6.6 from installing its handlers: they broadcast inside the handler, and
    hang two ranks."""
    trainer._signal_connector.register_signal_handlers = lambda: None


def resumed_by_epochs(trainer: Any) -> None:
    """Resume where `max_steps` is set as where it is not.

    Lightning 2.6.6 then takes a checkpoint of an epoch's end for one within it: it ends the epoch a
    second time, with no batch in it (`_FitLoop.restarting`).
    """
    trainer.fit_loop._iteration_based_training = lambda: False


@contextlib.contextmanager
def as_before_validation(trainer: Any) -> Iterator[None]:
    """Let a checkpoint that is saved within a validation be one from which all of it is done again.

    Lightning 2.6.6 goes on in the middle of a validation whose counters say so, at its next batch;
    with none done, that is the first.
    """
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    before = progress.state_dict()
    progress.reset()
    progress.total.ready = progress.total.started = 1
    yield
    progress.load_state_dict(before)


def trains_no_further(trainer: Any) -> bool:
    """Whether a Lightning 2.6.6 trainer has just done its last step: of max_steps, or told to
    stop."""
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.should_stop and trainer.fit_loop._can_stop_early  # by min_steps and min_epochs


def ends_the_epoch(trainer: Any) -> bool:
    """Whether the batch that a Lightning 2.6.6 trainer has just done is the last one of the epoch."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trains_no_further(trainer)


def validates_next(trainer: Any) -> bool:
    """Whether a Lightning 2.6.6 trainer validates after the batch that it has just done."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def position(trainer: Any) -> tuple[int, int]:
    """Where the training of a Lightning 2.6.6 trainer is: (epochs finished, batches of this epoch
    finished)."""
    loop = trainer.fit_loop
    epoch = loop.epoch_progress.current
    # Batches of a loader without a length are asked for between two epochs, too.
    is_within = epoch.ready != epoch.processed
    return epoch.processed, loop.epoch_loop.batch_progress.current.ready if is_within else 0


def batches_that_stepped(trainer: Any) -> int:
    """Batches after which a Lightning 2.6.6 trainer's optimizers stepped, however many they are."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


# --- what a module logs ---


class LoggedSums:
    """Tells of each call of `self.log`, and carries Lightning's own sums through a checkpoint.

    Lightning 2.6.6 sums what is logged in `_results`, for whoever monitors it: early stopping,
    schedulers. A resume within an epoch would begin those sums again.

    Args:
        told: called with (name, value, hook, operation, batch_size, number of the loader).
    """

    def __init__(self, trainer: Any, told: Callable[..., None]):
        self.trainer, self.told = trainer, told
        self._kept: dict[str, Any] = {}
        fit = trainer.fit_loop.epoch_loop
        for results in (fit._results, fit.val_loop._results, trainer.test_loop._results):
            results.log = functools.partial(self._log, results, results.log)

    def _log(
        self, results: Any, log: Callable[..., None], fx: str, name: str, value: Any, **how: Any
    ) -> None:
        # Means over an epoch reach the loggers from the history, once and under one name.
        how["logger"] = how.get("logger", True) and how.get("on_step", False)
        # What schedulers and early stopping look at must be the same on every rank.
        if how.get("on_epoch") and not how.get("on_step") and not how.get("rank_zero_only"):
            how["sync_dist"] = self.trainer.world_size > 1
        log(fx, name, value, **how)
        loader = results.dataloader_idx if how.get("add_dataloader_idx", True) else None
        key = f"{fx}.{name}"
        if loader is None and key in self._kept and results is self._of_epoch:
            _add_sums(results[key], self._kept.pop(key))
        reduce = how.get("reduce_fx", "mean")
        operation = reduce if isinstance(reduce, str) else reduce.__name__
        self.told(name, value, fx, operation.replace("avg", "mean"), how.get("batch_size"), loader)

    @property
    def _of_epoch(self) -> Any:
        return self.trainer.fit_loop.epoch_loop._results

    def sums(self) -> dict[str, Any]:
        """{key: the tensors of its sum}, of the epoch so far."""
        found = {}
        for key, item in self._of_epoch.items():
            if item.is_tensor and not item.has_reset and item.meta.on_epoch:
                found[key] = {name: getattr(item, name).clone() for name in item._defaults}
        return self._kept | found

    def load(self, sums: dict[str, Any]) -> None:
        """Add these to the sums of the epoch, each when its name is logged again."""
        self._kept = dict(sums)

    def metrics_to_reset(self) -> set[int]:
        """The ids of the metrics that Lightning resets as the epoch ends."""
        return {id(item.value) for item in self._of_epoch.values() if not item.is_tensor}

    def monitored(self) -> dict[str, Any]:
        """The values that schedulers and early stopping look at: {name: scalar tensor}."""
        return {name: value.clone() for name, value in self.trainer.callback_metrics.items()}

    def load_monitored(self, values: dict[str, Any]) -> None:
        self.trainer._logger_connector._callback_metrics.update(values)


def _add_sums(item: Any, kept: dict[str, Any]) -> None:
    kept = {name: value.to(item.value.device) for name, value in kept.items()}
    if item.meta.is_max_reduction or item.meta.is_min_reduction:
        item.value = item.meta.reduce_fx(item.value, kept["value"])
        return
    for name, value in kept.items():
        setattr(item, name, getattr(item, name) + value)


class PlateausBeforeTheSave:
    """Steps ReduceLROnPlateau before the checkpoint of an epoch's end.

    Lightning 2.6.6 does it behind all callbacks, and not at all in an epoch that was resumed. So a
    checkpoint would lack the step.
    """

    def __init__(self, trainer: Any):
        self.loop = trainer.fit_loop.epoch_loop
        self._update = self.loop.update_lr_schedulers
        self.loop.update_lr_schedulers = self._without_plateaus

    def _without_plateaus(self, interval: str, update_plateau_schedulers: bool) -> None:
        if interval != "epoch" or not update_plateau_schedulers:
            self._update(interval, update_plateau_schedulers=update_plateau_schedulers)

    def step(self) -> None:
        """As Lightning does at the end of a whole epoch."""
        if self.loop._num_ready_batches_reached():
            self._update("epoch", update_plateau_schedulers=True)
