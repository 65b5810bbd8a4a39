"""The lines of the local queue that no experiment's state rests on any more.

`python -m dora_train.clean` asks, and removes them. A queue may serve several outputs folders, so a
line that no experiment of this folder knows stays.
"""

from collections.abc import Collection
from pathlib import Path

from .place import is_ours, place
from .queue import Queue


def old_ends(known: Collection[str], needed: Collection[str]) -> dict[str, int]:
    """The numbers of ended jobs whose lines can go, each with the bytes of its line.

    Args:
        known: the tokens of all jobs of the experiments of a folder.
        needed: those of them whose ends are still asked for.
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
    """Remove the lines of these jobs. Their numbers are not given again."""
    queue = _queue()
    if queue is not None:
        with queue.held():
            queue.ends.drop(numbers)


def _queue() -> Queue | None:
    folder = Path(place())
    if not (folder / "ended").exists() or not is_ours(str(folder)):
        return None
    return Queue(str(folder))
