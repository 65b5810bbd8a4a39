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

    Attributes:
        grid: its name, which is also its folder below `outputs/grids`.
        rules: which experiments are submitted again. The later rounds of a search have the default
            rules, because the flags of the command hold for its first round alone.
        slurm: the resources of an experiment that asks for none itself.
        clear: `--clear`. Like the rules, it holds for the first round alone.
    """

    main: Experiments
    explorer: Explorer
    grid: str
    rules: SubmitRules
    slurm: SlurmConfig
    args: RunGridArgs
    wants: Wants
    clear: bool = False

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
