"""What the recipes for small images add: airbench, muon, alternating flips, mirrored predictions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Run
from PIL import Image
from project import QUICK, Project, same_run
from torch.nn import functional as F

import dora_train
from dora_train.data import load_data
from dora_train.data.augment import Augmentation
from dora_train.model import build_model, of_both_sides, prepare_model
from dora_train.muon import orthogonal
from dora_train.optim import build_optimizer
from dora_train.train import as_stored

ALL = [
    *QUICK,
    "model=airbench",
    "model_args.width=4",
    "optim.name=muon",
    "data.flip=alternate",
    "test.mirror=true",
]


# --- airbench ---


@pytest.mark.parametrize("size", [8, 13, 28, 32, 64])
def test_airbench_takes_small_images(size: int):
    network = build_model("airbench", 7, size, width=4)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 7)


def test_small_is_as_deep_as_asked():
    assert len(build_model("small", 10, depth=5)) == len(build_model("small", 10)) + 2
    with pytest.raises(ValueError, match="model_args.depth=2: it takes a whole number of layers"):
        build_model("small", 10, depth=2)


@pytest.mark.parametrize("width, millions", [(64, 2.0), (32, 0.5)])
def test_airbench_has_as_many_parameters_as_its_docstring_says(width: int, millions: float):
    network = build_model("airbench", 10, width=width)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == millions


def test_the_first_layer_whitens_patches_of_the_training_images():
    train = load_data("digits", 64, augment=True).train
    network = build_model("airbench", 10, 8, width=4)
    prepare_model(network, train)
    images = train.examples(1_000)
    layer = network.whiten
    with torch.no_grad():
        responses = F.conv2d(images, layer.weight).transpose(0, 1).flatten(1)
    # The digits are grey: 4 of the 12 directions vary, and there are two filters for each.
    assert torch.equal(responses[4:8], -responses[:4])
    second = responses[:4] @ responses[:4].T / responses.shape[1]
    assert torch.allclose(second, torch.eye(4), atol=0.02)
    assert (responses[8:].std(1) > 0.01).all(), "a channel that is the same everywhere"


def test_gradients_are_small_on_images_that_are_mostly_black():
    images = torch.full((256, 3, 28, 28), -0.4)
    for number, image in enumerate(images):
        image[:, 8:20, 4 + number % 20] = 2.8
    torch.manual_seed(0)
    network = build_model("airbench", 10, 28, width=16)
    network.whiten_patches(images)
    F.cross_entropy(network(images), torch.arange(256) % 10).backward()
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert len(gradients) == 14 and max(gradient.norm() for gradient in gradients) < 10


def test_examples_are_spread_over_the_set_and_not_augmented():
    train = load_data("digits", 64, crop=2, flip=True).train
    plain = load_data("digits", 64, augment=False).train
    rows = torch.arange(0, 10) * len(train.labels) // 10
    assert torch.equal(train.examples(10), plain.batch(rows)[0])
    assert len(train.examples(10_000)) == train.num_samples


# --- alternating flips ---


def test_two_epochs_show_both_sides_of_each_image():
    samples = torch.arange(1_000)
    flips = [
        Augmentation(flip="alternate", seed=1).draw(samples, e, 8, 8)["flip"] for e in range(3)
    ]
    assert torch.equal(flips[0], 1 - flips[1]) and torch.equal(flips[0], flips[2])
    assert 400 < flips[0].sum() < 600
    other = Augmentation(flip="alternate", seed=2).draw(samples, 0, 8, 8)["flip"]
    assert not torch.equal(other, flips[0])


@pytest.mark.parametrize("flip", ["alternat", "true"])
def test_a_flip_that_there_is_not(flip: str, project: Project):
    with pytest.raises(ValueError, match="it takes true, false or alternate"):
        load_data("digits", 64, flip=flip)
    if flip != "true":  # which is a switch on a command line
        assert "true, false or alternate" in project.dora("run", f"data.flip={flip}", code=1)


# --- a share of the data ---


def test_a_share_has_the_same_images_whatever_the_seed_and_some_of_each_class():
    whole = load_data("digits", 64)
    tenth, again = [load_data("digits", 64, seed=seed, share=0.1) for seed in (0, 1)]
    least = load_data("digits", 64, share=0.001)
    assert tenth.train.num_samples == pytest.approx(0.1 * whole.train.num_samples, abs=5)
    assert torch.equal(tenth.train.rows, again.train.rows)
    assert set(least.train.rows.tolist()) < set(tenth.train.rows.tolist())
    assert set(tenth.train.rows.tolist()) < set(whole.train.rows.tolist())
    assert sorted(least.train.labels.tolist()) == list(range(10))
    assert torch.equal(tenth.valid.rows, whole.valid.rows)
    assert torch.equal(tenth.train.mean, whole.train.mean)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, "all"])
def test_a_share_that_there_is_not(share: object):
    with pytest.raises(ValueError, match=f"data.share={share}: it takes more than 0"):
        load_data("digits", 64, share=share)  # type: ignore[arg-type]


# --- mirrored predictions ---


def test_logits_are_those_of_both_sides():
    network = build_model("small", 3, width=4).eval()
    images = torch.randn(2, 3, 8, 8)
    logits = of_both_sides(network, images)
    assert torch.allclose(logits, of_both_sides(network, images.flip(3)))
    assert torch.allclose(logits, (network(images) + network(images.flip(3))) / 2)
    assert not torch.allclose(logits, network(images))


@pytest.mark.slow
def test_a_run_says_so_and_is_measured_and_resumed_with_the_same_bits(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = project.dora("run", *ALL)
    assert "(averaged over mirrored images)" in text.splitlines()[-3]
    measured = subprocess.run(
        [sys.executable, "-m", "dora_train.predict", project.xp.sig],
        cwd=project.root,
        env=project.env,
        capture_output=True,
        text=True,
    )
    assert json.loads(measured.stdout) == project.xp.result()["test"], measured.stderr
    monkeypatch.setenv("DORA_DIR", str(project.out))
    trained = dora_train.load(project.xp.sig)
    # a network that tells the sides apart, as that of a few steps hardly does
    trained.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    file = tmp_path / "one.png"
    Image.fromarray(np.tile(np.arange(0, 240, 30, dtype=np.uint8), (8, 1))).save(file)
    [(images, _)] = trained.inputs.batches([str(file)], 1, 0).epoch()
    with torch.inference_mode():
        wanted = of_both_sides(trained.network, images).softmax(1).max().item()
        of_one_side = trained.network(images).softmax(1).max().item()
    [(_, probability)] = trained.classify([file])
    assert probability == pytest.approx(wanted, abs=1e-7)
    assert abs(probability - of_one_side) > 1e-5
    again = Project(tmp_path / "again")
    often = "checkpoint.every_minutes=0.000001"
    assert Run(again, "run", *ALL, often, fault=("step", 3, signal.SIGKILL)).wait() != 0
    again.dora("run", *ALL)
    same_run(again.xp, project.xp)


def test_an_experiment_of_before_has_none_of_it():
    old = {"optim": {"name": "sgd", "lr": 0.1}, "data": {"name": "digits"}}
    today = as_stored(old)
    assert today["test"] == {"mirror": False} and today["optim"]["matrix_lr"] == 0.02
    assert today["data"]["share"] == 1.0
    assert today["optim"]["lr"] == 0.1 and "matrix_lr" not in old["optim"]
    assert "test" not in as_stored({"task": "text", "data": {}})


# --- muon ---


def layers() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 5),
        torch.nn.Tanh(),
        torch.nn.Linear(5, 1),
    )


@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_muon_is_torchs_for_matrices_and_sgd_for_all_else(decay: float):
    ours, theirs = layers(), layers()
    inputs = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    matrices = [theirs[0].weight, theirs[2].weight]
    rest = [theirs[0].bias, theirs[2].bias, *theirs[4].parameters()]
    pairs = [
        (ours, [build_optimizer(ours.parameters(), "muon", 0.1, 0.9, decay, 0.05)]),
        (
            theirs,
            [
                torch.optim.Muon(matrices, 0.05, weight_decay=decay, momentum=0.9),
                torch.optim.SGD(rest, 0.1, momentum=0.9, weight_decay=decay, nesterov=True),
            ],
        ),
    ]
    for network, optimizers in pairs:
        for _ in range(10):
            network.zero_grad()
            network(inputs).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_filters_are_matrices_to_muon():
    torch.manual_seed(0)
    filters, outputs = torch.nn.Conv2d(4, 8, 3, bias=False), torch.nn.Linear(8, 2)
    filters = filters.to(memory_format=torch.channels_last)
    before = filters.weight.detach().clone()
    filters.weight.grad = gradient = torch.randn_like(filters.weight)
    expected = orthogonal(gradient.flatten(1))
    every = [filters.weight, *outputs.parameters()]
    build_optimizer(every, "muon", 0.1, 0.0, 0.0, 0.5).step()
    moved = (before - filters.weight.detach()).flatten(1) / 0.5
    assert torch.allclose(moved, expected, atol=1e-6)
    values = torch.linalg.svdvals(moved)
    assert 0.6 < values.min() and values.max() < 1.3
