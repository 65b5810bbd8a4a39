"""Finds and removes the ends of jobs (ends.py) that no experiment needs any more.

`python -m dora_train.clean` calls this. Several outputs folders may share a queue. So a line is
kept if no experiment of this folder knows its job.
"""

from collections.abc import Collection
from pathlib import Path

from .place import is_ours, place
from .queue import Queue


def old_ends(known: Collection[str], needed: Collection[str]) -> dict[str, int]:
    """The numbers of ended jobs whose lines can go, each with the bytes of its line.

    Args:
        known: the tokens of all jobs of the experiments in an outputs folder.
        needed: the tokens of the jobs whose ends are still needed.
    """
    queue = _queue()
    if queue is None:
        return {}
    found = {}
    for number, end in queue.ends.all().items():
        token = end["name"].rpartition("_")[2]
        if token in known and token not in needed:
            found[number] = len(str(end))
    return found


def forget(numbers: Collection[str]) -> None:
    """Remove the lines of these jobs. No later job gets one of their numbers."""
    queue = _queue()
    if queue is not None:
        with queue.held():
            queue.ends.drop(numbers)


def _queue() -> Queue | None:
    """The queue of this user. None if it has no ends, or does not belong to this user."""
    folder = Path(place())
    if not (folder / "ended").exists() or not is_ours(str(folder)):
        return None
    return Queue(str(folder))
