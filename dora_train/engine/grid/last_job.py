"""Sends the message about a grid if its last job on this machine's queue has ended.

The process that watched over the job starts it (jobs/queue/runner.py), with the command that
order.py makes. If a command is open that watches the grid, that command sends the message instead.
"""

from collections.abc import Sequence
from pathlib import Path

from ..experiment.folder import XPS, Experiment
from ..jobs.choose import asked
from ..watch.status import look
from .grids import Wants
from .telling import ENDED, Messages


def main(argv: Sequence[str]) -> None:
    """Send the message, if nothing of the grid waits or runs.

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
