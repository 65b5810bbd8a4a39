"""The training of a run: Lightning's trainer, built from `cfg.trainer` and the ranks, and fitted.

`train(module, data, cfg)` is the last line of `main`. `_callbacks` shows which callbacks there are,
and in which order they act at the end of an epoch: history, display, loggers, then the checkpoint
that holds it all.
"""

import atexit
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.model_helpers import is_overridden

from ... import counters
from .. import environment
from ..experiment.checkpoint import holds_objects
from ..upstream.lightning import (
    batches_that_stepped,
    resumed_by_epochs,
    without_signal_handlers,
)
from .announce import announce, log_end, log_profile
from .averaging import AverageWeights
from .boundary import StepBoundary
from .checkpoints import AtomicCheckpointIO, Checkpoints, thin_out
from .checks import check_batches, counted, trainer_keywords
from .cluster_environment import RanksEnvironment, leave_group
from .endings import EarlyStop, KeepStop, StopHopeless, StopOnNan, end_reason
from .given import Data, Hooks, Loaders, Splits, given
from .history import History
from .loggers import CSV, LogHistory, lightning_loggers
from .profile import Unasked, WhereTimeGoes
from .progress import ShowProgress
from .ranks import Ranks
from .resume import Resume, take_up, weights_to_test
from .same_as_one_rank import SameAsOneRank
from .same_data import keep_or_refuse, refuse_learned
from .session import Session, current
from .start import start_from
from .trace import Trace
from .unkept import SayUnkept


def train(module: pl.LightningModule, data: Data, cfg: DictConfig) -> dict[str, Any]:
    """Fit `module` from where the last attempt stopped, then measure its best weights on the test
    set, once.

    Args:
        module: any LightningModule. The values that its steps return as a dict, and that it gives
            to `self.log`, are averaged over the epoch and go into the history. If it has
            `artifacts(folder)`, that is called at the end, to write files of its own.
        data: a LightningDataModule, or an object with `train` and maybe `valid` and `test`, or None
            if the module has its own loaders. Each of `train`, `valid` and `test` is a DataLoader,
            a Dataset, an iterable of batches, several loaders, or an object with `epoch(...)` as
            `dora_train.data.Batches`. All else is optional. `to(device)` is called with the device
            where the batches are wanted. `train.check(...)` refuses batches that are too small.
            `contents()` and `inputs` are stored.
        cfg: the configuration.

    Returns:
        The content of `result.json`: {"best": {...}, "test": {...}, "epochs": int, "steps": int,
        "reason": str}.

    Raises:
        UserError: the configuration, the data or the module cannot be trained as they are.
        DataError: the batches are too small for the module.
    """
    session = current()
    # From here on a signal waits for the next step boundary, where a checkpoint can be saved.
    session.signals.at_once = False
    # Several ranks leave together, at the first boundary: one must not wait for another.
    if session.ranks.world_size == 1:
        session.signals.check()
    resume = session.resume or Resume()
    # Before the trainer, whose loggers touch their files.
    keep_or_refuse(session, data, resumes=bool(resume.content))
    history = History(cfg.best.metric, cfg.best.mode, session.ranks.rank, session.ranks.world_size)
    trainer = build_trainer(cfg, session, module, history, resume.first_void_step)
    source = given(module, data, _loaders(cfg, session, trainer, resume))
    _check_data(trainer, session, module, data, source)
    prepare(module, cfg, trainer)
    if cfg.continue_from and not resume.content:
        _take_weights(session, cfg, module, data)
    if data is not None and hasattr(data, "to"):
        data.to(trainer.strategy.root_device)
    announce(session, cfg, module, data, trainer, source, resume)
    _fit(session, trainer, module, source, resume)
    reason = end_reason(trainer)
    _write_history(session, history)
    result = _tested(trainer, module, source, session, history, reason)
    session.finish(result)
    # Only of a finished run: until then the next attempt may need any of these files.
    if session.ranks.is_first:
        thin_out(session.experiment, cfg.checkpoint.keep)
    log_end(session, result, cfg.best.metric, getattr(module, "how_tested", ""))
    log_profile(session, trainer, resume.steps)
    return result


def _take_weights(
    session: Session, cfg: DictConfig, module: pl.LightningModule, data: Data
) -> None:
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
    session.begins(resume.epoch, resume.steps)
    trainer.fit(
        module,
        **source.to_fit(),
        ckpt_path=resume.checkpoint,
        # A module may put objects into its own checkpoint, which torch's safe reader refuses.
        weights_only=not resume.holds_objects,
    )


def _loaders(cfg: DictConfig, session: Session, trainer: pl.Trainer, resume: Resume) -> Loaders:
    settings = cfg.get("data") or {}
    # A run by the first rule draws new batches in each epoch: see `History.rule`.
    overfits = bool(cfg.trainer.get("overfit_batches")) and resume.rule > 1
    return Loaders(trainer, session.ranks, cfg.seed, settings, overfits, session.log)


def _check_data(
    trainer: pl.Trainer,
    session: Session,
    module: pl.LightningModule,
    data: Data,
    source: Splits | Hooks,
) -> None:
    """Refuse data that cannot be trained on, as soon as they are known.

    Raises:
        UserError: the limits leave no batch.
        DataError: the batches are too small for the module.
    """
    check_batches(trainer, source.lengths())
    train: Any = getattr(data, "train", None)
    if hasattr(train, "check"):
        batches = counted(trainer.limit_train_batches, len(train))
        train.check(module, session.ranks.world_size, batches)


