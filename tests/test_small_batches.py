"""Batches that are too small for a network: refused with a clear word before the training, never
met within it."""

from __future__ import annotations

import pytest
import torch
from forked import Run
from project import Project

from dora_train.data.batches import Batches
from dora_train.data.images import InMemory
from dora_train.data_error import DataError


def batches(samples: int, batch_size: int) -> Batches:
    pixels = torch.randint(0, 256, (samples, 1, 4, 4), dtype=torch.uint8)
    return Batches(
        InMemory(pixels),
        torch.arange(samples),
        torch.zeros(samples, dtype=torch.int64),
        batch_size,
        torch.zeros(1),
        torch.ones(1),
    )


def network(norm: torch.nn.Module) -> torch.nn.Module:
    """Batch norm sees one value a channel and image."""
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), norm, torch.nn.Flatten(), torch.nn.Linear(3, 2)
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_what_is_not_refused_trains_and_what_is_refused_does_not(ranks: int):
    """Every data set of up to 13 samples: each share of each batch goes through the network, or it
    was refused."""
    normed = network(torch.nn.BatchNorm2d(3))
    before = {name: value.clone() for name, value in normed.state_dict().items()}
    for samples in range(2, 14):
        for batch_size in range(2, 9):
            data = batches(samples, batch_size)
            sizes = [
                len(labels) for rank in range(ranks) for _, labels in data.epoch(0, 0, rank, ranks)
            ]
            if min(sizes) > 1:
                data.check(normed, ranks)
                continue
            with pytest.raises(DataError, match=f"data.batch_size={batch_size}: "):
                data.check(normed, ranks)
            if min(sizes) == 1:
                data.check(network(torch.nn.Identity()), ranks)
    assert all(torch.equal(value, normed.state_dict()[name]) for name, value in before.items()), (
        "it stays as it is"
    )


def test_only_the_batches_that_are_used_count():
    """The first one is the smallest here."""
    data = batches(7, 2)
    assert [data.size_of(batch) for batch in range(4)] == [1, 2, 2, 2]
    with pytest.raises(DataError):
        data.check(network(torch.nn.BatchNorm2d(3)), batches=1)
    data.check(network(torch.nn.BatchNorm2d(3)), batches=0)


@pytest.mark.parametrize(
    "samples, batch_size, ranks, advice",
    [
        (7, 2, 1, "take data.batch_size=3 or more."),
        (13, 2, 2, "take data.batch_size=5 or more."),
        (3, 3, 2, "take more samples, or fewer ranks than 2."),
        (1, 2, 1, "take more samples."),
    ],
)
def test_the_batch_size_that_is_named_is_large_enough(
    samples: int, batch_size: int, ranks: int, advice: str
):
    with pytest.raises(DataError) as refused:
        batches(samples, batch_size).check(network(torch.nn.BatchNorm2d(3)), ranks)
    assert str(refused.value).endswith(advice)
    if "data.batch_size=" in advice:
        size = int(advice.split("=")[1].split()[0])
        batches(samples, size).check(network(torch.nn.BatchNorm2d(3)), ranks)


@pytest.mark.slow
def test_an_odd_number_of_images_in_pairs(project: Project):
    run = Run(project, "run", "threads=1", "model=resnet18", "data.batch_size=2")
    assert run.wait() == 1
    assert run.text.splitlines()[-1] == (
        "data.batch_size=2: 1,199 training samples are cut into batches with one sample, and this network's batch norm "
        "needs two: take data.batch_size=3 or more."
    )
    assert "Traceback" not in run.text and not project.xp.history()
