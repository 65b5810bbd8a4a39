"""What an epoch's steps give, added up: each name with its own count, over all ranks."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torchmetrics import CatMetric, MaxMetric, MeanMetric

from dora_train.engine.errors import UserError
from dora_train.engine.run.averages import Averages
from dora_train.engine.run.logged import ModuleLog, split_and_name
from dora_train.engine.run.metric_states import load_metric_states, metric_states

CPU = torch.device("cpu")


def test_each_name_has_its_own_count():
    averages = Averages()
    averages.add({"loss": torch.tensor(2.0), "acc": torch.tensor([True, False])}, 2)
    averages.add({"loss": torch.tensor(5.0)}, 4)
    averages.add({"seldom": 3.0, "loss": 0.0, "name": "a string"}, 2)
    assert averages.means(1) == {"loss": 24 / 8, "acc": 0.5, "seldom": 3.0}
    assert list(averages.means(1)) == ["loss", "acc", "seldom"]


@pytest.mark.parametrize(
    "operation, value", [("mean", 14 / 5), ("sum", 6.0), ("min", 2.0), ("max", 4.0)]
)
def test_how_steps_are_reduced(operation: str, value: float):
    averages = Averages()
    averages.add({"x": 4.0}, 2, operation)
    averages.add({"x": 2.0}, 3, operation)
    assert averages.means(1) == {"x": value}
    after = Averages()
    after.load(averages.state(1), CPU, first=True)
    assert after.means(1) == {"x": value}


def test_a_number_beside_a_tensor_on_a_gpu():
    """`meta` stands for a GPU: a value on it cannot be stacked with one on the CPU."""
    averages = Averages()
    for _ in range(2):
        averages.add({"loss": torch.ones((), device="meta"), "lr": 0.1, "n": torch.ones(4)}, 4)
    [group] = averages.groups.values()
    assert (group.sums.device.type, group.sums.dtype) == ("meta", torch.float64)
    plain = Averages()
    plain.add({"x": 0.1}, 4)
    plain.add({"x": torch.tensor(0.1)}, 4)
    assert plain.means(1) == {"x": torch.tensor(0.1).double().item()}, "both in float32 first"


def test_it_goes_on_to_the_same_bits():
    """Though sums of floats depend on their order."""
    numbers = torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist()
    whole, before, after = Averages(), Averages(), Averages()
    for at, number in enumerate(numbers):
        values = {"loss": number * 1e9, "x": number / 7} if at % 3 else {"loss": number}
        whole.add(values, 3)
        if at == 30:
            after.load(before.state(1), CPU, first=True)
        (before if at < 30 else after).add(values, 3)
    assert after.means(1) == whole.means(1)


def test_what_an_older_checkpoint_holds():
    averages = Averages()
    averages.load({"names": ["loss", "acc"], "sums": [6.0, 2.0], "count": 4}, CPU, first=True)
    assert averages.means(1) == {"loss": 1.5, "acc": 0.5}
    averages.load({"names": [], "sums": [], "count": 0}, CPU, first=True)
    assert averages.means(1) == {}


def test_the_first_rank_goes_on_with_the_sums_of_all():
    averages = Averages()
    averages.load({"names": ["loss"], "sums": [6.0], "count": 4}, CPU, first=False)
    averages.add({"loss": 1.0}, 2)
    assert averages.means(1) == {"loss": 1.0}


def test_a_name_that_one_rank_alone_has(monkeypatch: pytest.MonkeyPatch):
    other = Averages()
    other.add({"seldom": 8.0}, 2)

    def gather(every: list[Any], own: Any) -> None:
        every[:] = [own, dict.fromkeys(other.groups, "cpu")]

    def reduce(total: torch.Tensor, **how: Any) -> None:
        if len(total) == 2 and not total[1]:  # what this rank has of it
            total += torch.tensor([16.0, 2.0], dtype=torch.float64)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    averages = Averages()
    averages.add({"loss": 1.0}, 3)
    assert averages.means(2) == {"loss": 1.0, "seldom": 8.0}


@pytest.mark.parametrize(
    "value, words",
    [
        (torch.zeros(4, 2), r"a tensor of shape \[4, 2\], for a batch of 4"),
        (torch.zeros(3), r"a tensor of shape \[3\], for a batch of 4"),
        (torch.zeros(4, dtype=torch.int64), "int64 values: labels or predictions"),
    ],
)
def test_what_is_neither_a_number_nor_one_a_sample(value: torch.Tensor, words: str):
    with pytest.raises(UserError, match=f'training_step returned "x": {words}'):
        Averages().add({"loss": 1.0, "x": value}, 4, step="training_step")


def test_one_value_a_sample():
    averages = Averages()
    averages.add({"a": torch.ones(4, 1), "b": torch.ones(4, dtype=torch.bool)}, 4)
    assert averages.means(1) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    "name, stage, found",
    [
        ("train/loss", "train", ("train", "loss")),
        ("val_acc", "valid", ("valid", "acc")),
        ("validation.f1/macro", "valid", ("valid", "f1/macro")),
        ("val/acc_best", "train", ("valid", "acc_best")),
        ("test/acc", "test", ("test", "acc")),
        ("test_time", "train", ("train", "test_time")),
        ("val/acc", "test", ("test", "val/acc")),
        ("values", "valid", ("valid", "values")),
        ("trainable", "train", ("train", "trainable")),
    ],
)
def test_the_split_that_a_name_says(name: str, stage: str, found: tuple[str, str]):
    assert split_and_name(name, stage) == found
    assert split_and_name(name, stage, 1) == (found[0], f"{found[1]}/dataloader_idx_1")


def test_a_sample_that_fills_a_rank_does_not_count():
    """The rank has none of its own; what its step returns has the shape of one sample."""
    splits = {"valid": Averages()}
    log = ModuleLog(splits, 1, 2)
    log.add_step("valid", {"loss": torch.tensor(float("nan")), "acc": torch.ones(1)}, 0, "a step")
    assert splits["valid"].means(1) == {}


# --- torchmetrics ---


class Measuring(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.most, self.all = MeanMetric(), MaxMetric(), CatMetric()

    def see(self, *values: float) -> None:
        for value in values:
            for metric in (self.mean, self.most, self.all):
                metric.update(value)

    def computed(self) -> list[Any]:
        values = [self.mean.compute(), self.most.compute(), self.all.compute()]
        return [value.tolist() for value in values]


def test_metrics_go_on_from_a_checkpoint():
    whole, before, after = Measuring(), Measuring(), Measuring()
    whole.see(3.0, 1.0, 5.0, 2.0)
    before.see(3.0, 1.0)
    after.see(99.0)  # by on_train_start, say
    load_metric_states(after, [metric_states(before)])
    before.see(77.0)
    after.see(5.0, 2.0)
    assert after.computed() == whole.computed()


def test_metrics_that_are_about_to_be_reset_are_left_out():
    module = Measuring()
    module.see(1.0)
    assert list(metric_states(module, without={id(module.mean)})) == ["most", "all"]
    load_metric_states(module, [{}])
    assert metric_states(module) == {}


def test_the_states_of_ranks_that_are_no_more():
    one, other, joined = Measuring(), Measuring(), Measuring()
    one.see(3.0, 1.0)
    other.see(5.0)
    load_metric_states(joined, [metric_states(one), metric_states(other)])
    assert joined.computed() == [3.0, 5.0, [3.0, 1.0, 5.0]]
