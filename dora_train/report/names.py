"""From the names on a command line to experiments. A name is a grid, or begins a signature."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..engine.access import listed
from ..engine.errors import UserError, did_you_mean, shortened
from ..engine.experiment.find import find, may_read, signatures
from ..engine.experiment.finished import Finished
from ..engine.experiment.folder import GRIDS, XPS, Experiment, is_signature
from ..engine.words import shown_path
from .runs import keys_of


class Outputs:
    """The folder of all results.

    It holds `xps/` with the experiments, and `grids/` with a link for each experiment of a grid.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def grids(self) -> list[str]:
        folder = self.folder / GRIDS
        return sorted(name for name in listed(folder) if os.path.isdir(folder / name))

    def experiments(self, names: Sequence[str]) -> dict[Experiment, list[str]]:
        """The experiments that `names` stand for, each with the grids that it is in.

        Each comes once, in the order of the names. Without a name, all experiments are meant.

        Raises:
            UserError: a name is neither a grid nor the beginning of one signature.
        """
        meant = keys_of(map(self._meant, names)) if names else signatures(self.folder)
        # most are finished, and then their files need not be read
        finished = Finished(self.folder).known(meant)
        found = [finished.get(sig) or Experiment(self.folder / XPS / sig) for sig in meant]
        if not names:
            found = self._readable(found)
        if not found:
            raise UserError(
                f"there is no experiment in {', '.join(names) or shown_path(self.folder)} yet."
            )
        grids = self._grids_by_sig()
        return {one: grids.get(one.sig, []) for one in found}

    def _meant(self, name: str) -> list[str]:
        """The signatures that a name stands for."""
        known = self.grids()
        if name in known:
            return self._named_by(name)
        # a signature has 8 hexadecimal digits
        if 0 < len(name) <= 8 and not set(name) - set("0123456789abcdef"):
            return [find(self.folder, name).sig]
        hint = f"no grid was started yet under {shown_path(self.folder)}: dora grid NAME"
        if known:
            hint = f"{shown_path(self.folder / GRIDS)} has: {shortened(known)}."
        raise UserError(
            f'"{name}" is neither a grid nor a signature{did_you_mean(name, known)}', hint
        )

    def _readable(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        """Those that this user may read. A line names those that are left out."""
        found, hidden = [], []
        for one in experiments:
            if one.kept is None and not may_read(one.folder):
                hidden.append(one.sig)
            elif one.argv() is not None:
                found.append(one)
        if hidden:
            print(f"left out, as you may not read them: {shortened(hidden, 8)}.", file=sys.stderr)
        return found

    def _named_by(self, grid: str) -> list[str]:
        """The signatures of a grid."""
        return sorted(filter(is_signature, listed(self.folder / GRIDS / grid)))

    def _grids_by_sig(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for grid in self.grids():
            for sig in self._named_by(grid):
                found.setdefault(sig, []).append(grid)
        return found
