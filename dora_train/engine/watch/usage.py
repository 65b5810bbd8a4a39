"""Sums up what experiments have used, from the measurements that their runs wrote (run/usage.py).

`dora info`, `dora grid` and the report show these sums.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..experiment.folder import Experiment
from ..experiment.records import Usage

HOUR, GB, KWH = 3600.0, 1e9, 3.6e6  # seconds, bytes, joules


@dataclass(frozen=True)
class Used:
    """What attempts or experiments have used together, in seconds, bytes and joules.

    Attributes:
        wall: wall time of all attempts.
        cpu, gpu: cores or GPUs, times the seconds for which a run held them.
        cpu_busy, gpu_busy: the part of these seconds in which they worked. None: not known.
        memory, gpu_memory: the largest peak of an attempt, summed over its ranks.
        energy: of the GPUs and the CPUs. None: not known.
        lost: seconds after the last checkpoint, of attempts that did not reach the end.
        interruptions: the number of these attempts.
    """

    wall: float = 0.0
    cpu: float = 0.0
    cpu_busy: float = 0.0
    gpu: float = 0.0
    gpu_busy: float | None = None
    memory: int = 0
    gpu_memory: int = 0
    energy: float | None = None
    lost: float = 0.0
    interruptions: int = 0

    def __str__(self) -> str:
        """`31.4 GPU h, 12% idle, 2.1 h repeated after 7 interruptions, 6.1 kWh`."""
        parts = [f"{_hours(self.cpu)} CPU h", *_idle(self.cpu, self.cpu_busy)]
        if self.gpu:
            parts = [f"{_hours(self.gpu)} GPU h", *_idle(self.gpu, self.gpu_busy)]
        if self.interruptions:
            noun = "interruption" if self.interruptions == 1 else "interruptions"
            again = f"{_hours(self.lost)} h repeated after {self.interruptions} {noun}"
            parts.append(again)
        if self.energy is not None:
            parts.append(f"{self.energy / KWH:.3g} kWh")
        return ", ".join(parts)

    def values(self) -> dict[str, Any]:
        """The same numbers in hours, gigabytes and kilowatt hours, by their names as columns."""
        return {
            "wall_h": self.wall / HOUR,
            "cpu_h": self.cpu / HOUR,
            "cpu_busy_h": self.cpu_busy / HOUR,
            "gpu_h": self.gpu / HOUR,
            "gpu_busy_h": None if self.gpu_busy is None else self.gpu_busy / HOUR,
            "memory_gb": self.memory / GB,
            "gpu_memory_gb": self.gpu_memory / GB,
            "kwh": None if self.energy is None else self.energy / KWH,
            "lost_h": self.lost / HOUR,
            "interruptions": self.interruptions,
        }


def short(used: Used | None) -> str:
    """`1.2 GPU h`, or `1.2 CPU h`. Empty if nothing is known."""
    return str(used).partition(",")[0] if used else ""


def attempts_of(experiment: Experiment, live: bool = False) -> dict[int, Used]:
    """What each attempt has used, by its number. Attempts of earlier versions are missing.

    Args:
        live: whether the experiment still runs. Then no work of its last attempt is lost.
    """
    last = max(experiment.attempt_numbers(), default=0)
    found = {}
    for number, ranks in experiment.usages().items():
        found[number] = _of_attempt(ranks, cut_off=not (live and number == last))
    return found


def used_by(experiment: Experiment, live: bool = False) -> Used | None:
    """What an experiment has used. None if nothing is known. `live` is as in `attempts_of`."""
    attempts = attempts_of(experiment, live)
    return total(attempts.values()) if attempts else None


def total(parts: Iterable[Used | None]) -> Used:
    """The sum of several parts. For memory, it takes the largest peak."""
    known = [part for part in parts if part is not None]
    return Used(
        sum(one.wall for one in known),
        sum(one.cpu for one in known),
        sum(one.cpu_busy for one in known),
        sum(one.gpu for one in known),
        _sum(one.gpu_busy for one in known),
        max((one.memory for one in known), default=0),
        max((one.gpu_memory for one in known), default=0),
        _sum(one.energy for one in known),
        sum(one.lost for one in known),
        sum(one.interruptions for one in known),
    )


def _of_attempt(ranks: Sequence[Usage], cut_off: bool) -> Used:
    """The sum over the ranks of an attempt.

    Args:
        cut_off: whether the attempt no longer runs. Without an end, its last work is then lost.
    """
    first = ranks[0]  # the times are those of rank 0
    is_lost = cut_off and not first.done
    return Used(
        first.wall,
        sum(one.wall * one.cores for one in ranks),
        sum(one.cpu for one in ranks),
        sum(one.wall * one.gpus for one in ranks),
        _sum(one.gpu_busy for one in ranks),
        sum(one.memory for one in ranks),
        sum(one.gpu_memory for one in ranks),
        _sum(one.energy for one in ranks),
        max(0.0, first.wall - first.saved) if is_lost else 0.0,
        int(is_lost),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of the known values. None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _hours(seconds: float) -> str:
    """Seconds as hours: `31.4`, `0.42`, `0.0021`."""
    return f"{seconds / HOUR:.3g}"


def _idle(held: float, busy: float | None) -> list[str]:
    """`12% idle`. Empty if it is not known."""
    if busy is None or not held:
        return []
    # Data workers may use more cores than the run holds.
    return [f"{max(0.0, 1 - busy / held):.0%} idle"]
