"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, one line an epoch; and
its heartbeat.

Asked at every step, hence nothing here reads a tensor: that would wait for the GPU.
"""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..experiment.records import State
from ..upstream.lightning import position
from ..words import shown, shown_best
from .history import History, batches_of
from .session import Session

BAR_EVERY, LINE_EVERY, BEAT_EVERY = 0.1, 5.0, 10.0  # seconds


class ShowProgress(Checkpoint):
    """Rank 0's display, and what it writes of itself into `state.json`."""

    def __init__(self, session: Session, history: History):
        self.session, self.history = session, history
        self.bar: Progress | None = None
        self._drawn = self._lined = self._beaten = 0.0
        self._mark = (0.0, 0)  # time and total batches when the speed was last measured
        self._speed: float | None = None
        self._gap: float | None = None
        self._epoch_began = 0.0

    # --- the epochs ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._drawn = self._lined = self._beaten = self._epoch_began = time.monotonic()
        self._mark = (time.monotonic(), self._total(trainer))
        if self.session.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(compact=True),
                console=self.session.console,
                transient=True,
            )
            self.bar.add_task("", total=None, speed="")
            self.bar.start()
        self._beat(trainer, *position(trainer))  # an earlier attempt may have been further

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._epoch_began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = len(self.history.entries)
        took = time.monotonic() - self._epoch_began
        self._measure(trainer)
        self.session.log(epoch_line(epoch, epochs_of(trainer), self.history, took))
        self._beat(trainer, epoch, 0)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    # --- the steps ---

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self.bar and now - self._drawn > BAR_EVERY:
            self._drawn = now
            self._draw(trainer, batch_idx + 1)
        if not self.bar and now - self._lined > LINE_EVERY:
            self._lined = now
            self._measure(trainer)
            self.session.log(
                f"{counted('epoch', len(self.history.entries) + 1, epochs_of(trainer))}  "
                f"{counted('batch', batch_idx + 1, batches_of(trainer))}  {self._shown_speed()}"
            )
        if now - self._beaten > BEAT_EVERY:
            self._measure(trainer)
            self._beat(trainer, len(self.history.entries), batch_idx + 1)

    def _draw(self, trainer: Trainer, batch: int) -> None:
        assert self.bar is not None
        self._measure(trainer)
        task = self.bar.tasks[0].id
        description = counted("epoch", len(self.history.entries) + 1, epochs_of(trainer))
        self.bar.update(
            task,
            completed=batch,
            total=batches_of(trainer),
            description=description,
            speed=self._shown_speed(),
        )

    def _total(self, trainer: Trainer) -> int:
        return trainer.fit_loop.total_batch_idx + 1

    def _measure(self, trainer: Trainer) -> None:
        """Batches a second since the last measure, at least half a second ago."""
        then, count = self._mark
        now, total = time.monotonic(), self._total(trainer)
        if now - then > 0.5 and total > count:
            self._speed = (total - count) / (now - then)
            self._mark = (now, total)

    def _shown_speed(self) -> str:
        if self._speed is None:
            return ""
        return f"{self._speed:.0f} it/s" if self._speed >= 10 else f"{self._speed:.2f} it/s"

    def _beat(self, trainer: Trainer, epoch: int, batch: int) -> None:
        now = time.monotonic()
        self._gap, self._beaten = max(self._gap or 0.0, now - self._beaten), now
        self.session.report(
            State.RUNNING,
            epoch=epoch,
            batch=batch,
            batches=batches_of(trainer) or 0,
            step=trainer.global_step,
            speed=self._speed,
            gap=self._gap,
            best=self.history.best,
        )


def counted(what: str, number: int, of: int | None) -> str:
    """`epoch  7/20`, in a width that stays."""
    return f"{what} {number:>{len(str(of))}}/{of}" if of else f"{what} {number}"


def epochs_of(trainer: Trainer) -> int | None:
    """Epochs asked for; None where steps or the clock end the run."""
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None


def epoch_line(epoch: int, epochs: int | None, history: History, seconds: float) -> str:
    """`epoch  7/20  train loss 0.214 │ valid loss 0.131 acc 0.972  best valid acc 0.975 @5  3.1 s`."""
    entry = history.entries[-1]
    splits = [f"{split} {shown(metrics)}" for split, metrics in entry.items()]
    best = f"  best {shown_best(history.best, history.metric)}" if history.best else ""
    return f"{counted('epoch', epoch, epochs)}  {' │ '.join(splits)}{best}  {seconds:.1f} s"
