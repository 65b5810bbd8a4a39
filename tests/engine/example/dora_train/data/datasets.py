"""The data sets that have a fixed name: a function each, which returns `Images`.

To add your own, write such a function here and enter it into `DATASETS` of load.py. Its keywords
are the keys of its file in conf/data. Pixels are uint8 of 1 or 3 channels. If it names no parts,
validation and test set are held out of the images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .augment import Augmentation
from .images import SPLIT_SEED, Images, split
from .published import Published, read_published


def digits() -> Images:
    """The 1,797 digits of scikit-learn, 8 x 8 pixels: real data without a download.

    A sixth each is held out for validation and test.
    """
    from sklearn.datasets import load_digits  # here: it takes a second to import

    found = load_digits()
    pixels = torch.from_numpy(found.images * (255 / 16)).round().to(torch.uint8)  # they are 0 .. 16
    labels = torch.from_numpy(found.target).long()
    return Images(pixels.unsqueeze(1), labels, [str(name) for name in found.target_names])


def cifar10(valid: float = 0.1, folder: str | None = None) -> Images:
    """CIFAR-10: 50,000 + 10,000 images of 32 x 32 (184 MB).

    It is read file by file. All at once would take 320 MB of memory.

    Args:
        valid: share of the training set that is held out.
        folder: holds `cifar-10-batches-py` or `cifar-10-python.tar.gz`. If it holds neither, the
            data set is downloaded into it.

    Raises:
        DataError: it is not there and cannot be downloaded, or is damaged.
    """
    from torchvision.datasets import CIFAR10

    files = [*CIFAR10.train_list, *CIFAR10.test_list]

    def with_one(file: int, folder: str) -> Any:
        """Torchvision's class for one of the six files: it checks and reads only that."""
        own = {"base_folder": folder, "train_list": [files[file]], "test_list": []}
        return type("CIFAR10", (CIFAR10,), own)

    def download(root: Path) -> None:
        with_one(0, CIFAR10.base_folder)(root, download=True)

    def one(file: int, folder: Path) -> Any:
        try:
            return with_one(file, folder.name)(folder.parent)
        except RuntimeError as error:
            names = f"{files[file][0]} or {CIFAR10.meta['filename']}"
            raise ValueError(f"{names} has another checksum") from error

    def read(folder: Path) -> Images:
        pixels, labels, classes = torch.empty(0), [], []
        for file in range(len(files)):
            part = one(file, folder)
            if file == 0:  # all six have the same length
                pixels = torch.empty(len(files), len(part.data), 3, 32, 32, dtype=torch.uint8)
            pixels[file] = torch.from_numpy(part.data).permute(0, 3, 1, 2)
            labels += part.targets
            classes = part.classes
            del part  # else two files would be in memory
        test = pixels.shape[1] * len(CIFAR10.test_list)
        images = _with_test(pixels.flatten(0, 1), torch.tensor(labels), classes, test, valid)
        return replace(images, suits=Augmentation(crop=4, flip=True))

    names = [*(name for name, _ in files), CIFAR10.meta["filename"]]
    published = Published(
        "CIFAR-10", CIFAR10.base_folder, names, download, CIFAR10.filename, own_names=True
    )
    return read_published(published, folder, read)


def mnist(valid: float = 0.1, folder: str | None = None) -> Images:
    """MNIST: 60,000 + 10,000 grey digits of 28 x 28, in the folder `MNIST`.

    Keywords and errors are those of `cifar10`.
    """
    return _mnist("MNIST", valid, folder, Augmentation(crop=2))


def fashion_mnist(valid: float = 0.1, folder: str | None = None) -> Images:
    """Fashion-MNIST: clothes in the format of MNIST, in the folder `FashionMNIST`.

    Keywords and errors are those of `cifar10`.
    """
    return _mnist("FashionMNIST", valid, folder, Augmentation(crop=2, flip=True))


def _mnist(name: str, valid: float, folder: str | None, suits: Augmentation) -> Images:
    import torchvision.datasets

    known = getattr(torchvision.datasets, name)

    def read(folder: Path) -> Images:
        here = type(name, (known,), {"raw_folder": str(folder)})
        train, test = here(folder, train=True), here(folder, train=False)
        pixels = torch.cat([train.data, test.data]).unsqueeze(1)
        images = _with_test(
            pixels, torch.cat([train.targets, test.targets]), known.classes, len(test.data), valid
        )
        return replace(images, suits=suits)

    names = [packed.removesuffix(".gz") for packed, _ in known.resources]
    published = Published(name, f"{name}/raw", names, lambda root: known(root, download=True))
    return read_published(published, folder, read)


def _with_test(
    pixels: torch.Tensor, labels: torch.Tensor, classes: list[str], test: int, valid: float
) -> Images:
    """Images whose last `test` are the test set. A share `valid` of the others is held out."""
    if len(pixels) != len(labels):
        raise ValueError(f"{len(pixels)} images, but {len(labels)} labels")
    parts = split(labels[:-test], SPLIT_SEED, valid=valid, test=0)
    parts["test"] = torch.arange(len(labels) - test, len(labels))
    return Images(pixels, labels, list(classes), parts)
