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

import fnmatch
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .. import machine
from ..access import inode, listed, numbers_of
from ..files import read_json, write_json, write_once
from .kept import Kept
from .records import Job, Start, Usage, from_stored

T = TypeVar("T")


@dataclass(frozen=True)
class Ledger:
    """The attempts and the jobs of the experiment in a folder.

    Args:
        kept: its small files as they were when it was finished (finished.py). None: files are read.
    """

    folder: Path
    kept: Kept | None = field(default=None, compare=False, repr=False)

    def read(self, name: str) -> Any:
        """The content of a JSON file, e.g. "attempts/1.json". None if it is missing or damaged.

        Raises:
            UserError: this user may not read it.
        """
        if self.kept is not None and self.kept.has(name):
            return self.kept.content(name)
        return read_json(self.folder / name)

    def read_as(self, name: str, kind: type[T]) -> T | None:
        """As `read`. None as well if the content is of another type."""
        content = self.read(name)
        return content if isinstance(content, kind) else None

    def inode(self, name: str = "") -> int:
        """The inode of a claim, or of the folder itself. 0 if it is missing."""
        if self.kept is not None:
            return self.kept.inode(name)
        return inode(self.folder / name)

    def _names(self, folder: str) -> list[str]:
        return listed(self.folder / folder) if self.kept is None else self.kept.names(folder)

    def _numbered(self, folder: str, ending: str = ".json") -> list[int]:
        return numbers_of(self._names(folder), ending)

    def _write_once(self, name: str, content: object) -> bool:
        """Write a file of the ledger, unless it exists. False: another process was first."""
        written = write_once(self.folder / name, content)
        if written:  # so that finished.py notices: it looks at this folder
            with suppress(OSError):
                os.utime(self.attempts)
        return written

    @property
    def attempts(self) -> Path:
        return self.folder / "attempts"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def job_number(self) -> int:
        """The number of the last submission, also of one that failed. 0: there was none."""
        return max(self._numbered("jobs"), default=0)

    def attempt_numbers(self) -> list[int]:
        """The numbers of all attempts so far, ascending."""
        return self._numbered("attempts")

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
        if not folder or number == self.inode():
            return False
        return machine.wrote_elsewhere(str(folder), str(writer.get("boot_id")), self.folder)

    def job_at(self, number: int) -> Job | None:
        """The Nth submission. None if there is no such file.

        If the file is damaged, the token is empty. The scheduler may have the job all the same.
        """
        job = from_stored(Job, self.read(f"jobs/{number}.json"))
        if job is None:
            try:
                submitted = (self.jobs / f"{number}.json").stat().st_mtime
            except OSError:
                return None
            job = Job(token="", cluster="", submitted=submitted)
        record = self.read_as(f"jobs/{number}.id.json", dict) or {}
        for key in ("job_id", "log", "dependents", "error"):
            if key in record:
                setattr(job, key, record[key])
        if "snapshot" in job.code:  # the name of `hash` in files of earlier versions
            job.code = {**job.code, "hash": job.code["snapshot"]}
            del job.code["snapshot"]
        job.number, job.cancelled = number, self._cancelled_by("jobs", number)
        return job

    def intend_job(self, job: Job) -> bool:
        """Announce submission `job.number`.

        Of several processes exactly one gets True, and may submit.
        """
        return self._write_once(f"jobs/{job.number}.json", asdict(job))

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
        return self._write_once(f"jobs/{number}.id.json", record)

    def end_job(self, number: int, token: str, word: str, code: int = 0, signum: int = 0) -> None:
        """Store how submission `number` ended as a member of a packed job.

        Args:
            word: as in `JobInfo`.
        """
        end = {"token": token, "word": word, "code": code, "signal": signum, "time": time.time()}
        self._write_once(f"jobs/{number}.end.json", end)

    def job_end(self, token: str) -> dict[str, Any] | None:
        """How a member of a packed job ended. None if it has not, or was in no such job.

        Args:
            token: of the submission.
        """
        for number in reversed(self._numbered("jobs", ".end.json")):
            end = self.read_as(f"jobs/{number}.end.json", dict)
            if token and end and end.get("token") == token:
                return end
        return None

    def cancel_job(self, number: int, by: str) -> None:
        """Store who asked for the end of submission `number`. Else its end would look like a
        failure."""
        self._write_once(f"jobs/{number}.cancel.json", {"by": by, "time": time.time()})

    def cancel_attempt(self, number: int, by: str) -> None:
        """The same for an attempt that is no job."""
        self._write_once(f"attempts/{number}.cancel.json", {"by": by, "time": time.time()})

    def attempt_cancelled(self, number: int) -> str:
        """The user who asked for the end of an attempt. Empty if there is none."""
        return self._cancelled_by("attempts", number)

    def _cancelled_by(self, folder: str, number: int) -> str:
        mark = self.read_as(f"{folder}/{number}.cancel.json", dict)
        if mark is None:
            return ""
        return str(mark.get("by") or "someone")

    def write_start(self, attempt: int, start: Start) -> None:
        self._write_once(f"attempts/{attempt}.start.json", asdict(start))

    def write_usage(self, attempt: int, usage: Usage) -> None:
        write_json(self.attempts / f"{attempt}.usage.{usage.rank}.json", asdict(usage))

    def usages(self) -> dict[int, list[Usage]]:
        """What the ranks of each attempt have used, the first rank first, by the attempt."""
        found: dict[int, list[Usage]] = {}
        for name in fnmatch.filter(self._names("attempts"), "[!.]*.usage.*.json"):
            usage = from_stored(Usage, self.read(f"attempts/{name}"))
            number = name.partition(".")[0]
            if usage is not None and number.isdigit():
                found.setdefault(int(number), []).append(usage)
        for ranks in found.values():
            ranks.sort(key=lambda usage: usage.rank)
        return dict(sorted(found.items()))

    def starts(self) -> list[Start]:
        """The starts of all attempts that trained, in their order."""
        starts = []
        for number in self._numbered("attempts", ".start.json"):
            start = from_stored(Start, self.read(f"attempts/{number}.start.json"))
            if start and isinstance(start.code, dict):
                starts.append(start)
        return starts
