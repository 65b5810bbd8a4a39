"""The index of finished experiments: `outputs/finished.index`, so that thousands cost two calls each.

A finished experiment does not change. So a grid or a report that has read its small files adds them
to this file, a line each (kept.py). The next one reads the lines, and asks the file system of each
experiment only whether it is still the same: by its stamp. If it is not, or if its line is missing
or damaged, the folder is read as ever. The folders stay the only truth. The index can be removed at
any time.
"""

import os
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from ..files import allow_colleagues, written_aside
from . import claims
from .folder import XPS, Experiment
from .kept import Kept, stamp_of
from .records import RunState, State

NAME = "finished.index"
# Seconds without a change before an experiment is kept. A disk that counts whole seconds could give
# two changes one time of change (FAT counts two).
SETTLED = 3.0
FEW = 20  # with less to add, the index stays as it is: reading so few folders takes no time
WASTE = 3  # it is written anew if it has so many times more lines than experiments
# A network's disk answers after as long as this. It answers many questions at once.
SLOW = 1e-4  # seconds
AT_ONCE = 16


def said(run: RunState, last: claims.Holder | None) -> State:
    """The state that the last attempt wrote. `NEW` if it has written none yet.

    A copied folder has no holder, so its state is taken as it is.
    """
    if last is None or run.attempt == last.attempt:
        return run.state
    return State.NEW


def is_completed(experiment: Experiment) -> bool:
    """Whether an experiment is completed by its folder alone.

    Most experiments are, and then no executor needs to be asked about their jobs.
    """
    run = experiment.state()
    return run.state == State.COMPLETED and said(run, claims.latest(experiment)) == State.COMPLETED


class Finished:
    """The finished experiments of one folder of results.

    Args:
        outputs: the folder.
    """

    def __init__(self, outputs: Path):
        self.xps, self.path = outputs / XPS, outputs / NAME

    def known(self, sigs: Collection[str]) -> dict[str, Experiment]:
        """Those of these experiments that are finished, and have not changed since they were kept.

        Their methods answer without a call of the file system.
        """
        if len(sigs) <= FEW:
            return {}
        kept = []
        for sig in sigs:
            if sig in self._kept:
                kept.append(self._kept[sig])
        stamps = self._stamps([one.sig for one in kept])
        found = {}
        for one in kept:
            if stamps[one.sig][0] == one.stamp:
                found[one.sig] = Experiment(self.xps / one.sig, one)
        return found

    def keep(self, finished: Iterable[Experiment]) -> None:
        """Add finished experiments that are not in the index, or have changed since.

        Args:
            finished: experiments that a look at their folders has found completed.
        """
        new = [one for one in finished if one.kept is None]
        if len(new) <= FEW:
            return
        now = self._now()
        if now is None:
            return
        kept = []
        for sig, (stamp, changed) in self._stamps([one.sig for one in new]).items():
            if stamp and now - changed > SETTLED:
                kept.append(Kept.of_folder(self.xps / sig, stamp))
        # It may have begun anew since it was looked at. Then what was read says so.
        completed = []
        for one in kept:
            if is_completed(Experiment(self.xps / one.sig, one)):
                completed.append(one)
        with suppress(OSError):  # a full disk, or another user's folder
            self._add(completed)

    @cached_property
    def _kept(self) -> dict[str, Kept]:
        """All entries by signature. Of several, the last one counts."""
        found = {}
        for line in self._lines():
            if one := Kept.of_line(line):
                found[one.sig] = one
        return found

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []

    def _stamps(self, sigs: Collection[str]) -> Mapping[str, tuple[str, float]]:
        """The stamps of experiments as they are now."""
        folders = [f"{self.xps}/{sig}" for sig in sigs]
        began = time.perf_counter()
        stamps = list(map(stamp_of, folders[:AT_ONCE]))
        each = (time.perf_counter() - began) / (2 * AT_ONCE)
        rest = folders[AT_ONCE:]
        if each < SLOW:  # threads would only cost
            stamps += map(stamp_of, rest)
        else:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                stamps += threads.map(stamp_of, rest)
        return dict(zip(sigs, stamps, strict=True))

    def _now(self) -> float | None:
        """The time by the clock of the disk. None: this user may not write there."""
        try:
            with tempfile.TemporaryFile(dir=self.path.parent) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return None

    def _add(self, kept: list[Kept]) -> None:
        all_kept = self._kept | {one.sig: one for one in kept}
        if len(self._lines()) > WASTE * len(all_kept):
            with written_aside(self.path) as aside:
                aside.write_text("".join(one.line() for one in all_kept.values()), "utf-8")
            return
        # The line before may have been cut off: it must not spoil the first of these.
        text = "\n" + "".join(one.line() for one in kept)
        is_new = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        with os.fdopen(file, "ab", buffering=0) as index:
            index.write(text.encode())
        if is_new:
            allow_colleagues(self.path)
