"""How the weights move: the schedules against torch's own, and what the past epochs say."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from dora_train.best_so_far import monitored, since_best, since_best_each
from dora_train.optim import PRECISIONS, Schedule, build_optimizer, check_training, cuts

OPTIM = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
TRAINER = {"max_epochs": 3, "max_steps": -1}
METRICS = [
    [0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.3, 0.4],
    [1.0] * 12,
    [math.nan, 0.5, math.nan, math.nan, 0.6],
]


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)


THEIRS = {
    "sgd": lambda parameters: torch.optim.SGD(
        parameters, 0.1, momentum=0.9, weight_decay=0.03, nesterov=True
    ),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.1, weight_decay=0.03),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0.03),
}


@pytest.mark.parametrize("name", THEIRS)
def test_an_optimizer_is_torchs_bit_for_bit(name: str):
    inputs, targets = (
        torch.randn(16, 4, generator=torch.Generator().manual_seed(0)),
        torch.arange(16.0)[:, None],
    )
    weights = []
    for build in (
        lambda parameters: build_optimizer(parameters, name, 0.1, 0.9, 0.03),
        THEIRS[name],
    ):
        torch.manual_seed(1)
        network = torch.nn.Linear(4, 1)
        optimizer = build(network.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(network(inputs), targets).backward()
            optimizer.step()
        weights.append(network.weight.detach())
    assert torch.equal(*weights)


def test_no_momentum_is_plain_gradient_descent():
    [parameter] = parameters = [torch.nn.Parameter(torch.ones(1))]
    optimizer = build_optimizer(parameters, "sgd", 0.5, 0.0, 0.0)
    parameter.grad = torch.ones(1)
    optimizer.step()
    assert parameter.item() == 0.5 and not optimizer.defaults["nesterov"]


@pytest.mark.parametrize(
    "name, warmup, total", [("none", 7, 50), ("cosine", 7, 50), ("cosine", 0, 50)]
)
def test_warm_up_and_cosine_are_torchs(name: str, warmup: int, total: int):
    """Linear up, then to exactly 0 where the run ends."""
    schedulers, ours, optimizer = torch.optim.lr_scheduler, Schedule(name, 1, warmup, total), sgd()
    up = schedulers.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    down = schedulers.CosineAnnealingLR(optimizer, total - warmup)
    flat = schedulers.ConstantLR(optimizer, 1.0)
    theirs = schedulers.SequentialLR(optimizer, [up, down if name == "cosine" else flat], [warmup])
    for step in range(total):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        theirs.step()
    assert ours(total) == (0.0 if name == "cosine" else 1.0)


def test_onecycle_is_torchs():
    total, warmup = 50, 14
    ours, optimizer = Schedule("onecycle", 2, 7, total), sgd()
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=total, pct_start=(warmup + 1) / total
    )
    for step in range(total):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        theirs.step() if step < total - 1 else None


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs(metric: list[float], patience: int):
    optimizer, ours = sgd(), Schedule("plateau", 0, 1, math.inf, patience, 0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", 0.5, patience, threshold=0.0, eps=0.0
    )
    for epoch in range(len(metric)):
        theirs.step(metric[epoch])
        past = metric[: epoch + 1]
        assert ours(0, past) == optimizer.param_groups[0]["lr"] == 0.5 ** cuts(past, patience)


@pytest.mark.parametrize("name", ["none", "cosine", "onecycle", "plateau"])
def test_each_schedule_warms_up_and_ends_low(name: str):
    factors = [Schedule(name, 2, 10, 100)(step, [1.0] * 30) for step in range(100)]
    assert factors[0] < 0.06 and factors[:20] == sorted(factors[:20]), "up"
    assert factors[20:] == sorted(factors[20:], reverse=True), "down"
    assert max(factors) <= 1.0 and (factors[-1] == 1.0) == (name == "none")


def test_what_the_past_says():
    history = [
        {"valid": {"loss": 3.0}},
        {"train": {"loss": 9.0}},
        {"valid": {"loss": 2.0}},
        {"valid": {"loss": 2.0}},
    ]
    values = monitored(history, "valid.loss", "min")
    assert values[0] == -3.0 and math.isnan(values[1]) and values[2:] == [-2.0, -2.0]
    assert [since_best(values[:epoch]) for epoch in range(5)] == [0, 0, 1, 0, 1], (
        "the first of equals is the best"
    )
    assert since_best([math.nan] * 5) == 0, "what was never measured never stood still"
    assert since_best_each([math.nan, 1.0, 1.0, math.nan, 2.0, 0.0]) == [0, 0, 1, 2, 0, 1]


def test_only_validations_count():
    """With a validation in every fifth epoch, patience is as long as five times the epochs."""
    history = [
        {"train": {"loss": 1.0}} | ({"valid": {"acc": 0.5}} if epoch % 5 == 0 else {})
        for epoch in range(1, 13)
    ]
    values = monitored(history, "valid.acc", "max", measured_only=True)
    assert (
        values == [0.5, 0.5]
        and since_best(values) == 1
        and cuts(values, 0) == 1
        and cuts(values, 1) == 0
    )
    diverged = [*history, {"valid": {"acc": math.nan}}]
    assert len(monitored(diverged, "valid.acc", "max", measured_only=True)) == 3, (
        "measured, and no number"
    )


@pytest.mark.parametrize(
    "schedule, loss, message",
    [
        (
            {"name": "cosin"},
            {},
            'unknown schedule.name "cosin": none, cosine, onecycle or plateau.',
        ),
        ({"name": "plateau", "factor": 2.0}, {}, "schedule.factor=2.0"),
        ({"name": "none"}, {"label_smoothing": 1.0}, "loss.label_smoothing=1.0"),
        (
            {"name": "none", "warmup_epochs": "0,5"},
            {},
            "schedule.warmup_epochs=0,5: it takes a number.",
        ),
        ({"name": "plateau", "factor": "0,1"}, {}, "schedule.factor=0,1: it takes a number."),
        (
            {"name": "none"},
            {"label_smoothing": "0,1"},
            "loss.label_smoothing=0,1: it takes a number.",
        ),
    ],
)
def test_mistakes(schedule: dict, loss: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_training(OPTIM, {"warmup_epochs": 1.0, **schedule}, TRAINER, loss)


def test_precisions_are_lightnings():
    from lightning_fabric.plugins.precision.precision import _PRECISION_INPUT

    theirs = {str(word) for part in get_args(_PRECISION_INPUT) for word in get_args(part)}
    assert set(PRECISIONS) == theirs
    for said, hint in [("bf16-mixd", "did you mean bf16-mixed?"), ("half", "32-true, 16-mixed")]:
        with pytest.raises(
            ValueError, match=f'unknown trainer.precision "{said}": {hint}'.replace("?", r"\?")
        ):
            check_training(
                OPTIM, {"name": "none", "warmup_epochs": 0}, TRAINER | {"precision": said}
            )


@pytest.mark.parametrize("name", ["cosine", "onecycle"])
def test_a_curve_needs_an_end(name: str):
    with pytest.raises(ValueError, match="needs an end"):
        check_training(OPTIM, {"name": name}, {"max_epochs": -1, "max_steps": -1})


# --- what is refused ---


@pytest.mark.parametrize(
    "patience, factor", [(0, 0.0), (0, 1.0), (0, 2.0), (0, -0.5), (-1, 0.5), (3, math.nan)]
)
def test_a_plateau_that_cuts_nothing_or_all(patience: int, factor: float):
    with pytest.raises(ValueError, match=f"schedule.patience={patience}, schedule.factor={factor}"):
        Schedule("plateau", 0, 1, math.inf, patience, factor)
    Schedule("plateau", 0, 1, math.inf, 0, 0.5)


def test_an_unknown_optimizer_is_told_all_that_there_are():
    with pytest.raises(ValueError) as refused:
        check_training({"name": "sdg"}, {"name": "none"}, TRAINER, None)
    assert str(refused.value) == 'unknown optim.name "sdg": sgd, adam, adamw or muon.'


@pytest.mark.parametrize("loss", [None, {}, {"label_smoothing": 0.0}])
def test_without_smoothing_nothing_is_refused(loss: dict | None):
    check_training(OPTIM, {"name": "none"}, TRAINER, loss)
