"""Measures the energy of the CPUs with the counters of Linux (RAPL).

A counter covers a whole processor. This process gets a share of it: its own CPU time, divided by
the CPU time of all processes on the machine. On most systems, only root may read the counters. Then
the energy is not known.
"""

from pathlib import Path

import psutil

COUNTERS = Path("/sys/class/powercap")


class Processors:
    """The energy counters of this machine's processors."""

    def __init__(self, folder: Path = COUNTERS):
        self.folders = list(filter(_is_processor, folder.glob("intel-rapl:*")))
        self._before = [_number(one / "energy_uj") for one in self.folders]
        self._busy = _busy()

    def joules(self, cpu_seconds: float) -> float | None:
        """The joules that this process has used since the last call. None: they cannot be read.

        Args:
            cpu_seconds: the CPU time of this process since the last call.
        """
        now = [_number(one / "energy_uj") for one in self.folders]
        before, self._before = self._before, now
        since, self._busy = self._busy, _busy()
        if not now:
            return None
        total = 0
        for folder, old, new in zip(self.folders, before, now, strict=True):
            if old is None or new is None:
                return None
            if new < old:  # the counter has reached its limit, and began again at 0
                new += _number(folder / "max_energy_range_uj") or 0
            total += max(0, new - old)
        # The denominator is at least `cpu_seconds`, so that the share is at most 1.
        share = cpu_seconds / max(self._busy - since, cpu_seconds, 1e-9)
        return total / 1e6 * share


def _is_processor(folder: Path) -> bool:
    """Whether the counter in a folder is of a processor.

    `intel-rapl:0` is one. `intel-rapl:0:1` is a part of it, and `psys` is the whole machine: they
    must not count twice. The processors of AMD have the same names.
    """
    try:
        name = (folder / "name").read_text().strip()
    except OSError:
        name = ""
    return folder.name.count(":") == 1 and name != "psys"


def _number(path: Path) -> int | None:
    """The number in a file. None if it cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _busy() -> float:
    """The CPU seconds of all processes of this machine since its boot."""
    times = psutil.cpu_times()
    return times.user + times.system
