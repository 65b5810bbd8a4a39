"""The Lightning trainer of a run: built from `cfg.trainer` and the ranks, fitted from where the
last attempt stopped.

`train(module, data, cfg)` is the last line of `main`. The reader sees here which callbacks there
are and in which order they act at an epoch's end: history, display, loggers, then the checkpoint
that holds it all.
"""

import atexit
import math
import shlex
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.model_helpers import is_overridden

from ... import counters
from ..errors import UserError
from ..experiment.checkpoint import holds_objects
from ..experiment.folder import Experiment
from ..files import read_json
from ..shell import typed
from ..upstream.lightning import (
    batches_that_stepped,
    resumed_by_epochs,
    without_signal_handlers,
)
from ..words import shown_best, shown_path, shown_test
from .averaging import AverageWeights
from .boundary import StepBoundary
from .checkpoints import AtomicCheckpointIO, Checkpoints, thin_out
from .checks import check_batches, counted, trainer_keywords
from .endings import EarlyStop, KeepStop, StopHopeless, StopOnNan
from .environment import RanksEnvironment, leave_group
from .given import Hooks, Loaders, Splits, described, given
from .history import History
from .loaders import SameAsOneRank
from .loggers import CSV, LogHistory, lightning_loggers
from .profile import Unasked, WhereTimeGoes
from .progress import ShowProgress
from .ranks import Ranks
from .resume import Resume, take_up, weights_to_test
from .same_data import keep_or_refuse, refuse_learned
from .session import Session, current
from .start import start_from


def train(module: pl.LightningModule, data: Any, cfg: Any) -> dict[str, Any]:
    """Fit `module`, resuming where the last attempt stopped; then measure the best checkpoint on
    the test set, once.

    Args:
        module: any LightningModule. What its steps return as a dict, and what it gives to
            `self.log`, is averaged over the epoch and goes into the history. If it has
            `artifacts(folder)`, that is called at the end, to write files of its own.
        data: a LightningDataModule; or an object with `train`, and maybe `valid` and `test`, each a
            DataLoader, a Dataset, an iterable of batches, several loaders, or batches with
            `epoch(...)` as `dora_train.data.Batches`; or None, if the module has its own loaders.
            All else is optional: `to(device)`, where the batches are wanted; `train.check(...)`,
            which refuses batches that are too small; `contents()` and `inputs`, which are stored.

    Returns:
        What `result.json` holds: {"best": {...}, "test": {...}, "epochs": int, "steps": int,
        "reason": str}.
    """
    session = current()
    session.signals.at_once = False  # from here on a signal waits for the next step boundary
    # several leave together, at the first boundary: one must not wait for another
    if session.ranks.world_size == 1:
        session.signals.check()
    resume = session.resume or Resume()
    keep_or_refuse(session, data, resumes=bool(resume.content))
    history = History(cfg.best.metric, cfg.best.mode, session.ranks.rank, session.ranks.world_size)
    trainer = build_trainer(cfg, session, module, history, first_void_step(resume.content))
    source = given(module, data, _loaders(cfg, session, trainer, resume))
    _check_data(trainer, session, module, data, source)
    prepare(module, cfg, trainer)
    if cfg.continue_from and not resume.content:
        _take_weights(session, cfg, module, data)
    if hasattr(data, "to"):
        data.to(trainer.strategy.root_device)
    _announce(session, cfg, module, data, trainer, source, resume)
    _fit(session, trainer, module, source, resume)
    reason = end_reason(trainer)
    _write_history(session, history)
    result = _tested(trainer, module, source, session, history, reason)
    session.finish(result)
    if session.ranks.is_first:
        thin_out(session.experiment, cfg.checkpoint.keep)
    _last_lines(session, result, cfg.best.metric)
    _say_profile(session, trainer, resume.content.get("global_step", 0))
    return result


