"""An explorer whose list of experiments grows with what comes of them: what `dora_train.search`
plugs in.

`sync.py` calls `grow` wherever it runs the grid file, and again when an experiment has ended. All
else (plan, submission, table) is as for any grid.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora.explore import Explorer, Launcher

from ..experiment.folder import Experiment
from ..experiments import Experiments
from ..watch.status import Status


@dataclass(frozen=True)
class Ground:
    """What an explorer that grows is given to stand on."""

    main: Experiments
    folder: Path  # of the grid, outputs/grids/NAME
    look: Callable[[Iterable[Experiment]], dict[str, Status]]
    asks: bool = True  # False: name what was named before, and nothing new
    writes: bool = True  # False: leave no trace


class Growing(Explorer):
    """Names its experiments after the grid file's function was called, with whatever that has
    bound."""

    at_once = 1  # experiments that wait or run at any time

    def grow(self, launcher: Launcher, ground: Ground) -> None:
        """Name every experiment so far, through the launcher, and those that are to follow now.

        Raises:
            UserError: the search asks for what cannot be.
        """
        raise NotImplementedError

    def stop_rule(self, sig: str) -> dict[str, Any]:
        """When an experiment is to end before its last epoch (see run/endings.py); empty: never."""
        return {}

    def note(self) -> str:
        """How far it is, in a line."""
        return ""

    def is_in_vain(self) -> bool:
        """Whether it gave up."""
        return False
