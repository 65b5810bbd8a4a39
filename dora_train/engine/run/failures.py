"""Failures that are no mistake of the run itself: a full disk, and a rank that is gone."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, `ulimit -f`
# Words of the errors by which torch says that another rank does not answer. They have no type.
LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe")


def full(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk or quota: this error, or one that led to it."""
    # torch and Lightning raise errors of their own, with the system's error as their cause.
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into one clear line, because it is no bug.

    The files that existed before are still whole (files.written_aside).

    Raises:
        UserError: instead of the error of the code that was writing.
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
            "free some space, and give the same command again",
        ) from error


def is_lost_rank(error: BaseException, world_size: int) -> bool:
    """Whether an error means that another rank is gone."""
    import torch

    if world_size == 1 or not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or any(word in text for word in LOST)
