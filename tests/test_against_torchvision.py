"""The data part against torchvision's own: the same pixels, bit for bit, given the same draws.

`basic/`, `pl_hydra/` and `dora_train/` share it, so that their equality says nothing about it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from data_files import write_image_folder, write_mnist
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dora_train.counters import seed_of
from dora_train.data import load_data
from dora_train.data.augment import Augmentation
from dora_train.data.batches import Batches
from dora_train.data.decoding import decoded
from dora_train.data.images import InMemory

SIDE = 9
AUGMENTATIONS = [
    Augmentation(),
    Augmentation(crop=2),
    Augmentation(flip=True),
    Augmentation(cutout=4),
    Augmentation(crop=3, flip=True, cutout=5, seed=7),
]


def by_torchvision(
    image: Tensor, draws: dict[str, int], how: Augmentation, mean: list[float], std: list[float]
) -> Tensor:
    """[C, H, W] uint8 as the network gets it, by torchvision. A cut-out has the mean colour."""
    height, width = image.shape[1:]
    if how.crop:
        image = functional.pad(image, [how.crop] * 4)
        image = functional.crop(image, draws["row"], draws["column"], height, width)
    if how.flip and draws["flip"]:
        image = functional.horizontal_flip(image)
    image = functional.normalize(image.float(), mean, std)
    if how.cutout:
        top, left = draws["cutout row"] - how.cutout // 2, draws["cutout column"] - how.cutout // 2
        bottom, right = top + how.cutout, left + how.cutout
        top, left = max(top, 0), max(left, 0)
        nothing = torch.zeros(1)
        image = functional.erase(
            image, top, left, min(bottom, height) - top, min(right, width) - left, nothing
        )
    return image.expand(3, -1, -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", AUGMENTATIONS)
def test_augmented_and_normalised(how: Augmentation, channels: int):
    pixels = torch.randint(0, 256, (40, channels, SIDE, SIDE), dtype=torch.uint8)
    mean, std = [120.3, 90.1, 33.7][:channels], [60.2, 51.9, 70.3][:channels]
    batches = Batches(
        InMemory(pixels),
        torch.arange(40),
        torch.arange(40),
        16,
        torch.tensor(mean),
        torch.tensor(std),
        seed=3,
        shuffle=True,
        augmentation=how,
    )
    draws = how.draw(torch.arange(40), 2, SIDE, SIDE)
    seen = []
    for images, labels in batches.epoch(2):
        for image, label in zip(images, labels.tolist()):
            drawn = {name: int(values[label]) for name, values in draws.items()}
            assert torch.equal(image, by_torchvision(pixels[label], drawn, how, mean, std))
            seen.append(label)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed_of("order", 3, 2)))
    assert seen == order.tolist(), "a permutation of torch's, of each epoch its own"


def test_draws_are_even():
    """Half are flipped, and each window is as frequent as the others: to one in a hundred."""
    draws = Augmentation(crop=2, flip=True).draw(torch.arange(2_000_000), 0, SIDE, SIDE)
    assert abs(draws["flip"].double().mean() - 0.5) < 0.005
    windows = torch.bincount(5 * draws["row"] + draws["column"], minlength=25)
    assert len(windows) == 25 and (windows - 80_000).abs().max() < 1000  # 3.6 sigma


def test_an_epoch_of_digits():
    """From scikit-learn's arrays to batches, without a function of ours but the draws."""
    data = load_data("digits", 64, seed=3)
    how = data.train.augmentation
    assert how == Augmentation(crop=1, seed=3)
    found = load_digits()
    pixels = torch.from_numpy(np.rint(found.images * 255 / 16).astype(np.uint8)).unsqueeze(1)
    train = pixels[data.train.rows]
    std, mean = torch.std_mean(train.double())
    draws = how.draw(torch.arange(len(train)), 1, 8, 8)
    order = torch.randperm(
        len(train), generator=torch.Generator().manual_seed(seed_of("order", 3, 1))
    ).tolist()
    wanted = [
        by_torchvision(
            train[row],
            {name: int(values[row]) for name, values in draws.items()},
            how,
            [mean.item()],
            [std.item()],
        )
        for row in order
    ]
    epoch = list(data.train.epoch(1))
    assert torch.equal(torch.cat([images for images, _ in epoch]), torch.stack(wanted))
    labels = torch.from_numpy(found.target)[data.train.rows][order]
    assert torch.equal(torch.cat([labels for _, labels in epoch]), labels)


@pytest.mark.parametrize("name, theirs", [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist(name: str, theirs: str, tmp_path: Path):
    write_mnist(tmp_path, train=200, test=50, name=theirs)
    data = load_data(name, 32, folder=str(tmp_path))
    train, test = (
        getattr(torchvision.datasets, theirs)(tmp_path, train=train) for train in (True, False)
    )
    source = data.train.source.pixels  # type: ignore[attr-defined]
    both = torch.cat([data.train.rows, data.valid.rows])
    labels = torch.cat([data.train.labels, data.valid.labels])
    assert sorted(both.tolist()) == list(range(200)) and data.classes == train.classes
    assert torch.equal(source[both, 0], train.data[both]) and torch.equal(
        labels, train.targets[both]
    )
    assert torch.equal(source[data.test.rows, 0], test.data) and torch.equal(
        data.test.labels, test.targets
    )
    std, mean = torch.std_mean(train.data[data.train.rows].double())
    assert (data.train.mean.item(), data.train.std.item()) == (
        mean.float().item(),
        std.float().item(),
    )


def test_an_image_folder(tmp_path: Path):
    """Half as large, by an ordinary Resize; of the same shape, so that nothing is cut off."""
    write_image_folder(tmp_path, {"train": {"cat": 60, "dog": 60}}, size=20)
    for path in tmp_path.rglob("*.*"):
        Image.open(path).resize((20, 20)).save(path)
    theirs = torchvision.datasets.ImageFolder(str(tmp_path / "train"), v2.Resize((10, 10)))
    data = load_data(
        "image_folder", 8, root=str(tmp_path), folder=str(tmp_path / "cache"), image_size=10
    )
    names = [Path(path).relative_to(tmp_path).as_posix() for path, _ in theirs.samples]
    assert names == list(data.contents())
    raw = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in theirs])
    assert torch.equal(data.train.source.pixels, raw)  # type: ignore[attr-defined]
    labels = torch.tensor(theirs.targets)
    assert all(
        torch.equal(part.labels, labels[part.rows]) for part in (data.train, data.valid, data.test)
    )


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_the_middle_of_an_image(shape: tuple[int, int], tmp_path: Path):
    """As Resize and CenterCrop, to rounding. At the edges only one of them sees what is cut off."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    theirs = v2.Compose([v2.Resize(10), v2.CenterCrop(10)])(Image.open(tmp_path / "x.png"))
    ours = decoded(str(tmp_path / "x.png"), (3, 10, 10)).transpose(1, 2, 0)
    inside = (slice(None), slice(1, -1)) if shape[0] < shape[1] else (slice(1, -1), slice(None))
    assert np.abs(ours[inside].astype(int) - np.asarray(theirs)[inside]).max() <= 1