def prepare(module: pl.LightningModule, cfg: DictConfig, trainer: pl.Trainer) -> None:
    """Convert the network as `trainer.precision`, `channels_last` and `compile` ask.

    The names of its weights stay as they are.
    """
    # First: Lightning 2.6.6 reads a checkpoint before it converts the module, and would round
    # float64 weights to float32.
    trainer.precision_plugin.convert_module(module)
    if cfg.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cfg.compile:
        module.compile()


def build_trainer(
    cfg: DictConfig, session: Session, module: pl.LightningModule, history: History, void: int
) -> pl.Trainer:
    """Return Lightning's Trainer with our ranks, callbacks and checkpoints.

    Args:
        void: the optimizer step from which on the entries that an earlier attempt logged are void.
    """
    ranks = session.ranks
    callbacks = _callbacks(cfg, session, history)
    loggers: list[Logger] | bool = False
    if ranks.is_first:
        loggers = lightning_loggers(list(cfg.logger or []), session.experiment.folder, void)
    trainer = pl.Trainer(
        **trainer_keywords(cfg),
        **devices(cfg, ranks, module),
        callbacks=callbacks,
        plugins=[RanksEnvironment(ranks), AtomicCheckpointIO(session.room)],
        logger=loggers,
        default_root_dir=str(session.experiment.folder),
        # Our loaders give each rank its share.
        use_distributed_sampler=False,
        # ShowProgress and `announce` say what these would say.
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if ranks.world_size > 1:
        atexit.register(leave_group)
    # Not an argument of Trainer: the device is known only now.
    profiler = WhereTimeGoes(trainer.strategy.root_device) if cfg.profile else Unasked()
    trainer.profiler = profiler  # type: ignore[attr-defined]
    without_signal_handlers(trainer)
    resumed_by_epochs(trainer)
    return trainer


def _callbacks(cfg: DictConfig, session: Session, history: History) -> list[pl.Callback]:
    """Return the callbacks in the order in which they are called."""
    ranks, experiment = session.ranks, session.experiment
    callbacks: list[pl.Callback] = [SameAsOneRank(ranks, cfg.seed, counters.seed_all), KeepStop()]
    if cfg.ema.decay:
        callbacks.append(AverageWeights(cfg.ema.decay, ranks.world_size))
    callbacks += [instantiate(callback) for callback in cfg.get("callbacks") or []]
    callbacks.append(SayUnkept(session.log))
    # Lightning calls those below after all others and after the module's own hooks, in this order.
    callbacks.append(history)
    if cfg.stop_on_nan:
        callbacks.append(StopOnNan(history))
    if cfg.early_stopping.patience:
        callbacks.append(EarlyStop(history, cfg.early_stopping.patience))
    if ranks.is_first:
        callbacks.append(ShowProgress(session, history))
        with_csv = CSV in list(cfg.logger or [])
        callbacks.append(LogHistory(experiment, history, with_csv, session.room))
    if session.stop:
        callbacks.append(StopHopeless(history, session.stop))
    every = cfg.checkpoint
    checkpoints = Checkpoints(
        experiment, history, ranks.is_first, every.every_epochs, session.saved, session.room
    )
    callbacks.append(
        StepBoundary(session.signals, ranks.world_size, checkpoints, every.every_minutes)
    )
    callbacks.append(checkpoints)
    if orders := environment.trace():
        callbacks.append(Trace(Path(orders), ranks.rank))
    return callbacks


def devices(cfg: DictConfig, ranks: Ranks, module: pl.LightningModule) -> dict[str, Any]:
    """Return keywords of Trainer: one device per rank, and DDP if there are several ranks."""
    if ranks.world_size == 1:
        return {"devices": 1, "num_nodes": 1}
    on_gpus = str(cfg.trainer.accelerator) != "cpu" and torch.cuda.is_available()
    strategy = pl.strategies.DDPStrategy(
        process_group_backend="nccl" if on_gpus else "gloo",
        # With several optimizers, each backward pass reaches the parameters of one.
        find_unused_parameters=not module.automatic_optimization,
    )
    return {"devices": ranks.local_size, "num_nodes": ranks.num_nodes, "strategy": strategy}


def _write_history(session: Session, history: History) -> None:
    """Write `history.json`, if an earlier attempt was killed before it did.

    A fit with nothing left to do does not write it.
    """
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
    """Return the result, with the test set measured on the best weights.

    If no epoch is the best, it is measured on the last weights.
    """
    # The test moves the trainer's counters.
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
    # Before `session.finish`: a finished run has all of its files.
    if session.ranks.is_first and hasattr(module, "artifacts"):
        module.artifacts(session.experiment.folder)  # type: ignore[operator]
    return {"best": history.best, "test": test, "epochs": epochs, "steps": steps, "reason": reason}


def steps_of(trainer: pl.Trainer) -> int:
    """Return the trained steps. A batch in which several optimizers step counts once."""
    if trainer.lightning_module.automatic_optimization:
        return trainer.global_step
    return batches_that_stepped(trainer)