def _take_weights(session: Session, cfg: Any, module: pl.LightningModule, data: Any) -> None:
    """Begin with the weights that `continue_from` names."""
    refuse_learned(session, cfg.continue_from, data, cfg.data)
    digest = session.origin().get("sha256", "")
    session.log(start_from(module, cfg.continue_from, digest, session.find))


def _fit(
    session: Session,
    trainer: pl.Trainer,
    module: pl.LightningModule,
    source: Splits | Hooks,
    resume: Resume,
) -> None:
    if session.ranks.is_first:
        take_up(session.experiment, resume)
    session.begins(resume.epoch, resume.content.get("global_step", 0))
    trainer.fit(
        module,
        **source.to_fit(),
        ckpt_path=resume.checkpoint,
        weights_only=not resume.holds_objects,
    )


def _loaders(cfg: Any, session: Session, trainer: pl.Trainer, resume: Resume) -> Loaders:
    settings = cfg.get("data") or {}
    return Loaders(trainer, session.ranks, cfg.seed, settings, overfits(cfg, resume), session.log)


def _check_data(
    trainer: pl.Trainer,
    session: Session,
    module: pl.LightningModule,
    data: Any,
    source: Splits | Hooks,
) -> None:
    """What can be refused as soon as the data are known.

    Raises:
        UserError: the limits leave no batch.
        DataError: the batches are too small for the module.
    """
    lengths = source.lengths()
    check_batches(trainer, lengths)
    train: Any = getattr(data, "train", None)
    if hasattr(train, "check"):
        batches = counted(trainer.limit_train_batches, len(train))
        train.check(module, session.ranks.world_size, batches)


def overfits(cfg: Any, resume: Resume) -> bool:
    """Whether every epoch has the same batches: see `History.rule`."""
    return bool(cfg.trainer.get("overfit_batches")) and resume.rule > 1


def prepare(module: pl.LightningModule, cfg: Any, trainer: pl.Trainer) -> None:
    """What the configuration asks of the network itself; the names of its weights stay as they are.

    The precision comes first: Lightning 2.6.6 reads a checkpoint before it converts the module, and
    would round float64 weights to float32.
    """
    trainer.precision_plugin.convert_module(module)
    if cfg.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cfg.compile:
        module.compile()


