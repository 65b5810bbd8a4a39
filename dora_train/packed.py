"""Decoded images in one file of uint8 that all jobs of a machine map into their memory: written once, never changed.

Called by image_folder.py. The name tells what is in it (side, and a hash of the images' names, sizes and times), so a
file is right or it is not there.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from .cache import locked, writing, written_aside
from .image_files import InFiles, unreadable
from .images import InMemory

log = logging.getLogger("dora_train")


def packed(files: InFiles, path: Path, root: str) -> InMemory:
    """All images as the view of one file, made first where it is not there: [N, 3, S, S] uint8.

    The file may be removed at any time; older ones of the same root are of no use any more.

    Raises:
        DataError: images cannot be read (all of them are named), or the folder cannot be written.
    """
    size = math.prod(files.shape)
    if not _is_whole(path, size):
        with locked(path, f"decodes {root}"):
            if not _is_whole(path, size):
                _pack(files, path, root)
    view = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)  # private: nobody writes it
    return InMemory(view.view(files.shape))


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _pack(files: InFiles, path: Path, root: str) -> None:
    count, gigabytes = files.shape[0], math.prod(files.shape) / 1e9
    log.info(f"decoding the {count:,} images of {root} once, into {path} ({gigabytes:.2g} GB)")
    errors: list[str] = []
    with writing(path.parent), written_aside(path) as stream:
        for pixels, wrong in _with_bar(files.decode(torch.arange(count).split(32)), count):
            errors += wrong
            stream.write(pixels.numpy().tobytes())
        if errors:
            raise unreadable(errors)


def _with_bar(batches: Iterator[tuple[Tensor, list[str]]], count: int) -> Iterator[tuple[Tensor, list[str]]]:
    """A progress bar on a terminal, in images."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding images", total=count)
        for pixels, errors in batches:
            yield pixels, errors
            progress.advance(task, len(pixels))
