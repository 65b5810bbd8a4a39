"""Image files as pixels, decoded by the workers of a DataLoader: for packing them once, or anew for each batch.

Used by image_folder.py, and by inputs.py for the images that a trained network is to classify: `decoded` is how an
image becomes an input.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .children import Parent, end_with_starter
from .errors import DataError

DECODING = 1  # part of a packed file's name: raise it when the pixels of `decoded` would change

def decoded(path: str, shape: Sequence[int]) -> np.ndarray:
    """[C, H, W] uint8: the image upright, scaled until it covers H x W, and cut around its middle.

    Args:
        shape: (C, H, W); C is 3, or 1 for grey.

    Raises:
        Exception: of whatever type, where the file is not an image.
    """
    channels, height, width = shape
    with Image.open(path) as file:
        file.draft("RGB", (2 * width, 2 * height))  # lets JPEG skip detail that the resizing would throw away
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
            image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("RGB")
        if channels == 1:
            image = image.convert("L")  # of a grey image its own bytes
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


class _Files(Dataset):
    """What a worker holds. Paths are one array of bytes: a list of strings is copied by every worker, bit by bit."""

    def __init__(self, paths: list[str], shape: tuple[int, ...]):
        self.paths, self.shape = np.array([os.fsencode(path) for path in paths]), shape

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, rows: list[int]) -> tuple[np.ndarray, list[str]]:
        """([B, C, H, W] uint8, what went wrong).

        Numpy, not torch: tensors travel through /dev/shm, which is small in Docker.
        """
        pixels, errors = np.zeros((len(rows), *self.shape), np.uint8), []
        for place, row in enumerate(rows):
            path = os.fsdecode(self.paths[row])
            try:
                pixels[place] = decoded(path, self.shape)
            except Exception as error:  # PIL raises what it likes: OSError, SyntaxError, ValueError, struct.error ...
                errors.append(f"{path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
        return pixels, errors


def _as_it_is(batch: Any) -> Any:
    return batch


def _began(run: Parent, worker: int) -> None:
    """What a worker does first.

    SLURM signals every process of a job. If a worker died of that, the run that is about to save
    would fail. So a worker ends with the run, and by no signal that can be ignored.
    """
    end_with_starter(run)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the workers that are left when this process ends.

    Python would send them SIGTERM, which they ignore, and wait for ever. Workers are left if a
    traceback holds their loader, or if Lightning leaves in the middle of a validation.
    """
    # torch's handler takes the death of a worker for an accident
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


# Before multiprocessing's own end, and in children too. `atexit` would be too late.
Finalize(None, _end_workers, exitpriority=0)


class InFiles:
    """Pixels that are decoded whenever they are asked for, by a DataLoader with workers.

    Args:
        paths: of the images; row i is paths[i].
        shape: of each decoded image, (C, H, W): see `decoded`.
        num_workers: processes; 0: this one.
    """

    def __init__(self, paths: list[str], shape: tuple[int, ...], num_workers: int):
        self.files, self.num_workers = _Files(paths, shape), num_workers

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.files), *self.files.shape

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Nothing is held, so nothing moves."""

    def read(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each [B] int64 of rows their [B, C, H, W] uint8, in that order.

        Raises:
            DataError: an image cannot be read.
        """
        for pixels, errors in self.decode(wanted):
            if errors:
                raise unreadable(errors)
            yield pixels

    def decode(self, wanted: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[str]]]:
        """As `read`, with what could not be read beside it (black)."""
        batches = [rows.tolist() for rows in wanted]
        loader = DataLoader(
            self.files, batch_sampler=batches, num_workers=min(self.num_workers, len(batches)),  # type: ignore[arg-type]
            collate_fn=_as_it_is, worker_init_fn=partial(_began, Parent.here()),
            generator=torch.Generator())  # else it draws from torch's global one
        for pixels, errors in loader:
            yield torch.from_numpy(pixels), errors


def unreadable(errors: list[str]) -> DataError:
    shown = "; ".join(errors[:3]) + (f"; and {len(errors) - 3} more" if len(errors) > 3 else "")
    return DataError(f"cannot read {len(errors)} image(s): {shown}.\nReplace them or take them away")
