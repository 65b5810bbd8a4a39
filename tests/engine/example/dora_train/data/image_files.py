"""Image files that the workers of a DataLoader decode: once to pack them, or again for each batch.

Used by image_folder.py, and by inputs.py for the images that a trained network classifies.
"""

import copy
import multiprocessing
import os
import signal
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from multiprocessing.util import Finalize
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..children import Parent, end_with_starter
from ..data_error import DataError
from .decoding import decoded

T = TypeVar("T")


@dataclass
class Decoded:
    """A batch of image files.

    Attributes:
        pixels: [B, C, H, W] uint8, black if an image cannot be read. Numpy, not torch: a worker
            would send tensors through /dev/shm, which is small in Docker.
        checksums: [B] uint32, CRC-32 of the content of each file.
        errors: path and reason of each image that cannot be read.
    """

    pixels: np.ndarray
    checksums: np.ndarray
    errors: list[str]


class _Files(Dataset):
    """The data set that each worker has a copy of.

    Attributes:
        paths: one array of bytes. Each worker would end with a copy of a list of strings, as Python
            writes a reference count into each string that it reads.
        stopped: is set if the images are not needed any more. A worker looks at it before each
            image, so that a run does not wait for the rest of its batches.
    """

    stopped: Event | None = None

    def __init__(self, paths: list[str], shape: tuple[int, ...], on_white: bool):
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.shape, self.on_white = shape, on_white

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, rows: list[int]) -> Decoded:
        count = len(rows)
        batch = Decoded(np.zeros((count, *self.shape), np.uint8), np.zeros(count, np.uint32), [])
        for place, row in enumerate(rows):
            if self.stopped and self.stopped.is_set():
                break
            path = os.fsdecode(self.paths[row])
            try:
                with open(path, "rb") as file:
                    batch.checksums[place] = _checksum(file)
                    batch.pixels[place] = decoded(file, self.shape, self.on_white)
            except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error
                batch.errors.append(f"{path} ({_reason(error)})")
        return batch


def _checksum(file: IO[bytes]) -> int:
    """The CRC-32 of an open file, which is at its beginning before and after."""
    checksum = 0
    while piece := file.read(1 << 20):
        checksum = zlib.crc32(piece, checksum)
    file.seek(0)
    return checksum


def _reason(error: Exception) -> str:
    text = str(error).partition(" <_io.")[0]  # PIL shows the file as an object
    return text.splitlines()[0] if text else type(error).__name__


def _unchanged(batch: T) -> T:
    return batch


def _start_worker(run: Parent, worker: int) -> None:
    """Let a worker end with the run, and ignore signals that can be ignored.

    SLURM signals every process of a job. If a worker died of that, the run could not save any more.
    """
    end_with_starter(run)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def _end_workers() -> None:
    """Kill the workers that are left when this process ends.

    Python would send them SIGTERM, which they ignore, and wait for ever. Workers are left if a
    traceback refers to their loader, or if Lightning stops in the middle of a validation.
    """
    # torch's handler would report the death of a worker as an error
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


# Before multiprocessing's own end, and in children too. `atexit` would be too late.
Finalize(None, _end_workers, exitpriority=0)


class InFiles:
    """Pixels that a DataLoader with workers decodes whenever they are asked for.

    Args:
        paths: of the images. Row i is paths[i].
        shape: of each decoded image, (C, H, W): see `decoded`.
        num_workers: processes that decode. 0: this process does it.
        on_white: see `decoded`.
        unreadable: the file that lists all images that cannot be read, if there are many.
    """

    def __init__(
        self,
        paths: list[str],
        shape: tuple[int, ...],
        num_workers: int,
        on_white: bool = True,
        unreadable: Path | None = None,
    ):
        self.files, self.num_workers = _Files(paths, shape, on_white), num_workers
        self.unreadable = unreadable

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.files), *self.files.shape

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Do nothing: no pixels are in memory."""

    def read(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each [B] int64 of rows their [B, C, H, W] uint8, in that order.

        Raises:
            DataError: an image cannot be read.
        """
        for batch in self.decode(wanted):
            if batch.errors:
                raise self.error(batch.errors)
            yield torch.from_numpy(batch.pixels)

    def decode(self, wanted: Iterable[Tensor]) -> Iterator[Decoded]:
        """As `read`, but a batch also has the images that cannot be read, and raises nothing."""
        batches = [rows.tolist() for rows in wanted]
        files = copy.copy(self.files)  # others may read the same files at the same time
        files.stopped = multiprocessing.Event()
        loader = iter(
            DataLoader(
                files,
                batch_sampler=batches,  # type: ignore[arg-type]
                num_workers=min(self.num_workers, len(batches)),
                collate_fn=_unchanged,
                worker_init_fn=partial(_start_worker, Parent.here()),
                generator=torch.Generator(),  # else it draws from torch's global generator
            )
        )
        try:
            yield from loader
        finally:  # also after an interruption: then the loader waits for its workers
            files.stopped.set()

    def error(self, errors: list[str]) -> DataError:
        """The error for images that cannot be read. It names three, and a file with all of them."""
        shown, rest = "; ".join(errors[:3]), len(errors) - 3
        if rest > 0:
            shown += f"; and {rest:,} more"
            if self.unreadable and _written(self.unreadable, errors):
                shown += f"; all of them: {self.unreadable}"
        return DataError(
            f"cannot read {len(errors):,} image(s): {shown}.\nReplace them or take them away"
        )


def _written(path: Path, lines: list[str]) -> bool:
    """Write the lines. False if that is not possible, which is no error."""
    content = "".join(f"{line}\n" for line in lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return True
