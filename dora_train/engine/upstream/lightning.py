"""What Lightning's trainer has no public name for: where it is, and what it does next."""

import contextlib
from collections.abc import Iterator
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


def validates_next(trainer: Any) -> bool:
    """Whether a Lightning 2.6.6 trainer validates after the batch that it has just done."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)


def position(trainer: Any) -> tuple[int, int]:
    """Where the training of a Lightning 2.6.6 trainer is: (epochs finished, batches of this epoch
    finished)."""
    loop = trainer.fit_loop
    return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready
