"""How fast are the batches?

Ours against torchvision's transforms in a DataLoader, and the memory that CIFAR-10 takes.

    python benchmarks/data_speed.py [--images 50000] [--rounds 5] [--batch_size 128]

Random pixels in CIFAR-10's shapes, random crop with padding 4, flip, normalise, to float32 batches.
All contenders take turns in each round of one process, since other programs share the machine: the
ratio is that of the medians. If there is a CUDA GPU, ours are also made there, from pixels that are
there already. Memory is measured in a process of its own, which reads six files of
10,000 images in CIFAR-10's own format, and iterates.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dora_train.data.augment import Augmentation
from dora_train.data.batches import Batches
from dora_train.data.images import InMemory

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


class PerSample(Dataset):
    """What torchvision's CIFAR10 does with a transform: an image at a time, through PIL."""

    def __init__(self, pixels: torch.Tensor):
        self.pixels = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        t = torchvision.transforms
        self.transform = t.Compose(
            [
                t.RandomCrop(32, padding=4),
                t.RandomHorizontalFlip(),
                t.ToTensor(),
                t.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[row])), row % 10


class PerSampleTensors(PerSample):
    """The same with torchvision's newer transforms on uint8 tensors, without PIL."""

    def __init__(self, pixels: torch.Tensor):
        super().__init__(pixels)
        self.tensors = pixels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.tensors[row]), row % 10


def contenders(
    images: int, per_sample: int, batch_size: int
) -> dict[str, tuple[int, Callable[[int], Iterable]]]:
    """name -> (images an epoch, epoch -> batches)."""
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    mean, std = 255 * torch.tensor(MEAN), 255 * torch.tensor(STD)
    ours = Batches(
        InMemory(pixels),
        torch.arange(images),
        torch.arange(images) % 10,
        batch_size,
        mean,
        std,
        shuffle=True,
        augmentation=Augmentation(crop=4, flip=True),
    )
    plain = Batches(
        InMemory(pixels),
        torch.arange(images),
        torch.arange(images) % 10,
        batch_size,
        mean,
        std,
        shuffle=True,
    )
    found: dict[str, tuple[int, Callable[[int], Iterable]]] = {
        "ours": (images, ours.epoch),
        "ours, no augmentation": (images, plain.epoch),
    }
    if torch.cuda.is_available():
        there = InMemory(pixels), torch.arange(images), torch.arange(images) % 10, batch_size
        augmentation = Augmentation(crop=4, flip=True)
        on_gpu = Batches(*there, mean, std, shuffle=True, augmentation=augmentation).to("cuda")
        found["ours, on the GPU"] = (images, on_gpu.epoch)
    for kind, name in (
        (PerSample, "torchvision (PIL)"),
        (PerSampleTensors, "torchvision v2 (tensors)"),
    ):
        for workers in (0, 1, 2, 4):
            loader: DataLoader = DataLoader(
                kind(pixels[:per_sample]),
                batch_size,
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
            found[f"{name}, {workers} workers"] = (per_sample, _the_same(loader))
    return found


def _the_same(loader: DataLoader) -> Callable[[int], Iterable]:
    return lambda epoch: loader


@dataclass
class Turn:
    """One epoch of one contender."""

    rate: float  # images a second
    cpu: float  # microseconds of CPU an image, workers included


def speed(images: int, per_sample: int, rounds: int, batch_size: int) -> dict[str, Turn]:
    """Medians over the rounds, the first one (workers start) thrown away."""
    turns: dict[str, list[Turn]] = {}
    everyone = contenders(images, per_sample, batch_size)
    for turn in range(rounds + 1):
        for name, (count, epoch) in everyone.items():
            before, began = _cpu_seconds(), time.perf_counter()
            for batch in epoch(turn):
                assert batch[0].dtype == torch.float32
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            wall, cpu = time.perf_counter() - began, _cpu_seconds() - before
            turns.setdefault(name, []).append(Turn(count / wall, cpu / count * 1e6))
    medians = {}
    for name, found in turns.items():
        rate = statistics.median(turn.rate for turn in found[1:])
        cpu = statistics.median(turn.cpu for turn in found[1:])
        medians[name] = Turn(rate, cpu)
    return medians


def _cpu_seconds() -> float:
    """Of this process and its living workers."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


# --- memory ---


def memory_child(folder: str) -> None:
    """Prints the peak of resident memory above that of the imports, in MB: load, then an epoch of
    each part."""
    from torchvision.datasets import CIFAR10  # the loading imports it: it must not count

    assert CIFAR10
    from dora_train.data import load_data
    from tests.engine.data_files import patch_cifar10

    class Patch:
        setattr = staticmethod(setattr)

    patch_cifar10(Patch, pickle.loads((Path(folder) / "sums").read_bytes()))
    torch.zeros(512, 512) @ torch.zeros(512, 512)  # the threads and their buffers belong to torch
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    data = load_data("cifar10", 128, crop=4, flip=True, cutout=8, folder=folder)
    loaded = _status("VmHWM")
    for part in (data.train, data.valid, data.test):
        for _ in part.epoch():
            pass
    print(
        json.dumps(
            {"imports": before, "loaded": loaded - before, "peak": _status("VmHWM") - before}
        )
    )


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def memory() -> dict[str, float]:
    from tests.engine.data_files import write_cifar10

    with tempfile.TemporaryDirectory() as folder:
        sums = write_cifar10(Path(folder), images=10_000)
        (Path(folder) / "sums").write_bytes(pickle.dumps(sums))
        done = subprocess.run(
            [sys.executable, __file__, "--memory_child", folder], check=True, stdout=subprocess.PIPE
        )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=50_000, help="of our epoch")
    parser.add_argument(
        "--per_sample", type=int, default=10_000, help="of torchvision's epoch, which takes longer"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--memory_child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.memory_child:
        return memory_child(args.memory_child)
    found = speed(args.images, args.per_sample, args.rounds, args.batch_size)
    for name, turn in found.items():
        print(f"{name:36} {turn.rate:10,.0f} images/s {turn.cpu:7.1f} us of CPU an image")
    best = max(
        (name for name in found if name.startswith("torchvision")),
        key=lambda name: found[name].rate,
    )
    least = min(turn.cpu for name, turn in found.items() if name.startswith("torchvision"))
    print(
        f"{found['ours'].rate / found[best].rate:.1f} times the best of torchvision ({best}); "
        f"of CPU, {least / found['ours'].cpu:.1f} times less; load {os.getloadavg()[0]:.1f}"
    )
    if sys.platform == "linux":
        used = memory()
        print(
            f"CIFAR-10: peak {used['peak']:.0f} MB above the imports ({used['imports']:.0f} MB); "
            f"{used['loaded']:.0f} MB after loading"
        )


if __name__ == "__main__":
    main()
