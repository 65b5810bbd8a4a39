"""From the names on a command line to experiments: grids, and beginnings of signatures, mixed."""

from collections.abc import Sequence
from pathlib import Path

from ..engine.errors import UserError, did_you_mean, shortened
from ..engine.find import find, shown_path
from ..engine.store import GRIDS, XPS, Experiment, is_signature


class Outputs:
    """The folder where everything lies: `xps/`, and `grids/` with a link for each experiment that a grid names."""

    def __init__(self, folder: Path):
        self.folder = folder

    def grids(self) -> list[str]:
        try:
            return sorted(path.name for path in (self.folder / GRIDS).iterdir() if path.is_dir())
        except OSError:
            return []

    def experiments(self, names: Sequence[str]) -> dict[Experiment, list[str]]:
        """The experiments that `names` mean, each once and in this order, with the grids that name it; all for none.

        Raises:
            UserError: a name is neither a grid nor the beginning of one signature.
        """
        sigs = [sig for name in names for sig in self._meant(name)] if names else self._all()
        if not sigs:
            raise UserError(f"there is no experiment in {', '.join(names) or shown_path(self.folder)} yet.")
        grids = self._grids_by_sig()
        return {Experiment(self.folder / XPS / sig): grids.get(sig, []) for sig in dict.fromkeys(sigs)}

    def _meant(self, name: str) -> list[str]:
        if name in self.grids():
            return self._named_by(name)
        if 0 < len(name) <= 8 and not set(name) - set("0123456789abcdef"):
            return [find(self.folder, name).sig]
        known = self.grids()
        raise UserError(f'"{name}" is neither a grid nor a signature{did_you_mean(name, known)}',
                        f"{shown_path(self.folder / GRIDS)} has: {shortened(known)}." if known else
                        f"no grid was started yet under {shown_path(self.folder)}: dora grid NAME")

    def _all(self) -> list[str]:
        return sorted(path.parent.name for path in (self.folder / XPS).glob("*/.argv.json")
                      if is_signature(path.parent.name))

    def _named_by(self, grid: str) -> list[str]:
        return sorted(path.name for path in (self.folder / GRIDS / grid).iterdir() if is_signature(path.name))

    def _grids_by_sig(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for grid in self.grids():
            for sig in self._named_by(grid):
                found.setdefault(sig, []).append(grid)
        return found
