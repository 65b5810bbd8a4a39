"""The energy of the CPUs, by the counters of Linux (RAPL).

They count whole processors. The share of this process is its part of the CPU time that the machine
was busy. On most systems only root may read them: then there is no number.
"""

from pathlib import Path

import psutil

COUNTERS = Path("/sys/class/powercap")


class Processors:
    """The processors of this machine, from the moment when this was made."""

    def __init__(self, folder: Path = COUNTERS):
        # `intel-rapl:0` is a processor, `intel-rapl:0:1` a part of it. AMD's have the same names.
        self.folders = [one for one in folder.glob("intel-rapl:*") if one.name.count(":") == 1]
        self._before = [_number(one / "energy_uj") for one in self.folders]
        self._busy = _busy()

    def joules(self, cpu_seconds: float) -> float | None:
        """The joules since the last call, for so many seconds of CPU time.

        None: the counters cannot be read.
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
            if new < old:  # it counts to a limit, and then from 0
                new += _number(folder / "max_energy_range_uj") or 0
            total += max(0, new - old)
        share = cpu_seconds / max(self._busy - since, cpu_seconds, 1e-9)
        return total / 1e6 * share


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _busy() -> float:
    """Seconds in which the CPUs of this machine worked since its boot, all together."""
    times = psutil.cpu_times()
    return times.user + times.system