def build_trainer(
    cfg: Any, session: Session, module: pl.LightningModule, history: History, void: int
) -> pl.Trainer:
    """Lightning's Trainer with our ranks, callbacks and checkpoints.

    Args:
        void: the optimizer step from which on what an earlier attempt logged is void.
    """
    ranks = session.ranks
    names = list(cfg.logger or [])
    first = ranks.is_first
    checkpoints = Checkpoints(
        session.experiment, history, first, cfg.checkpoint.every_epochs, session.saved
    )
    callbacks: list[pl.Callback] = [SameAsOneRank(ranks, cfg.seed, counters.seed_all), KeepStop()]
    if cfg.ema.decay:
        callbacks.append(AverageWeights(cfg.ema.decay, ranks.world_size))
    callbacks += [instantiate(callback) for callback in cfg.get("callbacks") or []]
    # Lightning calls these behind the others and behind the module's own hooks, in this order.
    callbacks.append(history)
    if cfg.stop_on_nan:
        callbacks.append(StopOnNan(history))
    if cfg.early_stopping.patience:
        callbacks.append(EarlyStop(history, cfg.early_stopping.patience))
    if first:
        callbacks.append(ShowProgress(session, history))
        callbacks.append(LogHistory(session.experiment, history, CSV in names))
    if session.stop:
        callbacks.append(StopHopeless(history, session.stop))
    minutes = cfg.checkpoint.every_minutes
    callbacks.append(
        StepBoundary(session.signals, ranks.world_size, checkpoints.save_last, minutes)
    )
    callbacks.append(checkpoints)
    trainer = pl.Trainer(
        **trainer_keywords(cfg),
        **devices(cfg, ranks, module),
        callbacks=callbacks,
        plugins=[RanksEnvironment(ranks), AtomicCheckpointIO()],
        logger=lightning_loggers(names, session.experiment.folder, void) if first else False,
        default_root_dir=str(session.experiment.folder),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if ranks.world_size > 1:
        atexit.register(leave_group)
    trainer.profiler = WhereTimeGoes(trainer.strategy.root_device) if cfg.profile else Unasked()  # type: ignore
    without_signal_handlers(trainer)
    resumed_by_epochs(trainer)
    return trainer


def first_void_step(checkpoint: Mapping[str, Any]) -> int:
    """The first optimizer step whose log entry is not of what `checkpoint` holds.

    An epoch is logged at its last step. A checkpoint of its end has that entry; one within its
    validation, at the same step, does not: an attempt killed between the two may have logged it.
    """
    if not checkpoint:
        return 1
    epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return checkpoint["global_step"] + (epoch["ready"] == epoch["processed"])


def devices(cfg: Any, ranks: Ranks, module: pl.LightningModule) -> dict[str, Any]:
    """One device per rank; DDP if there are several ranks."""
    if ranks.world_size == 1:
        return {"devices": 1, "num_nodes": 1}
    strategy = pl.strategies.DDPStrategy(
        process_group_backend=_backend(str(cfg.trainer.accelerator)),
        # With several optimizers, each backward pass reaches the parameters of one.
        find_unused_parameters=not module.automatic_optimization,
    )
    return {"devices": ranks.local_size, "num_nodes": ranks.num_nodes, "strategy": strategy}


def _backend(accelerator: str) -> str:
    return "nccl" if accelerator != "cpu" and torch.cuda.is_available() else "gloo"


def end_reason(trainer: pl.Trainer) -> str:
    """Why the fit came to its end; steps first, since where both limits meet, a resumed fit stops
    at those.

    Raises:
        UserError: it came to none; a run that merely returned is not finished.
    """
    if trainer.max_steps not in (None, -1) and trainer.global_step >= trainer.max_steps:
        return "max_steps"
    is_last = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs
    if is_last and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return "max_epochs"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or math.inf) <= 0:
            return "max_time"
    if trainer.should_stop:
        return "stopped early"
    raise UserError("the training returned before its end, for no reason that is known.")


def _write_history(session: Session, history: History) -> None:
    """Also where the fit had nothing left to do: an earlier attempt may have been killed before it
    wrote it."""
    if session.ranks.is_first and session.experiment.history() != history.entries:
        session.experiment.write_history(history.entries)


def _tested(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    source: Splits | Hooks,
    session: Session,
    history: History,
    reason: str,
) -> dict[str, Any]:
    """The result, with the test set measured on the best weights; without a best epoch on the
    last. Without a test set, nothing is measured."""
    steps, epochs = steps_of(trainer), history.epochs
    arguments, test = source.to_test(), {}
    if arguments is not None and is_overridden("test_step", module):
        checkpoint = weights_to_test(session.experiment, history.best)
        trainer.test(
            module,
            **arguments,
            ckpt_path=checkpoint,
            verbose=False,
            weights_only=not holds_objects(checkpoint),
        )
        test = history.means("test")
    if session.ranks.is_first and hasattr(module, "artifacts"):
        module.artifacts(session.experiment.folder)  # type: ignore[operator]
    return {"best": history.best, "test": test, "epochs": epochs, "steps": steps, "reason": reason}


def steps_of(trainer: pl.Trainer) -> int:
    """Steps that were trained; a batch in which several optimizers step counts once."""
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    return batches_that_stepped(trainer)


# --- what is said ---


