"""The data sets and their batches: what a network is given, and that nothing but (seed, epoch,
place) decides it."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from data_files import CIFAR_CLASSES, patch_cifar10, write_cifar10, write_image_folder, write_mnist
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT
from torch.nn import functional as F

from dora_train.data import DATASETS, DataError, augment, check_data, load_data
from dora_train.data.augment import Augmentation, cropped
from dora_train.data.batches import Batches
from dora_train.data.images import Images, InMemory, split

AUGMENTED = Augmentation(crop=2, flip=True, cutout=3, seed=1)


def made(samples: int = 50, batch_size: int = 8, channels: int = 3, **how) -> Batches:
    """A set whose label is the sample's number, and whose rows lie scattered in a larger set."""
    pixels = torch.randint(
        0,
        256,
        (2 * samples, channels, 9, 9),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(3),
    )
    mean, std = torch.full((channels,), 120.0), torch.full((channels,), 60.0)
    options: dict[str, Any] = {"shuffle": True, "augmentation": AUGMENTED, "seed": 1} | how
    rows = torch.arange(2 * samples).flip(0)[::2]
    return Batches(InMemory(pixels), rows, torch.arange(samples), batch_size, mean, std, **options)


def equal(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for a, b in zip(chain.from_iterable(one), chain.from_iterable(other))
    )


# --- batches ---


@given(st.integers(2, 60), st.integers(2, 20), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=40)
def test_every_sample_once_an_epoch_over_the_ranks(
    samples: int, batch_size: int, world_size: int, epoch: int
):
    batches = made(samples, batch_size)
    ranks = [
        list(batches.epoch(epoch, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    seen = [label for rank in ranks for _, labels in rank for label in labels.tolist()]
    assert sorted(seen) == list(range(samples))
    for number, shares in enumerate(zip(*ranks)):
        sizes = [len(labels) for _, labels in shares]
        assert sum(sizes) == batches.size_of(number) <= batch_size
        assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 4), st.integers(0, 7), st.integers(0, 3))
@settings(max_examples=30)
def test_a_sample_is_the_same_in_any_world_and_from_any_start(
    world_size: int, start: int, epoch: int
):
    batches = made()
    whole = {
        int(label): image
        for images, labels in batches.epoch(epoch)
        for image, label in zip(images, labels)
    }
    order = [label for _, labels in list(batches.epoch(epoch))[start:] for label in labels.tolist()]
    ranks = [list(batches.epoch(epoch, start, rank, world_size)) for rank in range(world_size)]
    assert sorted(
        label for rank in ranks for _, labels in rank for label in labels.tolist()
    ) == sorted(order)
    for images, labels in chain.from_iterable(ranks):
        for image, label in zip(images, labels):
            assert torch.equal(image, whole[int(label)])


def test_going_on_in_the_middle_of_an_epoch_is_having_never_stopped():
    whole = list(made().epoch(5))
    for start in range(len(whole) + 1):
        torch.manual_seed(start)  # no generator of the process has a part in it
        assert equal(list(made().epoch(5, start)), whole[start:])


def test_batches_are_of_equal_size_and_normalised():
    batches = made(samples=50, batch_size=16)
    assert [batches.size_of(batch) for batch in range(len(batches))] == [12, 13, 12, 13]
    plain = made(augmentation=None, shuffle=False)
    images, labels = next(plain.epoch())
    assert images.dtype == torch.float32 and images.shape == (7, 3, 9, 9) and images.is_contiguous()
    assert labels.dtype == torch.int64 and labels.tolist() == list(range(7))
    raw = plain.source.pixels[plain.rows[:7]]  # type: ignore[attr-defined]
    assert torch.equal(images, (raw.float() - 120) / 60)


def test_one_channel_becomes_three():
    images, _ = next(made(channels=1).epoch())
    assert images.shape[1] == 3 and torch.equal(images[:, 0], images[:, 2])


def test_another_epoch_and_another_seed_give_another_order():
    def order(batches: Batches, epoch: int) -> list[int]:
        return [label for _, labels in batches.epoch(epoch) for label in labels.tolist()]

    assert order(made(), 0) != order(made(), 1) != order(made(seed=2), 1)
    assert order(made(shuffle=False), 0) == order(made(shuffle=False), 1) == list(range(50))


def test_a_batch_can_be_asked_for_by_its_samples():
    images, labels = next(made().epoch(4))
    assert equal([made().batch(labels, 4)], [(images, labels)])  # its label is its number


# --- on other devices ---


@pytest.mark.gpu
def test_batches_on_the_gpu_are_those_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    there = made().to("cuda")
    assert there.source.device.type == "cuda"
    batches = list(there.epoch(2, 1))
    assert all(images.is_cuda and labels.is_cuda for images, labels in batches)
    assert equal(
        [(images.cpu(), labels.cpu()) for images, labels in batches], list(made().epoch(2, 1))
    )


def test_batches_come_on_the_device_that_was_asked_for():
    """`meta` stands for any that is neither CPU nor CUDA: the set stays where it is."""
    data = load_data("digits", 64).to("meta")
    images, labels = next(data.train.epoch())
    assert (
        images.device.type == labels.device.type == "meta"
        and data.train.source.device.type == "cpu"
    )


def test_the_way_of_the_gpu_gives_the_same_on_the_cpu():
    """Where there is no GPU: its branches at least agree."""

    class Elsewhere(torch.Tensor):
        """Says that it lies on another device."""

        device = property(lambda self: torch.device("meta"))  # type: ignore[assignment]

    pixels = torch.randint(0, 256, (6, 3, 9, 9), dtype=torch.uint8)
    chosen = torch.tensor([True, False, True, True, False, False])
    expected = augment.flipped(pixels.clone(), chosen)
    assert torch.equal(
        augment.flipped(pixels.as_subclass(Elsewhere), chosen).as_subclass(torch.Tensor), expected
    )
    row, column = torch.arange(6) % 5, torch.arange(6) % 4
    windows = F.pad(pixels, [2] * 4).unfold(2, 9, 1).unfold(3, 9, 1)
    assert torch.equal(
        augment.cropped(pixels, 2, row, column), windows[torch.arange(6), :, row, column]
    )


# --- digits ---


def test_the_numbers_of_digits_are_what_they_were():
    """Of November 2026; every result on digits stands on them."""
    digest = hashlib.sha256()
    data = load_data("digits", 64, True, seed=3)
    for epoch in (0, 2):
        for images, labels in data.train.epoch(epoch):
            digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    assert digest.hexdigest() == "1fb33b76d3f9d4858342ad79b217c0a311fba89e9e30764dca934529133fb509"
    assert str(data) == "digits (1,199 train, 299 valid, 299 test)"
    assert data.image_size == 8 and data.num_classes == 10


def test_the_training_set_has_mean_0_and_variance_1():
    images = torch.cat(
        [images for images, _ in load_data("digits", 64, augment=False).train.epoch()]
    )
    assert abs(float(images.mean())) < 1e-4 and abs(float(images.var()) - 1) < 1e-3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.sampled_from([0.1, 1 / 6, 0.3]))
