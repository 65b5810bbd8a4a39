"""CIFAR-10, MNIST and Fashion-MNIST as people copy them: one folder off, packed, or incomplete."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import urllib.error
from pathlib import Path

import pytest
import torch
from data_files import patch_cifar10, write_cifar10, write_mnist

from dora_train.data import DataError, load_data

FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def loaded(name: str, folder: Path) -> torch.Tensor:
    return load_data(name, 32, folder=str(folder)).train.source.pixels  # type: ignore[attr-defined]


def refused(name: str, folder: Path) -> list[str]:
    with pytest.raises(DataError) as refusal:
        load_data(name, 32, folder=str(folder))
    assert "download=True" not in str(refusal.value), "torchvision's advice is no option here"
    lines = str(refusal.value).splitlines()
    assert len(lines) <= 2
    return lines


def pack(folder: Path, *names: str) -> None:
    for name in names:
        with gzip.open(folder / f"{name}.gz", "wb") as stream:
            stream.write((folder / name).read_bytes())
        (folder / name).unlink()


# --- MNIST ---


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_mnist(tmp_path, train=100, test=50)
    return tmp_path / "MNIST" / "raw"


@pytest.mark.parametrize("packed", [FILES, FILES[:1], []])
@pytest.mark.parametrize(
    "place, given",
    [
        ("MNIST/raw", ""),
        ("MNIST/raw", "MNIST"),
        ("MNIST/raw", "MNIST/raw"),
        ("MNIST", ""),
        ("MNIST", "MNIST"),
        ("mnist", "mnist"),
    ],
)
def test_mnist_wherever_it_lies(
    place: str, given: str, packed: list[str], raw: Path, tmp_path: Path
):
    expected = loaded("mnist", tmp_path)
    pack(raw, *packed)
    folder = tmp_path / "data" / place
    shutil.copytree(raw, folder)
    before = sorted(path.name for path in folder.iterdir())
    assert torch.equal(loaded("mnist", tmp_path / "data" / given), expected)
    assert sorted(path.name for path in folder.iterdir()) == before, (
        "nothing is written among others' files"
    )


def test_fashion_mnist_has_files_of_the_same_names(raw: Path, tmp_path: Path):
    """Whose they are, the name of the folder must say."""
    shutil.copytree(raw, tmp_path / "data")
    for name, wanted in (("fashion_mnist", "FashionMNIST"), ("mnist", "MNIST")):
        first, second = refused(name, tmp_path / "data")
        assert first == (
            f"{tmp_path}/data holds {FILES[0]}, which may belong to {wanted} or to "
            "another data set."
        )
        assert second == f"Move the 4 files of {wanted} into {tmp_path}/data/{wanted}/raw"
    shutil.copytree(raw, tmp_path / "fashion-mnist")
    assert len(loaded("fashion_mnist", tmp_path / "fashion-mnist")) == 150


def test_a_part_of_mnist_is_missing(raw: Path, tmp_path: Path):
    (raw / FILES[1]).unlink()
    (raw / FILES[3]).unlink()
    first, second = refused("mnist", tmp_path)
    assert first == f"MNIST is not complete: {raw} lacks {FILES[1]}, {FILES[3]}."
    assert second == f"Copy them there; or move {raw} away, then MNIST is downloaded anew"


def test_a_folder_of_that_name_that_holds_something_else(tmp_path: Path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    first, second = refused("mnist", tmp_path)
    assert first == f"{tmp_path}/MNIST holds no file of MNIST (train-images-idx3-ubyte ...)."
    assert second.endswith("or move the folder away, then MNIST is downloaded")


@pytest.mark.parametrize("content", [b"not packed", b"half"])
def test_a_damaged_packed_file(content: bytes, raw: Path, tmp_path: Path):
    pack(raw, *FILES)
    packed = raw / f"{FILES[0]}.gz"
    packed.write_bytes(packed.read_bytes()[:1000] if content == b"half" else content)
    assert refused("mnist", tmp_path)[0].startswith(f"{packed} is damaged: ")


# --- CIFAR-10 ---


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    patch_cifar10(monkeypatch, write_cifar10(tmp_path / "made", images=40))
    return tmp_path / "made" / "cifar-10-batches-py"


def archive(folder: Path, to: Path) -> Path:
    to.mkdir()
    with tarfile.open(to / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    return to / "cifar-10-python.tar.gz"


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar"])
def test_the_folder_of_cifar10_itself(name: str, cifar: Path, tmp_path: Path):
    expected = loaded("cifar10", cifar.parent)
    shutil.copytree(cifar, tmp_path / name)
    assert torch.equal(loaded("cifar10", tmp_path / name), expected)


def test_the_archive_of_cifar10_is_unpacked_once(cifar: Path, tmp_path: Path):
    expected = loaded("cifar10", cifar.parent)
    file = archive(cifar, tmp_path / "data")
    assert torch.equal(loaded("cifar10", tmp_path / "data"), expected)
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "CIFAR-10.lock",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]
    file.unlink()
    assert torch.equal(loaded("cifar10", tmp_path / "data"), expected)


def test_half_an_archive(cifar: Path, tmp_path: Path):
    file = archive(cifar, tmp_path / "data")
    file.write_bytes(file.read_bytes()[:100_000])
    first, second = refused("cifar10", tmp_path / "data")
    assert first.startswith(f"{file} cannot be unpacked: ") and "Remove it" in second
    assert sorted(path.name for path in file.parent.iterdir()) == ["CIFAR-10.lock", file.name]


def test_a_batch_of_cifar10_is_missing_or_another(cifar: Path, tmp_path: Path):
    batch = cifar / "data_batch_3"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1] + b"x")
    assert (
        "data_batch_3 or batches.meta has another checksum" in refused("cifar10", cifar.parent)[0]
    )
    batch.unlink()
    assert (
        refused("cifar10", cifar.parent)[0]
        == f"CIFAR-10 is not complete: {cifar} lacks data_batch_3."
    )
