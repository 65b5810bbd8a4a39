"""What happens to a run from outside, told from its own mistakes: a full disk, a rank that is
gone."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")


def full(error: BaseException | None) -> OSError | None:
    """What says that a disk, or a quota, takes no more: this error, or one that led to it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """A full disk is no bug: one clear line.

    The files that were there are whole (store.written_aside).

    Raises:
        UserError: instead of the error of whoever was writing.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = full(error)
        if found is None:
            raise
        raise UserError(
            f"cannot write {found.filename or f'into {folder}'}: {os.strerror(found.errno or 0)}",
            "make room, and give the same command again",
        ) from error


def is_lost_rank(error: BaseException, world_size: int) -> bool:
    """Whether another rank is gone: this one can only leave, and say so."""
    import torch

    if world_size == 1 or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(word in text for word in LOST)
