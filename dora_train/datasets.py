"""The data sets that have a fixed name: each a function that gives `Images`, entered in `DATASETS` of data.py.

To add your own, write such a function here: its keywords are the keys of its file in conf/data. Pixels are uint8 of 1
or 3 channels; a part that it does not name is held out of the whole.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .augment import Augmentation
from .cache import beside, cache_folder, locked, network_timeout, writing
from .errors import DataError
from .images import SPLIT_SEED, Images, split


def digits() -> Images:
    """The 1,797 digits inside scikit-learn, 8 x 8: real data without a download; a sixth each is held out."""
    from sklearn.datasets import load_digits  # here: it takes a second to import

    found = load_digits()
    pixels = torch.from_numpy(found.images * (255 / 16)).round().to(torch.uint8)  # they are 0 .. 16
    labels = torch.from_numpy(found.target).long()
    return Images(pixels.unsqueeze(1), labels, [str(name) for name in found.target_names])


def cifar10(valid: float = 0.1, folder: str | None = None) -> Images:
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 (184 MB), read file by file: all at once would take 320 MB.

    Args:
        valid: share of the training set that is held out.
        folder: holds `cifar-10-batches-py`, or gets it.

    Raises:
        DataError: it is not there and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets import CIFAR10

    files = [*CIFAR10.train_list, *CIFAR10.test_list]

    def one(file: int, root: Path, download: bool = False) -> Any:
        """Torchvision's class with one file of the six: it checks, and reads, no more than that."""
        return type("CIFAR10", (CIFAR10,), {"train_list": [files[file]], "test_list": []})(root, download=download)

    def read(root: Path) -> Images:
        pixels, labels, classes = torch.empty(0), [], []
        for file in range(len(files)):
            part = one(file, root)
            if file == 0:  # the six are of one length
                pixels = torch.empty(len(files), len(part.data), 3, 32, 32, dtype=torch.uint8)
            pixels[file] = torch.from_numpy(part.data).permute(0, 3, 1, 2)
            labels += part.targets
            classes = part.classes
            del part  # before the next one is read
        test = pixels.shape[1] * len(CIFAR10.test_list)
        images = _with_test(pixels.flatten(0, 1), torch.tensor(labels), classes, test, valid)
        return replace(images, suits=Augmentation(crop=4, flip=True))

    return _fetched("CIFAR-10", CIFAR10.base_folder, folder, read, lambda root: one(0, root, download=True))


def mnist(valid: float = 0.1, folder: str | None = None) -> Images:
    """MNIST: 60,000 + 10,000 digits of 28 x 28, grey; keywords and errors as `cifar10`, in the folder `MNIST`."""
    return _mnist("MNIST", valid, folder, Augmentation(crop=2))


def fashion_mnist(valid: float = 0.1, folder: str | None = None) -> Images:
    """Fashion-MNIST: clothes in the format of MNIST; keywords and errors as `cifar10`, in the folder `FashionMNIST`."""
    return _mnist("FashionMNIST", valid, folder, Augmentation(crop=2, flip=True))


def _mnist(name: str, valid: float, folder: str | None, suits: Augmentation) -> Images:
    import torchvision.datasets

    known = getattr(torchvision.datasets, name)

    def read(root: Path) -> Images:
        train, test = known(root, train=True), known(root, train=False)
        pixels = torch.cat([train.data, test.data]).unsqueeze(1)
        images = _with_test(pixels, torch.cat([train.targets, test.targets]), known.classes, len(test.data), valid)
        return replace(images, suits=suits)

    return _fetched(name, name, folder, read, lambda root: known(root, download=True))


def _with_test(pixels: torch.Tensor, labels: torch.Tensor, classes: list[str], test: int, valid: float) -> Images:
    """The last `test` images are the test set; `valid` of the others is held out."""
    if len(pixels) != len(labels):
        raise ValueError(f"{len(pixels)} images, but {len(labels)} labels")
    parts = split(labels[:-test], SPLIT_SEED, valid=valid, test=0)
    parts["test"] = torch.arange(len(labels) - test, len(labels))
    return Images(pixels, labels, list(classes), parts)


def _fetched(name: str, inner: str, folder: str | None, read: Callable[[Path], Images],
             download: Callable[[Path], Any]) -> Images:
    """What `read(folder)` gives; `download(folder)` comes first where `folder/inner` is not there.

    Raises:
        DataError: neither can be had.
    """
    root = cache_folder(folder)
    if not (root / inner).exists():
        with locked(root / name, f"downloads {name}"):
            if not (root / inner).exists():
                _download(name, inner, root, download)
    try:
        return read(root)
    except DataError:
        raise
    except Exception as error:  # foreign bytes fail in any way: pickle, struct, assert, numpy
        raise DataError(
            f"{root / inner} is not {name} as torchvision knows it: {_line(error)}.\n"
            "Move it away, and it is downloaded anew; or name another folder: data.folder=FOLDER") from error


def _download(name: str, inner: str, root: Path, download: Callable[[Path], Any]) -> None:
    """Into a folder aside, moved when it is whole: what a killed process leaves is never taken for the data.

    Where locks do nothing, others download as well: each into its own folder, and the first that is done is the one.
    """
    aside = beside(root / name)
    try:
        with writing(root):
            aside.mkdir()
        with network_timeout():
            download(aside)
        (aside / inner).replace(root / inner)
    except DataError:
        raise
    except Exception as error:  # URLError, RuntimeError for a wrong checksum, tar and zip errors
        if (root / inner).exists():  # another's, a moment ago
            return
        raise DataError(
            f"{name} is not in {root}, and cannot be downloaded: {_line(error)}.\n"
            f"Copy {inner} there from a machine that has it, or name the folder that holds it: data.folder=FOLDER, "
            "or DORA_TRAIN_DATA=FOLDER for all commands") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _line(error: Exception) -> str:
    """The last line of an error's message, where the cause stands."""
    lines = [line.strip(" <>.") for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