def _announce(
    session: Session,
    cfg: Any,
    module: pl.LightningModule,
    data: Any,
    trainer: pl.Trainer,
    source: Splits | Hooks,
    resume: Resume,
) -> None:
    """The second line, where a resume begins, and what is to be known about it."""
    size = sum(parameter.numel() for parameter in module.parameters())
    device = trainer.strategy.root_device
    many = f", {session.ranks.world_size} ranks" if session.ranks.world_size > 1 else ""
    name = cfg.get("model") or type(module).__name__
    session.log(
        f"{name} ({counted_short(size)} parameters) on {described(data)} · {device}{many}, "
        f"{torch.get_num_threads()} threads"
    )
    if resume.content:
        batches = source.lengths()["train"]
        place = resumed_at(resume.content, trainer.limit_train_batches, batches)
        session.log(f"resumed at {place}")
    _warn(
        session,
        resume.warning,
        history_damage(session.experiment),
        moved(resume.content, session.ranks, trainer),
    )


def _warn(session: Session, *warnings: str) -> None:
    for warning in filter(None, warnings):
        session.log(f"warning: {warning}")


def history_damage(experiment: Experiment) -> str:
    """What is wrong with `history.json`, which is only ever the checkpoint's copy."""
    path = experiment.folder / "history.json"
    if path.exists() and not isinstance(read_json(path), list):
        return "history.json is damaged: written anew from the checkpoint"
    return ""


def moved(checkpoint: Mapping[str, Any], ranks: Ranks, trainer: pl.Trainer) -> str:
    """Why sums are rounded otherwise from here on.

    Said once: the next checkpoint knows the new place.
    """
    before = checkpoint.get("callbacks", {}).get("History", {})
    device = trainer.strategy.root_device.type
    changes = []
    if before.get("ranks", ranks.world_size) != ranks.world_size:
        changes.append(f"{ranks.world_size} ranks now, {before['ranks']} before")
    if before.get("device", device) != device:
        changes.append(f"on {device} now, on {before['device']} before")
    return f"{', '.join(changes)}: floating point may differ from here on" if changes else ""


def resumed_at(checkpoint: Mapping[str, Any], limit: int | float, batches: int | None) -> str:
    """`epoch 7, batch 12 of 23`: the next one to be trained.

    Args:
        limit: `trainer.limit_train_batches`.
        batches: of the training set; None if nobody knows yet.
    """
    fit = checkpoint["loops"]["fit_loop"]
    epoch, batch = fit["epoch_progress"]["current"], fit["epoch_loop.batch_progress"]["current"]
    if epoch["ready"] == epoch["processed"]:
        return f"epoch {epoch['processed'] + 1}"
    is_last = fit["epoch_loop.batch_progress"].get("is_last_batch", False)
    if batches is not None:
        batches = counted(limit, batches)
        is_last = batch["ready"] >= batches
    if is_last:
        return f"epoch {epoch['ready']}, its validation"
    return f"epoch {epoch['ready']}, batch {batch['ready'] + 1}" + (
        f" of {batches}" if batches else ""
    )


def counted_short(size: int) -> str:
    """`57 k`, `11.2 M`."""
    return f"{size / 1e6:.1f} M" if size >= 1e6 else f"{size / 1e3:.0f} k"


def _last_lines(session: Session, result: dict[str, Any], metric: str) -> None:
    parts = ["finished" if result["reason"] == "max_epochs" else f"finished ({result['reason']})"]
    best = shown_best(result["best"], metric)
    parts.append(
        f"best {best}" if best else f"{metric} was never measured: the last epoch is tested"
    )
    if result["test"]:
        parts.append(shown_test(result["test"], metric))
    parts.append(f"{time.monotonic() - session.began:.0f} s")
    session.log(" · ".join(parts))
    sig, folder = session.experiment.sig, session.experiment.folder
    session.log(f"look   {typed()} info -f {sig}     folder   {shown_path(folder)}")
    session.log(
        f"curves   {typed('tensorboard')} --logdir {shlex.quote(shown_path(folder.parent))}"
    )


def _say_profile(session: Session, trainer: pl.Trainer, steps_before: int) -> None:
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, WhereTimeGoes):
        for line in profiler.lines(session.began, trainer.global_step - steps_before):
            session.log(line)
