"""What one `dora grid` was asked for: every step of the command reads it (`sync.py` makes it)."""

from dataclasses import dataclass
from pathlib import Path

from dora.conf import SlurmConfig, SubmitRules
from dora.explore import Explorer
from dora.grid import RunGridArgs

from ..experiment.folder import XPS, Experiment
from ..experiments import Experiments
from .grids import Wants
from .open_ended import Growing


@dataclass(frozen=True)
class Command:
    """The arguments of one `dora grid`.

    `rules` and `clear` hold for the first round of a search alone. Otherwise each round would
    submit the same trials again.
    """

    main: Experiments
    explorer: Explorer
    grid: str  # its name, and its folder below outputs/grids
    rules: SubmitRules  # which experiments are submitted again
    slurm: SlurmConfig  # the configuration's resources, or a notebook's own
    args: RunGridArgs
    wants: Wants  # the experiments that the grid named before
    clear: bool = False  # --clear

    @property
    def dora_dir(self) -> Path:
        return Path(self.main.dora.dir)

    @property
    def search(self) -> Growing | None:
        """The explorer, if it adds experiments by itself."""
        return self.explorer if isinstance(self.explorer, Growing) else None

    def experiment(self, sig: str) -> Experiment:
        """The experiment of this signature, whether its folder exists or not."""
        return Experiment(self.dora_dir / XPS / sig)
