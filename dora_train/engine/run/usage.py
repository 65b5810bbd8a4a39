"""Measures what a rank of an attempt uses, and writes it beside the claim of the attempt.

Nothing happens at a step. A measure is taken when the run reports itself or has saved a checkpoint,
at most every `EVERY` seconds. It reads no tensor, and nothing of it goes into the history.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from ..experiment.records import Usage
from ..upstream.nvml_usage import Gauge
from .energy import Processors

EVERY = 20.0  # seconds
# bytes of a unit of ru_maxrss
UNIT = 1 if sys.platform == "darwin" else 1024


class Meter:
    """What this process uses from now on.

    Args:
        rank: of this process.
        cores: that it may use.
        write: writes a measure.
    """

    def __init__(self, rank: int, cores: int, write: Callable[[Usage], None]):
        self.usage, self.write = Usage(rank=rank, cores=cores), write
        self._began = self._measured = time.monotonic()
        self._has_measured = False
        self._cpu = _cpu_seconds()
        self._processors = Processors()
        self._gauge: Gauge | None = None
        self._gpu_joules: float | None = None

    def saved(self) -> None:
        """Note that a checkpoint is whole: the work before it cannot be lost any more."""
        self.usage.saved = time.monotonic() - self._began
        self.measure()

    def measure(self, now: bool = False, done: bool = False) -> None:
        """Measure and write, unless the last measure was a moment ago.

        Args:
            now: at once.
            done: the run has reached its end.
        """
        since = time.monotonic() - self._measured
        # the first measure at once: the run may be killed before the next one
        if since < EVERY and not now and self._has_measured:
            return
        self._has_measured = True
        self._measured += since
        usage = self.usage
        usage.wall, usage.done = self._measured - self._began, done
        self._measure_host()
        self._measure_gpu(since)
        # A number that is missing costs nothing, and a run must not end for it.
        with suppress(OSError):
            self.write(usage)

    def _measure_host(self) -> None:
        usage, workers = self.usage, _workers()
        cpu = _cpu_seconds(workers) - self._cpu
        joules = self._processors.joules(cpu - usage.cpu)
        # a worker that has ended counts a moment later
        usage.cpu = max(usage.cpu, cpu)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
        usage.memory = max(usage.memory, own + sum(map(_own_memory, workers)))
        self._add_energy(joules)

    def _measure_gpu(self, since: float) -> None:
        # Only if the run itself has imported torch and begun to use the GPU.
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        usage = self.usage
        if not usage.gpus:
            usage.gpus = 1
            uuid = getattr(
                torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", ""
            )
            self._gauge = Gauge.of(f"GPU-{uuid}")
            self._gpu_joules = self._gauge.joules() if self._gauge else None
        usage.gpu_memory = max(usage.gpu_memory, torch.cuda.max_memory_reserved())
        if self._gauge is None:
            return
        busy, joules = self._gauge.busy(), self._gauge.joules()
        if busy is not None:
            usage.gpu_busy = (usage.gpu_busy or 0.0) + busy * since
        if joules is not None and self._gpu_joules is not None:
            self._add_energy(joules - self._gpu_joules)
            self._gpu_joules = joules

    def _add_energy(self, joules: float | None) -> None:
        if joules is not None:
            self.usage.energy = (self.usage.energy or 0.0) + joules


def _workers() -> list[psutil.Process]:
    """The data workers of this process."""
    found = []
    for child in multiprocessing.active_children():
        with suppress(psutil.Error):
            found.append(psutil.Process(child.pid))
    return found


def _cpu_seconds(workers: list[psutil.Process] | None = None) -> float:
    """Seconds of CPU time of this process, of its workers, and of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for worker in workers or ():
        with suppress(psutil.Error):
            times = worker.cpu_times()
            total += times.user + times.system
    return total


def _own_memory(worker: psutil.Process) -> int:
    """Bytes of memory of a worker, without those that it shares with other processes."""
    try:
        memory = worker.memory_info()
    except psutil.Error:
        return 0
    return max(0, memory.rss - getattr(memory, "shared", 0))
