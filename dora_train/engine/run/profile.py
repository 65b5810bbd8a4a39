"""Where the time of a run went: `debug=profile`, a dozen lines at its end.

Lightning tells a profiler when each of its actions begins and ends, one inside another. Here every
moment is counted once, for the innermost action that has a name of ours; so the parts add up to the
whole.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from pytorch_lightning.profilers import PassThroughProfiler, Profiler

# What an action's name of Lightning 2.6 holds -> what it is called here; the first that fits.
PARTS = {
    "train_dataloader_next": "data",
    "val_next": "data",
    "test_next": "data",
    "batch_to_device": "data",
    "transfer_batch": "data",
    ".training_step": "forward",
    ".backward": "backward",
    "optimizer_step": "optimizer",
    "zero_grad": "optimizer",
    "clip_gradients": "optimizer",
    ".validation_step": "validation",
    ".test_step": "test",
    "]Checkpoints.": "checkpoint",
    "]StepBoundary.": "checkpoint",
    "save_checkpoint": "checkpoint",
    "]LogHistory.": "logging",
    "]ShowProgress.": "logging",
    "]History.": "logging",
}
NOTHING = nullcontext()
START, REST = "start", "the rest"
ORDER = (
    START,
    "data",
    "forward",
    "backward",
    "optimizer",
    "validation",
    "test",
    "logging",
    "checkpoint",
    REST,
)


class Unasked(PassThroughProfiler):
    """Notes nothing, as Lightning's own does, which makes a generator for it some thirty times a
    step."""

    def profile(self, action_name: str) -> Any:
        return NOTHING


class WhereTimeGoes(Profiler):
    """Seconds by part.

    Args:
        device: where the network is: a GPU is waited for at each change, else its work would be
            counted for whoever happens to wait for it.
        clock: seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self._device, self._clock = device, clock
        self._inside = [REST]
        self._first = self._since = clock()

    def start(self, action_name: str) -> None:
        self._count()
        self._inside.append(part_of(action_name) or self._inside[-1])

    def stop(self, action_name: str) -> None:
        self._count()
        if len(self._inside) > 1:  # an exception may leave actions open
            self._inside.pop()

    def _count(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def lines(self, began: float, steps: int) -> list[str]:
        """A line for each part.

        Args:
            began: when the run did, by the same clock.
            steps: optimizer steps of this attempt.
        """
        self._count()
        seconds = {**self.seconds, START: self._first - began}
        whole = sum(seconds.values())
        lines = [f"where the time went: {whole:.1f} s, {steps} steps"]
        for part in ORDER:
            took = seconds.get(part, 0.0)
            per_step = (
                ""
                if part in (START, "test") or not steps
                else f"{took / steps * 1e3:9.2f} ms a step"
            )
            lines.append(f"  {part:<11}{took:8.2f} s {took / whole:6.1%} {per_step}".rstrip())
        return lines


def part_of(action: str) -> str:
    """`data` for `[_TrainingEpochLoop].train_dataloader_next`; empty for what has no name here."""
    return next((part for words, part in PARTS.items() if words in action), "")
