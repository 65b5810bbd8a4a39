"""What a run adds up, and what it decides by that: means over ranks, the best epoch, and its early
ends."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import RunState, State
from dora_train.engine.run.averages import Averages
from dora_train.engine.run.averaging import AverageWeights
from dora_train.engine.run.endings import EarlyStop, KeepStop, StopHopeless, StopOnNan
from dora_train.engine.run.given import Loaders, Splits
from dora_train.engine.run.history import History
from dora_train.engine.run.loaders import Loader
from dora_train.engine.run.ranks import Ranks
from dora_train.engine.run.same_as_one_rank import SameAsOneRank
from dora_train.engine.run.session import Session
from dora_train.engine.run.signals import Signals, Stopped

NOBODY: Any = None


def history(
    values: list[float | None], metric: str = "valid.acc", mode: str = "max", rule: int = 2
) -> History:
    """With one entry an epoch; None: not validated."""
    made = History(metric, mode, 0, 1)
    made.rule = rule
    for value in values:
        made.entries.append(
            {"train": {"loss": 1.0}} | ({} if value is None else {"valid": {"acc": value}})
        )
        made._note_best({})
        made.epochs += 1
    return made


# --- the best epoch ---


@pytest.mark.parametrize(
    "mode, values, epoch",
    [
        ("max", [0.1, 0.5, 0.5, 0.3, 0.5], 2),
        ("min", [0.5, 0.1, 0.3, 0.1], 2),
        ("max", [0.5, None, math.nan, 0.5], 1),
    ],
)
def test_the_first_of_equal_epochs_is_the_best(mode: str, values: list[float | None], epoch: int):
    made = history(values, mode=mode)
    assert made.best["epoch"] == epoch and not made.improved


def test_a_metric_of_that_name_does_not_hide_the_place_of_the_best():
    """`self.log("step", float(self.current_epoch))` in a validation is a common habit."""
    made = history([0.1])
    entry = {"acc": 0.5, "step": 3.0, "epoch": 0.0, "value": 9.0}
    made.entries.append({"train": {"loss": 1.0}, "valid": entry})
    made._note_best({"step": 100})
    assert made.best == {"epoch": 2, "step": 100, "acc": 0.5, "value": 0.5}


# --- sums over ranks ---


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each sum over the ranks adds what `others` holds for it."""
    others: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(others.pop(0)))
    monkeypatch.setattr(torch.distributed, "all_gather_object", _all_alike)
    return others


def _all_alike(every: list[Any], own: Any) -> None:
    every[:] = [own] * len(every)


def test_ranks_with_unequal_shares_count_by_their_samples(two_ranks: list):
    """Three samples here and one there: each sample counts once."""
    here, there = Averages(), Averages()
    here.add({"loss": torch.tensor(2.0), "acc": torch.tensor([1.0, 0.0, 0.0])}, 3)
    there.add({"loss": torch.tensor(6.0), "acc": torch.tensor([1.0])}, 1)
    [group] = there.groups.values()
    assert group.sums is not None
    two_ranks += [torch.cat([group.sums, torch.tensor([1.0], dtype=torch.float64)])] * 2
    assert here.means(2) == {"loss": 3.0, "acc": 0.5}
    assert here.state(2) == {"names": ["loss", "acc"], "sums": [12.0, 2.0], "count": 4}


@pytest.mark.parametrize("shares", [(3, 2), (2, 2), (5, 1)])
def test_the_mean_of_the_ranks_gradients_is_that_of_the_batch(shares: tuple[int, int]):
    """DDP takes the mean over the ranks, as if their shares were equal."""
    losses = torch.randn(sum(shares), dtype=torch.float64).split(list(shares))
    each = []
    for rank, mine in enumerate(losses):
        batches = SimpleNamespace(sizes={0: (len(mine), sum(shares))})
        loader = Loader(batches, Ranks(rank=rank, world_size=2))
        trainer: Any = SimpleNamespace(train_dataloader=loader, current_epoch=0)
        same = SameAsOneRank(Ranks(rank=rank, world_size=2), 0, lambda *counters: None)
        same.on_train_batch_start(trainer, NOBODY, (torch.zeros(len(mine)), 0), 0)
        loss = mine.mean()
        same.on_before_backward(trainer, NOBODY, loss)
        each.append(loss)
    assert float(sum(each)) / 2 == pytest.approx(float(torch.cat(losses).mean()), rel=1e-12)


# --- what a checkpoint within an epoch holds ---


def test_a_validation_within_the_epoch_survives_in_the_checkpoint():
    """With `trainer.val_check_interval`, none may follow it in this epoch."""
    before = history([0.5])
    before.splits["train"].add({"loss": torch.tensor(1.0)}, 4)
    before.splits["valid"].add({"acc": torch.tensor([1.0, 0.0])}, 2)
    before.gather()
    after = History("valid.acc", "max", 0, 1)
    after.load_state_dict(before.state_dict())
    after.on_train_start(NOBODY, SimpleNamespace(device=torch.device("cpu")))  # type: ignore[arg-type]
    assert after.splits["train"].means(1) == {"loss": 1.0} and after.splits["valid"].means(1) == {
        "acc": 0.5
    }
    assert after.entries == before.entries and after.rule == before.rule == 2


def test_a_loss_that_is_no_number_within_an_epoch_is_in_no_checkpoint():
    made = history([0.5])
    StopOnNan(made)
    made.splits["train"].add({"loss": torch.tensor(1.0)}, 4)
    made.gather()
    made.splits["train"].add({"loss": torch.tensor(math.nan)}, 4)
    with pytest.raises(UserError, match="diverged in epoch 2: the train loss is nan"):
        made.gather()


