"""Shows a run to a person, and writes its heartbeat.

A terminal has a bar. Elsewhere there are plain lines, and one line per epoch. Nothing here reads a
tensor: it is called at every step, and would wait for the GPU each time.
"""

import time

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
    """Rank 0's display, and the progress that it writes into `state.json`."""

    def __init__(self, session: Session, history: History):
        self.session, self.history = session, history
        self.bar: Progress | None = None
        # Times are seconds of the monotonic clock.
        self._drawn = self._lined = self._beaten = self._entry_began = 0.0
        self._measured = (0.0, 0)  # time and total batches when the speed was last measured
        self._speed: float | None = None  # batches per second
        self._gap: float | None = None  # the longest time between two heartbeats

    # --- the epochs ---

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._drawn = self._lined = self._beaten = self._entry_began = time.monotonic()
        self._measured = (time.monotonic(), self._total(trainer))
        if self.session.console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(compact=True),
                # Lines that are logged appear above the bar, and the bar goes when the run ends.
                console=self.session.console,
                transient=True,
            )
            self.bar.add_task("", total=None, speed="")
            self.bar.start()
        # At once: an earlier attempt may have written a later place.
        self._beat(trainer, *position(trainer))

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        # With an entry per validation, its time runs from the entry before it.
        if not self.history.by_validation:
            self._entry_began = time.monotonic()

    def on_entry(self, trainer: Trainer, module: LightningModule) -> None:
        """Log the line of a new entry."""
        now = time.monotonic()
        took, self._entry_began = now - self._entry_began, now
        self._measure(trainer)
        self.session.log(entry_line(self._place(trainer), self.history, took))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._measure(trainer)
        self._beat(trainer, self.history.epochs, 0)

    def _place(self, trainer: Trainer) -> str:
        """Return the place of a new entry: as `_where`, and its step if entries have steps."""
        place = self._where(trainer)
        if self.history.by_validation and not ends_by_steps(trainer):
            place += f"  step {trainer.global_step}"
        return place

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        # A bar that is not stopped leaves the terminal without a cursor.
        if self.bar:
            self.bar.stop()
            self.bar = None

    # --- the steps ---

    def on_train_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if self.bar and now - self._drawn > BAR_EVERY:
            self._drawn = now
            self._draw(self.bar, trainer, batch_idx + 1)
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

    def _draw(self, bar: Progress, trainer: Trainer, batch: int) -> None:
        self._measure(trainer)
        done, total = batch, batches_of(trainer)
        if ends_by_steps(trainer):
            done, total = trainer.global_step, trainer.max_steps
        bar.update(
            bar.tasks[0].id,
            completed=done,
            total=total,
            description=self._where(trainer),
            speed=self._shown_speed(),
        )

    def _where(self, trainer: Trainer) -> str:
        """Return `epoch  7/20`, or `step  700/2000` of a run that ends by its steps."""
        if ends_by_steps(trainer):
            return counted("step", trainer.global_step, trainer.max_steps)
        return counted("epoch", self.history.epoch, epochs_of(trainer))

    def _total(self, trainer: Trainer) -> int:
        return trainer.fit_loop.total_batch_idx + 1

    def _measure(self, trainer: Trainer) -> None:
        """Measure the speed since the last measure."""
        then, count = self._measured
        now, total = time.monotonic(), self._total(trainer)
        # In a shorter time, one batch more or less would change the speed too much.
        if now - then > 0.5 and total > count:
            self._speed = (total - count) / (now - then)
            self._measured = (now, total)

    def _shown_speed(self) -> str:
        if self._speed is None:
            return ""
        if self._speed >= 10:
            return f"{self._speed:.0f} it/s"
        return f"{self._speed:.2f} it/s"

    def _beat(self, trainer: Trainer, epoch: int, batch: int) -> None:
        """Write the progress into `state.json`, with the epochs and batches that are finished."""
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
    """Return `epoch  7/20`, in a width that stays the same, or `epoch 7` if there is no limit."""
    if not of:
        return f"{what} {number}"
    return f"{what} {number:>{len(str(of))}}/{of}"


def epochs_of(trainer: Trainer) -> int | None:
    """Return the epochs asked for, or None if steps or the clock end the run."""
    epochs = trainer.max_epochs or 0
    return epochs if epochs > 0 else None


def ends_by_steps(trainer: Trainer) -> bool:
    """Whether a number of steps ends the run, and no number of epochs."""
    return trainer.max_steps > 0 and epochs_of(trainer) is None


def entry_line(place: str, history: History, seconds: float) -> str:
    """Return the line of the last entry.

    E.g. `epoch  7/20  train loss 0.214 │ valid loss 0.131 acc 0.972  best valid acc 0.975 @5  3.1 s`.
    """
    entry = metrics_of(history.entries[-1])
    splits = [f"{split} {shown(metrics)}" for split, metrics in entry.items()]
    best = f"  best {shown_best(history.best, history.metric)}" if history.best else ""
    return f"{place}  {' │ '.join(splits)}{best}  {seconds:.1f} s"
