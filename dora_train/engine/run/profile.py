"""Where the time of a run went: a dozen lines at its end, with `debug=profile`.

Lightning tells a profiler when each of its actions begins and ends, one inside another. Here every
moment is counted once, for the innermost action that has a name in PARTS. So the parts add up to
the whole.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from pytorch_lightning.profilers import PassThroughProfiler, Profiler

# {part of an action's name in Lightning 2.6: its name here}. The first that fits is taken.
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
    """Notes nothing, for a run that asks for no profile.

    Lightning's own does the same, but makes a generator for it some thirty times per step.
    """

    def profile(self, action_name: str) -> Any:
        return NOTHING


class WhereTimeGoes(Profiler):
    """Counts the seconds of each part of a run.

    Args:
        device: where the network is.
        clock: returns seconds.
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
        # REST stays, whatever an exception left open.
        if len(self._inside) > 1:
            self._inside.pop()

    def _count(self) -> None:
        # A GPU works on while the CPU returns. Its time would count for the part that waits for it.
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        self.seconds[self._inside[-1]] += now - self._since
        self._since = now

    def lines(self, began: float, steps: int) -> list[str]:
        """Return a line for each part.

        Args:
            began: when the run began, by the same clock.
            steps: optimizer steps of this attempt.
        """
        self._count()
        seconds = {**self.seconds, START: self._first - began}
        whole = sum(seconds.values())
        lines = [f"where the time went: {whole:.1f} s, {steps} steps"]
        for part in ORDER:
            took, per_step = seconds.get(part, 0.0), ""
            if steps and part not in (START, "test"):
                per_step = f"{took / steps * 1e3:9.2f} ms a step"
            lines.append(f"  {part:<11}{took:8.2f} s {took / whole:6.1%} {per_step}".rstrip())
        return lines


def part_of(action: str) -> str:
    """Return the part of an action, e.g. `data` of `[_TrainingEpochLoop].train_dataloader_next`.

    Empty if the action has no name in PARTS.
    """
    for words, part in PARTS.items():
        if words in action:
            return part
    return ""
