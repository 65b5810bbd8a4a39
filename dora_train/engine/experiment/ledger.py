"""The attempts and the jobs of an experiment: files that are written once, by the first process.

attempts/N.json         the process that started it the Nth time: the claim (see claims.py)
attempts/N.start.json   the first epoch that this attempt trained, and the code that it ran
attempts/N.usage.R.json   what rank R of this attempt has used so far. It alone is written again
jobs/N.json             its Nth submission: the intent. It is made before the scheduler is asked, and
                        never changed. The process that makes it also submits
jobs/N.id.json          the job id that the scheduler gave, or why it gave none
jobs/N.end.json         how it ended as a member of a packed job, whose other members go on (jobs/pack.py)
*/N.cancel.json         who asked for its end, and when
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import machine
from ..access import inode, numbered
from ..files import read_json, read_json_as, write_json, write_once
from .records import Job, Start, Usage, from_stored


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
        """The number of the last submission, also of one that failed. 0: there was none."""
        return max(numbered(self.jobs), default=0)

    def attempt_numbers(self) -> list[int]:
        """The numbers of all attempts so far, ascending."""
        return numbered(self.attempts)

    def job(self) -> Job | None:
        """The last submission that counts.

        The scheduler has it, may have it, or has no room for it yet. None if there is none, or if
        this folder is a copy: the job works on the original.
        """
        for number in range(self.job_number(), 0, -1):
            job = self.job_at(number)
            if job is not None and (job.held or not job.error):
                return None if self._is_copied_from(job.writer) else job
        return None

    def _is_copied_from(self, writer: Mapping[str, Any]) -> bool:
        """Whether the process that made an intent wrote to another folder than this one."""
        folder, number = writer.get("folder"), writer.get("inode")
        if not folder or number == inode(self.folder):
            return False
        return machine.wrote_elsewhere(str(folder), str(writer.get("boot_id")), self.folder)

    def job_at(self, number: int) -> Job | None:
        """The Nth submission. None if there is no such file.

        If the file is damaged, the token is empty. The scheduler may have the job all the same.
        """
        path = self.jobs / f"{number}.json"
        try:
            submitted = path.stat().st_mtime
        except OSError:
            return None
        job = from_stored(Job, read_json(path)) or Job(token="", cluster="", submitted=submitted)
        record = read_json_as(self.jobs / f"{number}.id.json", dict) or {}
        for key in ("job_id", "log", "dependents", "error"):
            if key in record:
                setattr(job, key, record[key])
        if "snapshot" in job.code:  # the name of `hash` in files of earlier versions
            job.code["hash"] = job.code.pop("snapshot")
        job.number, job.cancelled = number, self._cancelled_by(self.jobs, number)
        return job

    def intend_job(self, job: Job) -> bool:
        """Announce submission `job.number`.

        Of several processes exactly one gets True, and may submit.
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
        """Store the result of a submission, once. False: another process has stored one already."""
        record = {"job_id": job_id, "log": log, "dependents": list(dependents), "error": error}
        return write_once(self.jobs / f"{number}.id.json", record)

    def end_job(self, number: int, token: str, word: str, code: int = 0, signum: int = 0) -> None:
        """Store how submission `number` ended as a member of a packed job.

        Args:
            word: as in `JobInfo`.
        """
        end = {"token": token, "word": word, "code": code, "signal": signum, "time": time.time()}
        write_once(self.jobs / f"{number}.end.json", end)

    def job_end(self, token: str) -> dict[str, Any] | None:
        """How a member of a packed job ended. None if it has not, or was in no such job.

        Args:
            token: of the submission.
        """
        for number in reversed(numbered(self.jobs, ".end.json")):
            end = read_json_as(self.jobs / f"{number}.end.json", dict)
            if token and end and end.get("token") == token:
                return end
        return None

    def cancel_job(self, number: int, by: str) -> None:
        """Store who asked for the end of submission `number`. Else its end would look like a
        failure."""
        write_once(self.jobs / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def cancel_attempt(self, number: int, by: str) -> None:
        """The same for an attempt that is no job."""
        write_once(self.attempts / f"{number}.cancel.json", {"by": by, "time": time.time()})

    def attempt_cancelled(self, number: int) -> str:
        """The user who asked for the end of an attempt. Empty if there is none."""
        return self._cancelled_by(self.attempts, number)

    @staticmethod
    def _cancelled_by(folder: Path, number: int) -> str:
        mark = read_json_as(folder / f"{number}.cancel.json", dict)
        if mark is None:
            return ""
        return str(mark.get("by") or "someone")

    def write_start(self, attempt: int, start: Start) -> None:
        write_once(self.attempts / f"{attempt}.start.json", asdict(start))

    def write_usage(self, attempt: int, usage: Usage) -> None:
        write_json(self.attempts / f"{attempt}.usage.{usage.rank}.json", asdict(usage))

    def usages(self) -> dict[int, list[Usage]]:
        """What the ranks of each attempt have used, the first rank first, by the attempt."""
        found: dict[int, list[Usage]] = {}
        for path in self.attempts.glob("*.usage.*.json"):
            usage = from_stored(Usage, read_json(path))
            number = path.name.partition(".")[0]
            if usage is not None and number.isdigit():
                found.setdefault(int(number), []).append(usage)
        for ranks in found.values():
            ranks.sort(key=lambda usage: usage.rank)
        return dict(sorted(found.items()))

    def starts(self) -> list[Start]:
        """The starts of all attempts that trained, in their order."""
        starts = []
        for number in numbered(self.attempts, ".start.json"):
            start = from_stored(Start, read_json(self.attempts / f"{number}.start.json"))
            if start and isinstance(start.code, dict):
                starts.append(start)
        return starts
