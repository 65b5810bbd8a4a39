"""Signals set a flag, nothing else; at the next step boundary all ranks agree, save, and leave.

Work inside a handler hangs now and then (Lightning #21406), and a handler that talks to other ranks always does when
only one of them was signalled.
"""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(BaseException):
    """The run leaves before its end, with its checkpoint written. Not an Exception: nothing may swallow it."""

    def __init__(self, signum: int):
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum  # as a shell reports it: 130 for Ctrl-C


class Signals:
    """The flag: the number of the first signal that came, or 0."""

    def __init__(self) -> None:
        self.signum = 0
        self.since = 0.0

    def install(self) -> "Signals":
        """From here on a signal is noted. A second Ctrl-C leaves at once, as a person expects."""
        for signum in CAUGHT:
            signal.signal(signum, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        # One Ctrl-C reaches a process twice now and then (terminal and parent): a second later it is a person.
        if signum == self.signum == signal.SIGINT and time.monotonic() - self.since > 1:
            raise KeyboardInterrupt
        self.signum = self.signum or signum
        self.since = self.since or time.monotonic()

    def check(self) -> None:
        """Raises: Interrupted if a signal came. For places where nothing has to be saved."""
        if self.signum:
            raise Interrupted(self.signum)


class LeaveOnSignal(Callback):
    """At each step boundary: if any rank was signalled, all save (in training) and leave."""

    def __init__(self, signals: Signals, world_size: int, save: Callable[[Trainer], None]):
        self.signals, self.world_size, self.save = signals, world_size, save

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        signum = self._agreed(trainer)
        if signum:
            # The last batch's checkpoint is the epoch's, after validation: leave there.
            if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
                return
            self.save(trainer)
            raise Interrupted(signum)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._leave(trainer)

    on_test_batch_end = on_validation_batch_end

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        """Leave with the checkpoint that there is: what was done since is done again, with the same result."""
        signum = self._agreed(trainer)
        if signum:
            raise Interrupted(signum)

    def _agreed(self, trainer: Trainer) -> int:
        """The largest number that any rank has noted; every rank gets the same."""
        if self.world_size == 1:
            return self.signals.signum
        noted = torch.tensor(self.signals.signum, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(noted, op=torch.distributed.ReduceOp.MAX)
        return int(noted)