def test_a_split_is_whole_disjoint_and_stratified(labels: list[int], share: float):
    given_labels = torch.tensor(labels)
    parts = split(given_labels, 7, valid=share, test=share)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))
    for label in set(labels):
        for part in ("valid", "test"):
            held = int((given_labels[parts[part]] == label).sum())
            assert held == round(labels.count(label) * share)


def test_statistics_are_exact():
    pixels = torch.randint(0, 256, (700, 3, 5, 5), dtype=torch.uint8)
    images = Images(pixels, torch.arange(700) % 7, list("abcdefg"))
    mean, std = images.statistics()
    train = pixels[images.parts["train"]].double()
    assert torch.equal(mean, train.mean((0, 2, 3)).float()) and mean.dtype == torch.float32
    assert torch.allclose(std.double(), train.std((0, 2, 3)), rtol=1e-7)


def test_a_black_channel_stays_finite():
    images = Images(torch.zeros(60, 1, 4, 4, dtype=torch.uint8), torch.arange(60) % 2, ["a", "b"])
    assert images.statistics()[1].tolist() == [1.0]


# --- CIFAR-10 and MNIST, in their own files ---


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    patch_cifar10(monkeypatch, write_cifar10(tmp_path, images=60))
    return tmp_path


def test_cifar10(cifar: Path):
    from torchvision.datasets import CIFAR10

    data = load_data("cifar10", 32, augment=False, valid=0.1, folder=str(cifar))
    assert data.classes == CIFAR_CLASSES and data.image_size == 32
    assert [part.num_samples for part in (data.train, data.valid, data.test)] == [270, 30, 60]
    assert data.valid.labels.bincount().tolist() == [3] * 10
    theirs = CIFAR10(cifar, train=False)
    assert torch.equal(data.test.labels, torch.tensor(theirs.targets))
    images = torch.cat([images for images, _ in data.test.epoch()])
    raw = images * data.train.std + data.train.mean
    assert torch.equal(raw.round().byte(), torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    both = torch.cat([data.train.rows, data.valid.rows]).sort().values
    raw_train = data.train.source.pixels[both]  # type: ignore[attr-defined]
    assert torch.equal(
        raw_train, torch.from_numpy(CIFAR10(cifar, train=True).data).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize("name", DATASETS)
def test_the_files_of_conf_say_what_the_functions_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that `load_data(name, batch_size)` in a notebook or in basic/ is `data=name` of the
    command."""
    patch_cifar10(monkeypatch, write_cifar10(tmp_path, images=40))
    for folder in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path, train=100, test=50, name=folder)
    write_image_folder(tmp_path, {"train": {"cat": 20, "dog": 20}})
    monkeypatch.setenv("DORA_TRAIN_DATA", str(tmp_path))
    keys = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    keys = {key: value for key, value in keys.items() if key != "folder"}
    root: dict[str, Any] = {"root": str(tmp_path)} if name == "image_folder" else {}
    said, done = load_data(**keys | root), load_data(name, keys["batch_size"], **root)
    assert said.train.augmentation == done.train.augmentation is not None
    assert torch.equal(said.valid.rows, done.valid.rows) and said.image_size == done.image_size


def test_all_parts_are_held_once(cifar: Path):
    data = load_data("cifar10", 32, folder=str(cifar))
    assert data.train.source is data.valid.source is data.test.source


def test_the_held_out_part_does_not_follow_the_seed(cifar: Path):
    rows = [load_data("cifar10", 32, seed=seed, folder=str(cifar)).valid.rows for seed in (0, 1)]
    assert torch.equal(*rows)


def test_the_environment_names_the_folder(cifar: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DORA_TRAIN_DATA", str(cifar))
    assert load_data("cifar10", 32).train.num_samples == 270


# --- what goes wrong ---


def message(name: str, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_data(name, 32, folder=str(folder))
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_without_a_network_the_message_says_what_to_do(name: str, tmp_path: Path, offline: None):
    said = message(name, tmp_path / "data")
    assert "cannot be downloaded" in said and "no network" in said and "data.folder" in said
    assert [path.suffix for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(url: str, root: str, filename: str = "", md5: str = "") -> None:
        (Path(root) / filename).write_bytes(b"half")
        raise urllib.error.URLError("connection reset")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", broken)
    assert "connection reset" in message("cifar10", tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_download_lands_where_it_belongs(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import shutil

    def download(url: str, root: str | Path, filename: str, md5: str) -> None:
        assert Path(root).parent == tmp_path / "new"
        shutil.copytree(cifar / "cifar-10-batches-py", Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    data = load_data("cifar10", 32, folder=str(tmp_path / "new"))
    assert data.train.num_samples == 270
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "CIFAR-10.lock",
        "cifar-10-batches-py",
    ]


def test_without_locks_the_first_download_that_is_done_is_the_one(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Here another process is done first, while this one is at it; and one that was killed has left
    its half."""
    import shutil

    new = tmp_path / "new"
    for name, age in (("old", 100_000), ("young", 100)):
        (new / f".CIFAR-10.{name}").mkdir(parents=True)
        os.utime(new / f".CIFAR-10.{name}", (time.time() - age,) * 2)

    def download(url: str, root: str | Path, filename: str, md5: str) -> None:
        for folder in (new, Path(root)):
            shutil.copytree(cifar / "cifar-10-batches-py", folder / "cifar-10-batches-py")

    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: None)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    assert load_data("cifar10", 32, folder=str(new)).train.num_samples == 270
    assert sorted(path.name for path in new.iterdir()) == [".CIFAR-10.young", "cifar-10-batches-py"]


def test_damaged_files_are_named_and_left_alone(cifar: Path):
    file = cifar / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-100])
    assert "not CIFAR-10 as torchvision knows it" in message("cifar10", cifar)
    assert file.exists()


