"""Measures what a rank of an attempt uses, and writes it beside the claim of the attempt.

A step does nothing for this. A measurement is taken when the run writes its state or has saved a
checkpoint, at most every `EVERY` seconds, and once when the run begins to use a GPU. It reads no
tensor, and nothing of it goes into the history.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from ..experiment import claims
from ..experiment.folder import Experiment
from ..experiment.records import Usage
from ..upstream.nvml_usage import Gauge
from .energy import Processors

EVERY = 20.0  # seconds between two measurements, at least
# `ru_maxrss` counts bytes on macOS, and units of 1024 bytes on Linux.
UNIT = 1 if sys.platform == "darwin" else 1024


class Meter:
    """Measures what this process uses, from the moment when it was made.

    Args:
        rank: the rank of this process.
        cores: the number of cores that it may use.
        write: writes a measurement.
    """

    def __init__(self, rank: int, cores: int, write: Callable[[Usage], None]):
        self.usage, self.write = Usage(rank=rank, cores=cores), write
        self._began = self._measured = time.monotonic()
        self._has_measured = False
        self._cpu = _cpu_seconds()  # the CPU time before this moment does not count
        self._processors = Processors()
        self._gauge: Gauge | None = None
        self._gpu_joules: float | None = None

    def saved(self) -> None:
        """Note that a checkpoint is whole on disk: the work before it can no longer be lost."""
        self.usage.saved = time.monotonic() - self._began
        self.measure()

    def measure(self, now: bool = False, done: bool = False) -> None:
        """Measure and write, unless the last measurement is less than `EVERY` seconds old.

        The first measurement with a GPU is taken in any case.

        Args:
            now: measure in any case.
            done: whether the run has reached its end.
        """
        since = time.monotonic() - self._measured
        # The first measurement is taken at once: the run may be killed before the next one. So is
        # the first one with a GPU, whose counters began earlier than this run.
        is_due = now or since >= EVERY or not self._has_measured
        if not is_due and (self.usage.gpus or not _uses_gpu()):
            return
        self._has_measured = True
        self._measured += since
        usage = self.usage
        usage.wall, usage.done = self._measured - self._began, done
        self._measure_host()
        self._measure_gpu(since)
        # A run must not end because a measurement could not be written.
        with suppress(OSError):
            self.write(usage)

    def _measure_host(self) -> None:
        usage, workers = self.usage, _workers()
        cpu = _cpu_seconds(workers) - self._cpu
        joules = self._processors.joules(cpu - usage.cpu)
        # The time of a worker that has just ended is missing until it is counted as an ended child.
        usage.cpu = max(usage.cpu, cpu)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
        usage.memory = max(usage.memory, own + sum(map(_own_memory, workers)))
        self._add_energy(joules)

    def _measure_gpu(self, since: float) -> None:
        if not _uses_gpu():
            return
        torch, usage = sys.modules["torch"], self.usage
        if not usage.gpus:
            usage.gpus = 1  # each rank has one GPU
            uuid = getattr(
                torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", ""
            )
            self._gauge = Gauge.of(f"GPU-{uuid}")
            # The counter of the GPU began earlier. Only what it counts from now on belongs to us.
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


class UsageFile:
    """Writes what a rank has used beside the claim of its attempt.

    Args:
        attempt: the number that the first rank has claimed.
        is_first: whether this is the first rank. When another one began, the first may not have
            claimed the attempt yet. So it looks for the claim before it writes for the first time.
    """

    def __init__(self, experiment: Experiment, attempt: int, is_first: bool):
        self.experiment, self.attempt = experiment, attempt
        self.is_known = is_first

    def write(self, usage: Usage) -> None:
        if not self.is_known:
            last = claims.latest(self.experiment)
            if last is None or last.alive() is False:
                return  # a claim of an earlier attempt
            self.attempt, self.is_known = last.attempt, True
        self.experiment.write_usage(self.attempt, usage)


def _uses_gpu() -> bool:
    """Whether the run has imported torch and uses a GPU. Asking must not start CUDA."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()


def _workers() -> list[psutil.Process]:
    """The data workers of this process."""
    found = []
    for child in multiprocessing.active_children():
        with suppress(psutil.Error):
            found.append(psutil.Process(child.pid))
    return found


def _cpu_seconds(workers: list[psutil.Process] | None = None) -> float:
    """The CPU seconds of this process, its workers, and its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for worker in workers or ():
        with suppress(psutil.Error):
            times = worker.cpu_times()
            total += times.user + times.system
    return total


def _own_memory(worker: psutil.Process) -> int:
    """The memory of a worker in bytes, without the memory that it shares with other processes."""
    try:
        memory = worker.memory_info()
    except psutil.Error:
        return 0
    return max(0, memory.rss - getattr(memory, "shared", 0))
