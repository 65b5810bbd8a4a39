"""Groups the experiments that are submitted together: in one array, or in one job (`job.pack`).

apply.py groups requests with it. job_count.py groups a plan with it, to say how many jobs there
will be.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from ..jobs.packing import Packing


class Packable(Protocol):
    """An experiment to submit: a request, or a step of a plan."""

    @property
    def kind(self) -> str:
        """A text. Experiments with the same text can be in one array."""

    @property
    def packing(self) -> Packing:
        """How the experiment may share a job."""


T = TypeVar("T", bound=Packable)
Jobs = list[list[T]]  # the experiments of each job of one array


def jobs_of(arrays: Iterable[Iterable[str]], items: Mapping[str, T]) -> list[Jobs[T]]:
    """The jobs of each array. An array of one job is submitted as a single job.

    Args:
        arrays: signatures. Each array is a `launcher.job_array()`, or one experiment outside of
            them.
        items: the experiments to submit, by signature. Others are left out.
    """
    found: list[Jobs[T]] = []
    to_pack: list[T] = []
    for sigs in arrays:
        wanted = [items[sig] for sig in sigs if sig in items]
        if len(wanted) == 1 and wanted[0].packing.size > 1:
            to_pack += wanted  # it can share a job with other single experiments
        else:
            found += arrays_of(wanted)
    return found + arrays_of(to_pack)


def arrays_of(items: Sequence[T]) -> list[Jobs[T]]:
    """Group items into arrays. All items of an array have the same kind and packing."""
    groups: dict[tuple[str, Packing], list[T]] = {}
    for one in items:
        groups.setdefault((one.kind, one.packing), []).append(one)
    return [_shared_out(group, packing.size) for (_, packing), group in groups.items()]


def _shared_out(items: Sequence[T], size: int) -> Jobs[T]:
    """Divide items into as few jobs as possible, in their order. Sizes differ by at most one."""
    left, number = list(items), math.ceil(len(items) / size)
    jobs: Jobs[T] = []
    for rest in range(number, 0, -1):
        share = math.ceil(len(left) / rest)
        jobs.append(left[:share])
        left = left[share:]
    return jobs
