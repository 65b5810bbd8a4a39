"""Small (or large) data sets in the real on-disk format of each: what the tests of the data read.

Used by test_data.py, test_image_folder.py and benchmarks/data_speed.py.
"""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes text as Python 2 did (BINSTRING), as the files of CIFAR-10 have it: that decides the
    memory of reading."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: Any) -> None:
        encoded = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(encoded)) + encoded)  # type: ignore[attr-defined]
        self.memoize(text)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = save_text  # type: ignore[assignment]


def write_cifar10(root: Path, images: int, seed: int = 0) -> dict[str, list[list[str]]]:
    """The six batches of CIFAR-10 with random pixels, `images` in each.

    Returns:
        {"train_list": ..., "test_list": ...}: names and md5 sums, to patch into torchvision's
        class, with "meta".
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    names = [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]
    for name in names:
        labels = [int(label) for label in np.arange(images) % 10]
        pixels = draw.integers(0, 256, (images, 3072), dtype=np.uint8)
        _pickled(
            folder / name,
            {
                "batch_label": name,
                "labels": labels,
                "data": pixels,
                "filenames": [f"{name}_{number}.png" for number in range(images)],
            },
        )
    _pickled(
        folder / "batches.meta",
        {"num_cases_per_batch": images, "label_names": CIFAR_CLASSES, "num_vis": 3072},
    )
    sums = [
        [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]
        for name in [*names, "batches.meta"]
    ]
    return {"train_list": sums[:5], "test_list": sums[5:6], "meta": sums[6:]}


def patch_cifar10(patch: Any, sums: dict[str, list[list[str]]]) -> None:
    """Let torchvision accept these files; `patch` is pytest's monkeypatch, or anything with its
    `setattr`."""
    from torchvision.datasets import CIFAR10

    patch.setattr(CIFAR10, "train_list", sums["train_list"])
    patch.setattr(CIFAR10, "test_list", sums["test_list"])
    patch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["meta"][0][1]})


def _pickled(file: Path, content: dict[str, Any]) -> None:
    """Protocol 2, numpy's arrays as numpy 1 wrote them under Python 2."""
    with file.open("wb") as stream:
        pickler = _Python2Pickler(stream, protocol=2)
        array = content.pop("data", None)
        if array is None:
            pickler.dump(content)
            return
        pickler.dump(content | {"data": _Array(array)})


class _Array:
    """An array whose pickle is numpy's own `_reconstruct` and state, without Python 3's detour for
    bytes."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __reduce__(self) -> Any:
        return self.array.__reduce__()  # not its __reduce_ex__(2), which the pickler would take


def write_mnist(root: Path, train: int, test: int, name: str = "MNIST", seed: int = 0) -> None:
    """The four IDX files of MNIST (or FashionMNIST) with random pixels, unpacked."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for split, count in (("train", train), ("t10k", test)):
        pixels = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.tobytes()
        )


def write_image_folder(
    root: Path, counts: dict[str, dict[str, int]], size: int = 20, seed: int = 0
) -> None:
    """`root/SPLIT/CLASS/*`: jpg and png in turn, of several sizes; a class's images have its own
    brightness.

    Args:
        counts: {"train": {"cat": 10, "dog": 12}, "valid": ...}.
    """
    draw = np.random.default_rng(seed)
    for split, classes in counts.items():
        for label, (name, count) in enumerate(classes.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = size + number % 3, size + number % 5
                pixels = draw.integers(0, 100, (height, width, 3), dtype=np.uint8) + np.uint8(
                    100 * label % 150
                )
                Image.fromarray(pixels).save(
                    folder / f"{number:04}.{'jpg' if number % 2 else 'png'}"
                )
