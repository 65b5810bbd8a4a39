"""Reads and writes the files of one job of the local queue: its order, its phase and its end.

queue.py says what each file means, and calls this. Standard library only: see runner.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress

from .files import is_locked, read, write

PENDING, RUNNING, OVER = "pending", "running", "over"
KEPT = ("name", "number", "id", "cores", "group")  # what stays on disk when a job has started
LOST = "LOST"  # the word for a job whose processes and runner are gone without a written end


class JobFiles:
    """The file of a job in the folder `waiting`, and its own folder below `jobs`.

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
        # In this order, because a job moves from `waiting` to its folder. So it is not missed.
        for path in (self.waiting, self.path("job.json")):
            with suppress(OSError, ValueError):
                with open(path, encoding="utf-8") as file:
                    return json.load(file)
        return None

    def name(self) -> str:
        return str((self.queued() or {}).get("name", ""))

    def keep_name(self, job: dict, gpus: Sequence[str] = ()) -> None:
        """Write the part of a job that stays on disk. Its environment may contain secrets, so it is
        not kept.

        Args:
            gpus: the GPUs that the job got.
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
        """The phase: PENDING, RUNNING or OVER. Call it while the queue is held."""
        if self._written_end():
            return OVER
        if self.is_alive():
            return RUNNING
        return PENDING if os.path.exists(self.waiting) else OVER

    def is_alive(self) -> bool:
        """Whether any process of the job lives."""
        return is_locked(self.path("alive"))

    def is_finished(self) -> bool:
        """Whether the job is over, and its runner has finished its work for it, too."""
        return self.phase() == OVER and not self.is_alive()

    def state(self) -> tuple[str, dict]:
        """The phase, and `{"name": ..., "gpus": ..., "word": ..., "code": ..., "signal": ...}`.

        A job without GPUs has no `gpus`. A job that waits also has `waits`: who uses the GPUs that
        it needs. It is empty if that is not the reason.
        """
        phase = self.phase()
        # The end is read after the phase, because the runner writes it without holding the queue.
        # In the other order, the end could be missing although the phase is already OVER.
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
        """The end of a job that is over, if its runner did not write an end."""
        if self.cancelled_by():
            return {"word": "CANCELLED"}
        return {"word": LOST}

    def wait_for(self, reason: str) -> None:
        """Write down who uses the GPUs that the job needs. Empty: nobody does any more."""
        if reason != self.waits_for():
            write(self.path("waits"), reason)

    def waits_for(self) -> str:
        """Who uses the GPUs that the job needs. Empty if the job does not wait for GPUs."""
        return read(self.path("waits"))

    def ask_to_end(self, by: str) -> None:
        """Ask the runner to end the job, by a file with the name of the user who wants it.

        Args:
            by: the user's name.
        """
        os.makedirs(self.folder, exist_ok=True)
        write(self.path("cancel"), by)

    def cancelled_by(self) -> str:
        """The user who asked to end the job. Empty if no user did."""
        return read(self.path("cancel"))
