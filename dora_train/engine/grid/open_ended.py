"""An explorer that adds experiments as others end: the base class of `dora_train.search`.

`sync.py` calls `grow` each time it runs the grid file, and again when an experiment has ended.
Plan, submission and table are the same as for any other grid.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora.explore import Explorer, Launcher

from ..experiment.folder import Experiment
from ..experiments import Experiments
from ..watch.status import Status


@dataclass(frozen=True)
class GridContext:
    """What an explorer that adds experiments may use."""

    main: Experiments
    folder: Path  # of the grid, outputs/grids/NAME
    look: Callable[[Iterable[Experiment]], dict[str, Status]]  # the status, by signature
    asks: bool = True  # False: only name the experiments that were named before
    writes: bool = True  # False: change nothing on disk


class Growing(Explorer):
    """An explorer that adds experiments to those of the grid file's function.

    Its experiments share the overrides that the function has bound.
    """

    at_once = 1  # the most experiments that wait or run at the same time

    def grow(self, launcher: Launcher, context: GridContext) -> None:
        """Name all experiments so far through the launcher, then those that are to follow now.

        Raises:
            UserError: the search asks for something that is not possible.
        """
        raise NotImplementedError

    def has_missed(self, statuses: Mapping[str, Status]) -> bool:
        """Whether one of its experiments has ended since `grow` looked at it.

        Args:
            statuses: of its experiments, by signature.
        """
        return False

    def stop_rule(self, sig: str) -> dict[str, Any]:
        """When an experiment ends before its last epoch (see run/endings.py). Empty: never."""
        return {}

    def note(self) -> str:
        """One line about its progress, shown below the table."""
        return ""

    def has_given_up(self) -> bool:
        """Whether it has given up, because all of its first experiments failed."""
        return False
