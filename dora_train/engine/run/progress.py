"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, one line an epoch; and
its heartbeat.

Asked at every step, hence nothing here reads a tensor: that would wait for the GPU.
"""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...best_so_far import metrics_of
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
        self._entry_began = 0.0

    # --- the epochs ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._drawn = self._lined = self._beaten = self._entry_began = time.monotonic()
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
        if not self.history.by_validation:
            self._entry_began = time.monotonic()

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        now = time.monotonic()
        took, self._entry_began = now - self._entry_began, now
        self._measure(trainer)
        self.session.log(entry_line(self._place(trainer), self.history, took))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._measure(trainer)
        self._beat(trainer, self.history.epochs, 0)

    def _place(self, trainer: Trainer) -> str:
        """`epoch  7/20`; of a run that ends by its steps `step  700/2000`."""
        if ends_by_steps(trainer):
            return counted("step", trainer.global_step, trainer.max_steps)
        place = counted("epoch", self.history.epoch, epochs_of(trainer))
        return f"{place}  step {trainer.global_step}" if self.history.by_validation else place

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
                f"{self._where(trainer)}  "
                f"{counted('batch', batch_idx + 1, batches_of(trainer))}  {self._shown_speed()}"
            )
        if now - self._beaten > BEAT_EVERY:
            self._measure(trainer)
            self._beat(trainer, self.history.epochs, batch_idx + 1)

    def _draw(self, trainer: Trainer, batch: int) -> None:
        assert self.bar is not None
        self._measure(trainer)
        task = self.bar.tasks[0].id
        by_steps = ends_by_steps(trainer)
        self.bar.update(
            task,
            completed=trainer.global_step if by_steps else batch,
            total=trainer.max_steps if by_steps else batches_of(trainer),
            description=self._where(trainer),
            speed=self._shown_speed(),
        )

    def _where(self, trainer: Trainer) -> str:
        """Of the epoch, or of the steps, that is being trained."""
        if ends_by_steps(trainer):
            return counted("step", trainer.global_step, trainer.max_steps)
        return counted("epoch", self.history.epoch, epochs_of(trainer))

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
            steps=trainer.max_steps if trainer.max_steps > 0 else None,
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


def ends_by_steps(trainer: Trainer) -> bool:
    """Whether a number of steps ends the run, and none of epochs."""
    return trainer.max_steps > 0 and epochs_of(trainer) is None


def entry_line(place: str, history: History, seconds: float) -> str:
    """`epoch  7/20  train loss 0.214 │ valid loss 0.131 acc 0.972  best valid acc 0.975 @5  3.1 s`."""
    entry = metrics_of(history.entries[-1])
    splits = [f"{split} {shown(metrics)}" for split, metrics in entry.items()]
    best = f"  best {shown_best(history.best, history.metric)}" if history.best else ""
    return f"{place}  {' │ '.join(splits)}{best}  {seconds:.1f} s"
