"""The files of one job of the local queue: what was queued, its phase, and how it ended.

queue.py says what each file means, and calls this. Standard library only, as there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress

from .files import is_locked, read, write

PENDING, RUNNING, OVER = "pending", "running", "over"
KEPT = ("name", "number", "id", "cores", "group")  # of a job that has started
LOST = "LOST"  # the word for a job whose processes are all gone, its runner too


class JobFiles:
    """The file of a job in the line, and its folder below `jobs`.

    Args:
        root: the folder of the queue.
        number: `12`, or `12_3` for a task of an array.
    """

    def __init__(self, root: str, number: str):
        self.number = number
        self.waiting = os.path.join(root, "waiting", f"{number}.json")
        self.folder = os.path.join(root, "jobs", number)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def queued(self) -> dict | None:
        """What was queued. None if it is missing or damaged."""
        # in this order, as a job moves from the line to its folder: so it is not missed on its way
        for path in (self.waiting, self.path("job.json")):
            with suppress(OSError, ValueError):
                with open(path, encoding="utf-8") as file:
                    return json.load(file)
        return None

    def name(self) -> str:
        return str((self.queued() or {}).get("name", ""))

    def keep_name(self, job: dict, gpus: Sequence[str] = ()) -> None:
        """Write the part of a job that stays on disk. Its environment may hold secrets: it goes.

        Args:
            gpus: those that it got.
        """
        kept = {key: job[key] for key in KEPT if key in job}
        if gpus:
            kept["on"] = list(gpus)
        write(self.path("job.json"), json.dumps(kept))

    def forget_environment(self) -> None:
        """Remove the environment that an earlier version left in the folder."""
        job = self.queued() or {}
        if "env" in job:
            self.keep_name(job)

    def phase(self) -> str:
        """PENDING, RUNNING or OVER. Call it while the queue is held."""
        if self._written_end():
            return OVER
        if self.is_alive():
            return RUNNING
        return PENDING if os.path.exists(self.waiting) else OVER

    def is_alive(self) -> bool:
        """Whether any process of the job lives."""
        return is_locked(self.path("alive"))

    def is_finished(self) -> bool:
        """Whether the job is over, and its runner does no more for it either."""
        return self.phase() == OVER and not self.is_alive()

    def state(self) -> tuple[str, dict]:
        """(the phase, `{"name": ..., "gpus": ..., "word": ..., "code": ..., "signal": ...}`).

        `gpus` is left out for a job without any. A job that waits has `waits`: for what, if it is known.
        """
        phase = self.phase()
        # The end is read after the phase. The runner writes it without holding the queue: read
        # before, it may still be missing for a job that is over a moment later.
        end = self._written_end() or self._presumed_end()
        job = self.queued() or {}
        found = {"name": str(job.get("name", ""))} | end
        if "on" in job:
            found["gpus"] = job["on"]
        if phase == PENDING:
            found["waits"] = self.waits_for()
        return phase, found

    def write_end(self, word: str, code: int = 0, signum: int = 0) -> None:
        """Write how the job ended."""
        end = {"word": word, "code": code, "signal": signum}
        write(self.path("end.json"), json.dumps(end))

    def _written_end(self) -> dict:
        try:
            with open(self.path("end.json"), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def _presumed_end(self) -> dict:
        """The end of a job that is over although its runner wrote none."""
        if self.cancelled_by():
            return {"word": "CANCELLED"}
        return {"word": LOST}

    def wait_for(self, reason: str) -> None:
        """Write down that others use the GPUs that the job needs. Empty: they do no longer."""
        if reason != self.waits_for():
            write(self.path("waits"), reason)

    def waits_for(self) -> str:
        """Who uses the GPUs that the job needs. Empty if it does not wait for that."""
        return read(self.path("waits"))

    def ask_to_end(self, by: str) -> None:
        """Write down who asked for the end. The runner sees it.

        Args:
            by: the user's name.
        """
        os.makedirs(self.folder, exist_ok=True)
        write(self.path("cancel"), by)

    def cancelled_by(self) -> str:
        """The user who asked for the end. Empty if no user did."""
        return read(self.path("cancel"))
