"""Sends the message about a grid when its last job in the local queue has ended.

The runner of that job (jobs/queue/runner.py) starts this program, with the command that order.py
makes. If a `dora grid` is open that watches the grid, it sends the message instead.
"""

from collections.abc import Sequence
from pathlib import Path

from ..experiment.folder import XPS, Experiment
from ..jobs.choose import asked
from ..watch.status import look
from .grids import Wants
from .telling import ENDED, Messages


def main(argv: Sequence[str]) -> None:
    """Send the message if no experiment of the grid waits or runs.

    Args:
        argv: the outputs folder, and the name of the grid.
    """
    dora_dir, grid = Path(argv[0]), argv[1]
    wants = Wants(dora_dir, grid)
    if wants.is_watched():
        return
    experiments = [Experiment(dora_dir / XPS / sig) for sig in wants.named()]
    statuses = look(experiments, asked(), force=True)
    if any(status.live for status in statuses.values()):
        return
    found = {experiment: statuses[experiment.sig] for experiment in experiments}
    Messages(grid, wants.folder).tell(ENDED, found)
