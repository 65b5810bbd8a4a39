"""From the names on a command line to experiments: grids, and beginnings of signatures, mixed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..engine.access import listed
from ..engine.errors import UserError, did_you_mean, shortened
from ..engine.experiment.find import closed, find, readable
from ..engine.experiment.folder import GRIDS, XPS, Experiment, is_signature
from ..engine.words import shown_path


class Outputs:
    """The folder where everything lies:

    `xps/`, and `grids/` with a link for each experiment that a grid names.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def grids(self) -> list[str]:
        folder = self.folder / GRIDS
        return sorted(name for name in listed(folder) if os.path.isdir(folder / name))

    def experiments(self, names: Sequence[str]) -> dict[Experiment, list[str]]:
        """The experiments that `names` mean, each once and in this order, with the grids that name
        it; all for none.

        Raises:
            UserError: a name is neither a grid nor the beginning of one signature.
        """
        sigs = [sig for name in names for sig in self._meant(name)] if names else self._all()
        if not sigs:
            raise UserError(
                f"there is no experiment in {', '.join(names) or shown_path(self.folder)} yet."
            )
        grids = self._grids_by_sig()
        return {
            Experiment(self.folder / XPS / sig): grids.get(sig, []) for sig in dict.fromkeys(sigs)
        }

    def _meant(self, name: str) -> list[str]:
        if name in self.grids():
            return self._named_by(name)
        if 0 < len(name) <= 8 and not set(name) - set("0123456789abcdef"):
            return [find(self.folder, name).sig]
        known = self.grids()
        raise UserError(
            f'"{name}" is neither a grid nor a signature{did_you_mean(name, known)}',
            f"{shown_path(self.folder / GRIDS)} has: {shortened(known)}."
            if known
            else f"no grid was started yet under {shown_path(self.folder)}: dora grid NAME",
        )

    def _all(self) -> list[str]:
        """Those that this user may read. Others' are left out, which is said once."""
        hidden = closed(self.folder)
        if hidden:
            print(f"left out, as you may not read them: {shortened(hidden, 8)}.", file=sys.stderr)
        made = [one for one in readable(self.folder) if one.argv() is not None]
        return [one.sig for one in made]

    def _named_by(self, grid: str) -> list[str]:
        return sorted(name for name in listed(self.folder / GRIDS / grid) if is_signature(name))

    def _grids_by_sig(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for grid in self.grids():
            for sig in self._named_by(grid):
                found.setdefault(sig, []).append(grid)
        return found
