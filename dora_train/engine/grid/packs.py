"""Which experiments are submitted together: as an array, and as members of one job (`job.pack`).

request.py asks this for requests, and sync.py for a plan, which says how many jobs there will be.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from ..jobs.packing import Packing


class Packable(Protocol):
    """Anything that stands for an experiment to submit."""

    @property
    def kind(self) -> str:
        """The same text for all that one array can hold."""

    @property
    def packing(self) -> Packing:
        """How it may share a job."""


T = TypeVar("T", bound=Packable)
Jobs = list[list[T]]  # the experiments of each job of one array


def jobs_of(arrays: Iterable[Iterable[str]], items: Mapping[str, T]) -> list[Jobs[T]]:
    """The jobs of each array. An array of one job is submitted as a single job.

    Args:
        arrays: signatures. Each is a `launcher.job_array()`, or one experiment outside of those.
        items: by signature.
    """
    found: list[Jobs[T]] = []
    to_pack: list[T] = []
    for sigs in arrays:
        wanted = [items[sig] for sig in sigs if sig in items]
        if len(wanted) == 1 and wanted[0].packing.size > 1:
            to_pack += wanted
        else:
            found += arrays_of(wanted)
    return found + arrays_of(to_pack)


def arrays_of(items: Sequence[T]) -> list[Jobs[T]]:
    """Items in arrays of one kind each."""
    groups: dict[tuple[str, Packing], list[T]] = {}
    for one in items:
        groups.setdefault((one.kind, one.packing), []).append(one)
    return [_shared_out(group, packing.size) for (_, packing), group in groups.items()]


def _shared_out(items: Sequence[T], size: int) -> Jobs[T]:
    """As few jobs as possible, in the order of the items. Each has the same number, or one less."""
    left, number = list(items), math.ceil(len(items) / size)
    jobs: Jobs[T] = []
    for rest in range(number, 0, -1):
        share = math.ceil(len(left) / rest)
        jobs.append(left[:share])
        left = left[share:]
    return jobs
