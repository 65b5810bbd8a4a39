"""Decoded images in one file that all jobs of a machine map into their memory.

Called by image_folder.py. The file is never changed: its name holds the side, and a hash of the
images' names, sizes and times. So other images have another file. The checksums of the image files
follow the pixels.

While a file is made it is called `NAME.half`, and `NAME.half.json` says how many of its images are
on the disk. A decoding that was stopped is continued there. If locks do not work, two processes may
write one such file. They write the same bytes to the same places.
"""

import contextlib
import errno
import json
import logging
import math
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .cache import locked, writing, written_aside
from .image_files import Decoded, InFiles
from .images import InMemory

log = logging.getLogger("dora_train")
BATCH = 32  # images that a worker decodes at a time
NOTED = 5.0  # seconds between two notes of the progress on the disk
SAID = 5.0  # seconds between two lines in the log, at least
KEPT = 7 * 24 * 3600.0  # seconds. An unfinished file that is older is removed.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def packed(files: InFiles, path: Path, root: str) -> tuple[InMemory, np.ndarray]:
    """All images as a view of one file, which is made if it does not exist.

    The file may be removed at any time. A process that maps it keeps its content.

    Args:
        root: the folder of the images, for the log.

    Returns:
        [N, 3, S, S] uint8, and the checksum of each image file: [N] uint32.

    Raises:
        DataError: images cannot be read, or the folder cannot be written.
    """
    pixels = math.prod(files.shape)
    size = pixels + 4 * files.shape[0]
    if not _is_whole(path, size):
        with locked(path, f"decodes {root}"):
            if not _is_whole(path, size):  # another process may have made it meanwhile
                _pack(files, path, root)
    _note_root(path, os.path.abspath(root))
    # Not shared: a write into the view would not reach the file.
    view = torch.from_file(str(path), shared=False, size=pixels, dtype=torch.uint8)
    return InMemory(view.view(files.shape)), np.fromfile(path, np.uint32, offset=pixels)


def root_of(path: Path) -> Path | None:
    """The folder of the images that a packed file was made from, or last used for.

    None: a file of an earlier version, which stored no folder.
    """
    try:
        return Path(_note_of(path).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None


def _note_of(path: Path) -> Path:
    return path.parent.with_name(f"{path.parent.name}.roots") / f"{path.name}.txt"


def _note_root(path: Path, root: str) -> None:
    """Write down which images a packed file is of, for `python -m dora_train.clean`."""
    with contextlib.suppress(OSError):  # the folder of the cache may be read-only
        if root_of(path) != Path(root):
            _note_of(path).parent.mkdir(exist_ok=True)
            with written_aside(_note_of(path)) as stream:
                stream.write(root.encode("utf-8", "surrogateescape"))


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _pack(files: InFiles, path: Path, root: str) -> None:
    count, gigabytes = files.shape[0], math.prod(files.shape) / 1e9
    with writing(path.parent):
        _sweep(path.parent)
        half = _Half.of(path, files)
        line = f"decoding the {count:,} images of {root} once, into {path} ({gigabytes:.2g} GB)"
        if half.done:
            line += f", {half.done:,} of them were decoded before"
        log.info(line)
        batches = files.decode(torch.arange(half.done, count).split(BATCH))
        with half.writing(), contextlib.closing(_said(batches, half.done, count)) as said:
            for batch in said:
                half.add(batch)
        if half.errors:
            half.remove()
            raise files.error(half.errors)
        half.finish(path)


def _sweep(folder: Path) -> None:
    """Remove files that killed processes have left, if they were not continued for a week."""
    for left in (*folder.glob("*.half*"), *folder.glob(".*")):
        with contextlib.suppress(OSError):  # another process has removed it
            if time.time() - left.stat().st_mtime > KEPT:
                left.unlink()


@dataclass
class _Half:
    """A file that is being made.

    Attributes:
        done: the number of images that are decoded, from the first one on.
        errors: path and reason of each image that cannot be read.
    """

    path: Path
    shape: tuple[int, ...]
    done: int = 0
    errors: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, files: InFiles) -> "_Half":
        """The unfinished file of an earlier process, or a new one."""
        half = cls(path.with_name(f"{path.name}.half"), files.shape)
        try:
            note = json.loads(half._note.read_text(encoding="utf-8"))
            if half.path.stat().st_size >= half._place(note["done"]):
                return cls(half.path, files.shape, note["done"], note["errors"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
        return half

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def _place(self, image: int) -> int:
        """The first byte of an image's pixels in the file."""
        return image * math.prod(self.shape[1:])

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Open the file. The images that are done are kept if anything interrupts the block.

        But if the disk is full, the file is removed, so that others have room.
        """
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self._noted = time.monotonic()
        try:
            yield
            self.note()
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                self.remove()
            else:
                self.note()
            raise
        finally:
            os.close(self._handle)

    def add(self, batch: Decoded) -> None:
        """Write the next images."""
        _write(self._handle, batch.pixels, self._place(self.done))
        _write(self._handle, batch.checksums, self._place(self.shape[0]) + 4 * self.done)
        self.errors += [error for error in batch.errors if error not in self.errors]
        self.done += len(batch.pixels)  # last: a signal may come at any moment
        if time.monotonic() - self._noted > NOTED:
            self.note()

    def note(self) -> None:
        """Store the number of images that are done. Their pixels are on the disk before that.

        So a file has no holes after a power cut.
        """
        os.fsync(self._handle)
        with written_aside(self._note) as stream:
            stream.write(json.dumps({"done": self.done, "errors": self.errors}).encode())
        self._noted = time.monotonic()

    def finish(self, path: Path) -> None:
        """Rename the file to its final name, unless another process has just done so."""
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(path)
        self.remove()

    def remove(self) -> None:
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)


def _write(handle: int, values: np.ndarray, place: int) -> None:
    content = np.ascontiguousarray(values).data.cast("B")
    while content:  # the system may write a part only
        written = os.pwrite(handle, content, place)
        content, place = content[written:], place + written


# --- progress ---


def _said(batches: Iterator[Decoded], done: int, count: int) -> Generator[Decoded, None, None]:
    """The batches. A terminal shows their progress as a bar, and the log shows it in lines."""
    from rich.console import Console
    from rich.progress import Progress

    console, lines = Console(stderr=True), _Lines(done, count)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding images", total=count, completed=done)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch.pixels))
            lines.add(len(batch.pixels), quiet=console.is_terminal)


class _Lines:
    """Lines `decoded 12,000 of 60,000 images, 14 s`: every 5 seconds at first, then less often."""

    def __init__(self, done: int, count: int):
        self.done, self.count = done, count
        self.began = self.said = time.monotonic()

    def add(self, images: int, quiet: bool) -> None:
        """Count more images. If `quiet`, only the last line is logged."""
        self.done += images
        now = time.monotonic()
        is_time = now - self.said >= max(SAID, (now - self.began) / 4)
        if self.done == self.count or (is_time and not quiet):
            passed = f"{now - self.began:.0f} s"
            log.info(f"decoded {self.done:,} of {self.count:,} images, {passed}")
            self.said = now
