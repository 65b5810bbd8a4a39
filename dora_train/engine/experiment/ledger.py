"""Who worked at an experiment, and as which jobs: files that are written once, by whoever is first.

attempts/N.json         who started it the Nth time: the claim (see claims.py)
attempts/N.start.json   the first epoch that this attempt trained, and the code that it ran
jobs/N.json             the job it was submitted as the Nth time: the intent. Made before the
                        scheduler is told, and never changed: whoever makes it, submits
jobs/N.id.json          the job id that the scheduler gave, or why it gave none
*/N.cancel.json         who asked for its end, and when
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import machine
from ..access import inode, numbered
from ..files import read_json, write_once
from .records import Job, Start, from_stored


@dataclass(frozen=True)
class Ledger:
    """The attempts and the jobs of the experiment in a folder."""

    folder: Path

    @property
    def attempts(self) -> Path:
        return self.folder / "attempts"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def job_number(self) -> int:
        """The number of the last submission, whatever came of it; 0: there was none."""
        return max(numbered(self.jobs), default=0)

    def attempt_numbers(self) -> list[int]:
        """Of all attempts so far, ascending."""
        return numbered(self.attempts)

    def job(self) -> Job | None:
        """The last submission that the scheduler got, may have got, or that waits with us for room.

        None as well if this folder is a copy: the job works on the original.
        """
        found = (self.job_at(number) for number in range(self.job_number(), 0, -1))
        last = next((job for job in found if job is not None and (job.held or not job.error)), None)
        return None if last is not None and self._is_copied_from(last.writer) else last

    def _is_copied_from(self, writer: Mapping[str, Any]) -> bool:
        folder, number = writer.get("folder"), writer.get("inode")
        if not folder or number == inode(self.folder):
            return False
        return machine.wrote_elsewhere(str(folder), str(writer.get("boot_id")), self.folder)

    def job_at(self, number: int) -> Job | None:
        """The Nth submission; one whose file is damaged has an empty token: it may still be at the
        scheduler."""
        path = self.jobs / f"{number}.json"
        try:
            submitted = path.stat().st_mtime
        except OSError:
            return None
        job = from_stored(Job, read_json(path)) or Job(token="", cluster="", submitted=submitted)
        record = read_json(self.jobs / f"{number}.id.json")
        for key in ("job_id", "log", "dependents", "error"):
            if isinstance(record, dict) and key in record:
                setattr(job, key, record[key])
        if "snapshot" in job.code:  # how a hash was named in earlier files
            job.code["hash"] = job.code.pop("snapshot")
        job.number, job.cancelled = number, self._cancelled_by(self.jobs, number)
        return job

    def intend_job(self, job: Job) -> bool:
        """Announce submission `job.number`.

        Of several processes exactly one gets True, and may go on to submit.
        """
        return write_once(self.jobs / f"{job.number}.json", asdict(job))

    def record_job(
        self,
        number: int,
        job_id: str = "",
        log: str = "",
        dependents: Sequence[str] = (),
        error: str = "",
    ) -> bool:
        """Say what came of the intent, once. False: another process has said so already."""
        record = {"job_id": job_id, "log": log, "dependents": list(dependents), "error": error}
        return write_once(self.jobs / f"{number}.id.json", record)

    def cancel_job(self, number: int, by: str) -> None:
        """Note who asked for the end of submission `number`, so that its end can be told from an
        accident."""
        write_once(self.jobs / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def cancel_attempt(self, number: int, by: str) -> None:
        """The same for an attempt that is no job."""
        write_once(self.attempts / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def attempt_cancelled(self, number: int) -> str:
        """Who asked for the end of an attempt; empty: nobody."""
        return self._cancelled_by(self.attempts, number)

    @staticmethod
    def _cancelled_by(folder: Path, number: int) -> str:
        mark = read_json(folder / f"{number}.cancel.json")
        return str(mark.get("by") or "someone") if isinstance(mark, dict) else ""

    def write_start(self, attempt: int, start: Start) -> None:
        write_once(self.attempts / f"{attempt}.start.json", asdict(start))

    def starts(self) -> list[Start]:
        """Of all attempts that came to train, in their order."""
        numbers = numbered(self.attempts, ".start.json")
        found = (
            from_stored(Start, read_json(self.attempts / f"{number}.start.json"))
            for number in numbers
        )
        return [start for start in found if start and isinstance(start.code, dict)]