# --- early ends ---


def trainer_of(stops: bool = False) -> Any:
    return SimpleNamespace(should_stop=stops)


def stops_after(made: History, patience: int) -> int:
    """After which epoch, from 1; 0: not at all."""
    entries, made.entries = made.entries, []
    trainer = trainer_of()
    for epoch, entry in enumerate(entries, 1):
        made.entries.append(entry)
        EarlyStop(made, patience).on_entry(trainer, NOBODY)
        if trainer.should_stop:
            return epoch
    return 0


def test_patience_counts_validations():
    """One in five epochs, and the second is the best; then it stands still."""
    seldom = (
        [None, None, None, None, 0.5]
        + [None, None, None, None, 0.6]
        + 3 * [None, None, None, None, 0.6]
    )
    assert stops_after(history(seldom), 3) == 25
    assert stops_after(history(seldom, rule=1), 3) == 8, (
        "what was begun by counting epochs ends by it"
    )


def test_an_end_that_was_decided_is_decided_after_a_resume():
    """`trainer.min_epochs` put it off, and an epoch since was better: the same process would not
    forget."""
    made, trainer = history([0.5, 0.4, 0.6]), trainer_of()
    EarlyStop(made, 1).on_fit_start(trainer, NOBODY)
    assert trainer.should_stop
    EarlyStop(history([0.4, 0.5, 0.6]), 1).on_fit_start(going := trainer_of(), NOBODY)
    assert not going.should_stop


@pytest.mark.parametrize("decided", [True, False])
def test_what_another_callback_decided_goes_through_the_checkpoint(decided: bool):
    checkpoint: dict[str, Any] = {}
    KeepStop().on_save_checkpoint(trainer_of(decided), NOBODY, checkpoint)
    keep, trainer = KeepStop(), trainer_of()
    keep.on_load_checkpoint(trainer, NOBODY, checkpoint)
    keep.on_fit_start(trainer, NOBODY)
    assert trainer.should_stop == decided
    keep.on_load_checkpoint(trainer, NOBODY, {})  # of a run that began before


def test_a_hopeless_trial_is_measured_by_its_validations():
    made = history([None, 0.3, None])
    rule = {"metric": "valid.acc", "mode": "max", "floors": [None, 0.2, 0.4]}
    with pytest.raises(Stopped, match="valid.acc 0.3 after 3 epochs, the median is 0.4"):
        StopHopeless(made, rule).on_train_epoch_start(NOBODY, NOBODY)
    StopHopeless(history([None]), rule).on_train_epoch_start(NOBODY, NOBODY)


# --- the average of the weights ---


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_the_average_is_torchs():
    """As torch's own AveragedModel, updated after each step with the decay that was asked for."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    batches = list(torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1)))
    ours, module = AverageWeights(0.8, 1), Line()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[ours],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    network = Line()
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        network.training_step(batch, number).backward()
        optimizer.step()
        theirs.update_parameters(network)
    average = ours._average_model
    assert average is not None and torch.equal(
        average.module.layer.weight, theirs.module.layer.weight
    )
    assert torch.equal(module.layer.weight, network.layer.weight), (
        "the training goes on with its own"
    )
    assert not torch.equal(module.layer.weight, theirs.module.layer.weight)


# --- which batches ---


def test_to_overfit_is_to_see_the_same_batches_in_every_epoch_and_to_validate_on_them():
    class Numbered:
        def __init__(self, name: str):
            self.name = name

        def __len__(self) -> int:
            return 3

        def epoch(self, epoch: int, start: int, rank: int, ranks: int) -> Any:
            yield from ((self.name, epoch, batch) for batch in range(start, 3))

    data = SimpleNamespace(train=Numbered("train"), valid=Numbered("valid"))
    splits = splits_at(data, place(epoch=7, batch=1), overfits=True)
    train, valid = splits.train, splits.valid
    assert list(train) == [("train", 0, 1), ("train", 0, 2)], "from where it is in the epoch"
    assert list(valid) == [("train", 0, 0), ("train", 0, 1), ("train", 0, 2)]
    splits = splits_at(data, place(epoch=7, batch=2), overfits=False)
    assert list(splits.train) == [("train", 7, 2)]
    assert list(splits.valid)[0] == ("valid", 0, 0)


def splits_at(data: Any, trainer: Any, overfits: bool) -> Splits:
    return Splits(data, Loaders(trainer, Ranks(), 0, {}, overfits, print))


def place(epoch: int, batch: int) -> Any:
    def progress(**current: int) -> Any:
        return SimpleNamespace(current=SimpleNamespace(**current))

    batches = SimpleNamespace(batch_progress=progress(ready=batch))
    return SimpleNamespace(
        num_training_batches=3,
        fit_loop=SimpleNamespace(
            epoch_progress=progress(processed=epoch, ready=epoch + 1), epoch_loop=batches
        ),
    )


# --- the end ---


def test_a_run_is_completed_only_when_its_result_is_on_disk(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    """Killed between the two, it has not finished; the other way round it would have finished
    without a result."""
    xp = Experiment(tmp_path)
    session = Session(xp, Ranks(), Signals(), RunState(), RunState(), NOBODY, NOBODY)
    seen = []
    write = Experiment.write_state
    monkeypatch.setattr(
        Experiment, "write_state", lambda self, run: (seen.append(self.result()), write(self, run))
    )
    session.finish({"best": {}, "test": {}, "epochs": 2, "steps": 4, "reason": "max_epochs"})
    assert xp.state().state is State.COMPLETED and seen == [xp.result()] and seen[0]["epochs"] == 2
