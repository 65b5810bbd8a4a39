"""The index of finished experiments: `outputs/finished.index`. With it, a look at one of them costs
only two file system calls.

A finished experiment does not change. So a grid or a report that has read its small files adds them
to the index, as one line (kept.py). The next command reads the lines, and compares only the stamp
of each experiment. If the stamp differs, or the line is missing or damaged, the folder itself is
read. The folders stay the only truth, so the index can be removed at any time.
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
# An experiment is kept only after so many seconds without a change. A disk may count whole seconds
# (FAT counts two), and then two changes could have the same time.
SETTLED = 3.0
FEW = 20  # so few experiments are read from their folders, which is fast enough
WASTE = 3  # the index is written anew if it has more than so many lines per experiment
# The time of an answer, in seconds, from which on threads ask. A network disk is that slow, but it
# answers many questions at the same time.
SLOW = 1e-4
AT_ONCE = 16  # threads


def said(run: RunState, last: claims.Holder | None) -> State:
    """The state that the last attempt wrote. `NEW` if it has not written one yet.

    A copied folder has no claim of its own, so its state is returned as it is.
    """
    if last is None or run.attempt == last.attempt:
        return run.state
    return State.NEW


def is_completed(experiment: Experiment) -> bool:
    """Whether the folder alone shows that an experiment is completed.

    For most experiments it does. Then no executor needs to be asked about their jobs.
    """
    run = experiment.state()
    # `said` comes second, because it needs the claims as well: more files to read.
    return run.state == State.COMPLETED and said(run, claims.latest(experiment)) == State.COMPLETED


class Finished:
    """The finished experiments of one folder of results.

    Args:
        outputs: the folder.
    """

    def __init__(self, outputs: Path):
        self.xps, self.path = outputs / XPS, outputs / NAME

    def known(self, sigs: Collection[str]) -> dict[str, Experiment]:
        """The experiments that are in the index, and have not changed since they were added.

        Their methods answer from the index, without a file system call.
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
        """Add finished experiments to the index, if they are missing there or have changed.

        Args:
            finished: experiments whose folders show that they are completed.
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
        # An experiment may have started again in the meantime. Its files, as read above, say so.
        completed = []
        for one in kept:
            if is_completed(Experiment(self.xps / one.sig, one)):
                completed.append(one)
        with suppress(OSError):  # a full disk, or a folder of another user: the index is not needed
            self._add(completed)

    @cached_property
    def _kept(self) -> dict[str, Kept]:
        """All entries, by signature. If a signature has several entries, the last one counts."""
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
        """The present stamps of experiments, each with the time of its last change."""
        folders = [f"{self.xps}/{sig}" for sig in sigs]
        began = time.perf_counter()  # the first few are timed, to see how fast the disk is
        stamps = list(map(stamp_of, folders[:AT_ONCE]))
        each = (time.perf_counter() - began) / (2 * AT_ONCE)  # `stamp_of` makes two calls
        rest = folders[AT_ONCE:]
        if each < SLOW:  # threads would only take time
            stamps += map(stamp_of, rest)
        else:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                stamps += threads.map(stamp_of, rest)
        return dict(zip(sigs, stamps, strict=True))

    def _now(self) -> float | None:
        """The time by the disk's own clock. None if this user may not write there."""
        try:
            with tempfile.TemporaryFile(dir=self.path.parent) as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:
            return None

    def _add(self, kept: list[Kept]) -> None:
        """Append entries to the index, or write it anew if most of its lines are outdated."""
        all_kept = self._kept | {one.sig: one for one in kept}
        if len(self._lines()) > WASTE * len(all_kept):
            with written_aside(self.path) as aside:
                aside.write_text("".join(one.line() for one in all_kept.values()), "utf-8")
            return
        # The line before may have been cut off. A line break keeps it apart from the first entry.
        text = "\n" + "".join(one.line() for one in kept)
        is_new = not self.path.exists()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        # One write for all entries, because another command may append at the same time.
        with os.fdopen(file, "ab", buffering=0) as index:
            index.write(text.encode())
        if is_new:
            allow_colleagues(self.path)
