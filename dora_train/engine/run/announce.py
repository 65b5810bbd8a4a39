"""The lines that a training logs: what is trained and where it resumes, and how it ended.

trainer.py is the one user.
"""

import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ..experiment.folder import Experiment
from ..files import read_json
from ..shell import typed
from ..watch import curves
from ..words import shown_best, shown_path, shown_test
from . import determinism
from .checks import counted
from .given import Data, Hooks, Splits, described
from .profile import WhereTimeGoes
from .ranks import Ranks
from .resume import Resume
from .run_log import note_unpromised
from .session import Session


def announce(
    session: Session,
    cfg: DictConfig,
    module: pl.LightningModule,
    data: Data,
    trainer: pl.Trainer,
    source: Splits | Hooks,
    resume: Resume,
) -> None:
    """Log the model, the data and the device, the place of a resume, and its warnings.

    From here on, torch's warnings about operations without a deterministic form are heard.
    """
    size = sum(parameter.numel() for parameter in module.parameters())
    device = trainer.strategy.root_device
    threads = torch.get_num_threads()
    place = str(device)
    if session.ranks.world_size > 1:
        place += f", {session.ranks.world_size} ranks"
    place += f", {threads} thread" if threads == 1 else f", {threads} threads"
    name = cfg.get("model") or type(module).__name__
    session.log(f"{name} ({counted_short(size)} parameters) on {described(data)} · {place}")
    if resume.content:
        batches = source.lengths()["train"]
        next_batch = resumed_at(resume.content, trainer.limit_train_batches, batches)
        session.log(f"resumed at {next_batch}")
    warnings = (
        resume.warning,
        history_damage(session.experiment),
        moved(resume.content, session.ranks, trainer),
    )
    for warning in filter(None, warnings):
        session.log(f"warning: {warning}")
    for reason in determinism.unpromised(cfg, device):
        note_unpromised(session, reason)
    determinism.listen()


def history_damage(experiment: Experiment) -> str:
    """Return that `history.json` is damaged, or nothing.

    No harm is done: that file is only a copy of the checkpoint's history.
    """
    path = experiment.folder / "history.json"
    if path.exists() and not isinstance(read_json(path), list):
        return "history.json is damaged: written anew from the checkpoint"
    return ""


def moved(checkpoint: Mapping[str, Any], ranks: Ranks, trainer: pl.Trainer) -> str:
    """Return why sums are rounded in another way from here on, or nothing.

    It is said once, because the next checkpoint holds the new place.
    """
    # A checkpoint of an older version does not hold its ranks and its device.
    before = checkpoint.get("callbacks", {}).get("History", {})
    device = trainer.strategy.root_device.type
    changes = []
    if before.get("ranks", ranks.world_size) != ranks.world_size:
        changes.append(f"{ranks.world_size} ranks now, {before['ranks']} before")
    if before.get("device", device) != device:
        changes.append(f"on {device} now, on {before['device']} before")
    return f"{', '.join(changes)}: floating point may differ from here on" if changes else ""


def resumed_at(checkpoint: Mapping[str, Any], limit: int | float, batches: int | None) -> str:
    """Return the next batch that is trained, as `epoch 7, batch 12 of 23`.

    Args:
        limit: `trainer.limit_train_batches`.
        batches: of the training set, or None if their number is not known yet.
    """
    fit = checkpoint["loops"]["fit_loop"]
    epoch, batch = fit["epoch_progress"]["current"], fit["epoch_loop.batch_progress"]["current"]
    if epoch["ready"] == epoch["processed"]:
        return f"epoch {epoch['processed'] + 1}"
    is_last = fit["epoch_loop.batch_progress"].get("is_last_batch", False)
    # The limit may have been changed since.
    if batches is not None:
        batches = counted(limit, batches)
        is_last = batch["ready"] >= batches
    if is_last:
        return f"epoch {epoch['ready']}, its validation"
    place = f"epoch {epoch['ready']}, batch {batch['ready'] + 1}"
    return f"{place} of {batches}" if batches else place


def counted_short(size: int) -> str:
    """Return a number as `57 k` or `11.2 M`."""
    if size >= 1e6:
        return f"{size / 1e6:.1f} M"
    return f"{size / 1e3:.0f} k"


def log_end(session: Session, result: Mapping[str, Any], metric: str, how_tested: str) -> None:
    """Log the result, and the commands that show more of it.

    Args:
        result: as `train` returns it.
        metric: `best.metric`.
        how_tested: what the module says about its test. It may be empty.
    """
    end, best = "finished", shown_best(result["best"], metric)
    if result["reason"] != "max_epochs":
        end = f"finished ({result['reason']})"
    parts = [end]
    if best:
        parts.append(f"best {best}")
    else:
        parts.append(f"{metric} was never measured: the last epoch is tested")
    if result["test"]:
        tested = shown_test(result["test"], metric)
        parts.append(f"{tested} ({how_tested})" if how_tested else tested)
    parts.append(f"{time.monotonic() - session.began:.0f} s")
    session.log(" · ".join(parts))
    sig, folder = session.experiment.sig, session.experiment.folder
    session.log(f"look   {typed()} info -f {sig}     folder   {shown_path(folder)}")
    session.log(f"curves   {curves.command(session.experiment, siblings=True)}")


def log_profile(session: Session, trainer: pl.Trainer, steps_before: int) -> None:
    """Log where the time went, if `profile` asks for it.

    Args:
        steps_before: optimizer steps of the attempts before this one.
    """
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if isinstance(profiler, WhereTimeGoes):
        for line in profiler.lines(session.began, trainer.global_step - steps_before):
            session.log(line)