@pytest.mark.parametrize(
    "part", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
)
@pytest.mark.parametrize("keep", [0, 3, 10, 40])
def test_truncated_idx_files(part: str, keep: int, tmp_path: Path):
    write_mnist(tmp_path, train=100, test=50)
    file = tmp_path / "MNIST" / "raw" / f"{part}-ubyte"
    file.write_bytes(file.read_bytes()[:keep])
    assert "not MNIST as torchvision knows it" in message("mnist", tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, offline: None):
    (tmp_path / "file").write_text("")
    said = message("cifar10", tmp_path / "file" / "data")
    assert "cannot write into" in said and "DORA_TRAIN_DATA" in said


@pytest.mark.parametrize(
    "given_keys, said",
    [
        ({"name": "digit"}, "did you mean digits?"),
        ({"name": "imagenet21k"}, "there is: digits, cifar10"),
        ({"name": "digits", "batch_size": 1}, "data.batch_size=1"),
        ({"name": "digits", "crop": -1}, "data.crop=-1"),
        ({"name": "digits", "cutout": -1}, "data.cutout=-1"),
        ({"name": "digits", "root": "/x"}, "data.root: digits has no such key"),
        ({"name": "cifar10", "valid": 0}, "data.valid=0"),
        ({"name": "cifar10", "valid": 0.9}, "data.valid=0.9"),
        ({"name": "image_folder"}, "data.root=FOLDER"),
        ({"name": "image_folder", "root": "nowhere"}, "no such folder"),
        ({"name": "image_folder", "root": ".", "num_workers": -1}, "data.num_workers=-1"),
        (
            {"name": "image_folder", "root": ".", "num_workers": 1.5},
            "data.num_workers=1.5: it takes a whole number.",
        ),
        (
            {"name": "image_folder", "root": ".", "image_size": 10**9},
            "data.image_size=1000000000: it takes no more than",
        ),
        (
            {"name": "image_folder", "root": ".", "max_gb": float("nan")},
            "data.max_gb=nan: it takes 0 or more.",
        ),
        (
            {"name": "image_folder", "root": 2012},
            "data.root=2012: it takes the path of a folder, e.g. ./2012.",
        ),
        ({"name": "digits", "crop": 10**9}, "data.crop=1000000000: it takes no more than 10,000."),
        ({"name": ""}, 'unknown data set ""'),
        ({"name": "digits", "batch_size": 0}, "data.batch_size=0: it takes 2 or more"),
        ({"name": "digits", "batch_size": "6 4"}, "data.batch_size=6 4: it takes 2 or more"),
    ],
)
def test_mistakes_are_refused_before_anything_is_loaded(
    given_keys: dict, said: str, monkeypatch: pytest.MonkeyPatch
):
    for name in DATASETS:
        if name != given_keys["name"] or name != "image_folder":
            monkeypatch.setitem(DATASETS, name, _never(DATASETS[name]))
    with pytest.raises(ValueError, match=said.replace("?", r"\?").replace(".", r"\.")) as caught:
        check_data(**{"batch_size": 32} | given_keys)
    assert "\n" not in str(caught.value)


def _never(function):
    import functools

    @functools.wraps(function)
    def loaded(**own):
        raise AssertionError("loaded")

    return loaded


def test_no_room_for_a_held_out_part():
    with pytest.raises(DataError, match="too few to hold some out"):
        Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4), list("abcd"))


@pytest.mark.parametrize("padding", [1, 6, 7, 9, 40])
def test_a_window_of_more_black_than_image(padding: int):
    """Nothing larger than the image is made, and every place gives what padding would."""
    pixels = torch.arange(1, 2 * 6 * 7 + 1, dtype=torch.uint8).view(2, 1, 6, 7)
    padded = torch.nn.functional.pad(pixels, [padding] * 4)
    for place in range(2 * padding + 1):
        row, column = torch.tensor([place, 2 * padding - place]), torch.tensor([place, padding])
        expected = [
            padded[image, :, r : r + 6, c : c + 7]
            for image, (r, c) in enumerate(zip(row.tolist(), column.tolist(), strict=True))
        ]
        assert torch.equal(cropped(pixels, padding, row, column), torch.stack(expected))
