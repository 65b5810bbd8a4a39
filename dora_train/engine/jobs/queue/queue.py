"""The folder of the local queue: which jobs wait, which jobs run, and how jobs ended.

The queue consists of files and locks. There is no daemon.

    waiting/12.json   a job that waits. It is written whole. The job with the lowest number is next
    jobs/12/          a job that has started
      job.json        its name, number and id. Its environment is removed with waiting/12.json
      alive           locked (flock) by every process of the job, which inherit the open file. The
                      job runs while it is locked. The kernel unlocks it after the last process
      watched         locked by the one process that watches the job (runner.py)
      cancel          the user who asked for its end
      waits           who else uses the GPUs that the job needs
      end.json        how it ended. It is missing if its runner was killed
    ended             a line for each job that is over, after its folder was removed: its number,
                      name and end. It is kept, because an experiment's state may depend on it
    last              the highest number so far. So no number is used twice, whatever is removed
    slots/0           locked as `alive` is, by one of the jobs that run at the same time
    gpus/0 gpus/0.1   locked as `alive` is, by the first and by the second job on GPU 0
    id                the name of this queue. Another queue may have the same job numbers
    machine           an id of the machine, because its host name may change
    gpus_awaited      locked by a process that checks whether others still use the GPUs
    idle              locked by a process that waits for the next jobs, with their libraries imported
    more              locked (shared) by each command that may submit more jobs, such as a search
    lock              locked for a moment by each process that reads or changes the queue

The tasks of an array are 12_0, 12_1 ... No process id is stored, because another process may get
the same id later. The folder must be on a local disk, where locks are inherited (place.py checks
this). Its files are private, because a waiting job keeps the environment of its command. Standard
library only: see runner.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from .ends import Ends
from .files import listed, read, remove, write
from .folder import QueueFolder
from .job_files import OVER, PENDING, JobFiles


class Queue(QueueFolder):
    """One user's queue on one machine."""

    def __init__(self, root: str):
        super().__init__(root)
        self.ends = Ends(self.path("ended"))

    def files_of(self, number: str) -> JobFiles:
        """The files of a job, which may be missing."""
        return JobFiles(self.root, number)

    # --- a job enters the queue, starts and ends ---

    def add(self, job: dict, tasks: list[int] | None) -> str:
        """Add a job, or each task of an array, at the end of the queue.

        Args:
            tasks: the indices of an array. None: a single job.

        Returns:
            The number of the job, or of the whole array.
        """
        with self.held():
            self.tidy()
            number = self._next_number()
            names = [number]
            if tasks is not None:
                names = [f"{number}_{task}" for task in tasks]
            for name in names:
                queued = job | {"number": name, "id": f"{self.id()}-{name}"}
                write(self.files_of(name).waiting, json.dumps(queued))
        return number

    def _next_number(self) -> str:
        """A number that no job has had before, even if the files of all jobs were removed."""
        known = [_place(name)[0] for name in (*self._numbers(), *self.ends.all())]
        last = read(self.path("last"))
        if last.isdigit():
            known.append(int(last))
        number = str(max(known, default=0) + 1)
        write(self.path("last"), number)
        return number

    def started(self, number: str, gpus: Sequence[str] = ()) -> dict:
        """Mark a job as started. From now on it never starts again, whatever happens to it.

        Args:
            gpus: the GPUs that it got.

        Returns:
            What was queued. Its environment is no longer on disk, as it may contain secrets.
        """
        files = self.files_of(number)
        job = files.queued() or {}
        files.keep_name(job, gpus)
        os.unlink(files.waiting)
        return job

    def cancel(self, number: str, by: str, token: str = "") -> None:
        """End a waiting job, or ask a running job to end.

        Args:
            by: the user who asks.
            token: a part of the job's name. Otherwise the number now belongs to another job, and
                nothing is done.
        """
        files = self.files_of(number)
        with self.held():
            phase = files.phase()
            if phase == OVER or token not in files.name():
                return
            files.ask_to_end(by)
            if phase == PENDING:
                # First it leaves `waiting`, then its end is written. In the other order, a kill in
                # between would leave an ended job there, and it would start.
                self.started(number)
                self.end(number, "CANCELLED")

    def end(self, number: str, word: str, code: int = 0, signum: int = 0) -> None:
        """Write down how a job ended."""
        self.files_of(number).write_end(word, code, signum)

    # --- questions ---

    def waiting(self) -> list[str]:
        """The numbers of the waiting jobs, in the order of the queue."""
        numbers = []
        for name in listed(self.path("waiting")):
            if name.endswith(".json") and name[0].isdigit():
                numbers.append(name.removesuffix(".json"))
        return sorted(numbers, key=_place)

    def job(self, number: str) -> dict | None:
        """What was queued. None if it is missing or damaged."""
        return self.files_of(number).queued()

    def is_alive(self, number: str) -> bool:
        """Whether any process of a job lives."""
        with self.held():
            return self.files_of(number).is_alive()

    def is_waiting(self, number: str) -> bool:
        """Whether a job has not been started."""
        return os.path.exists(self.files_of(number).waiting)

    def is_over(self, number: str) -> bool:
        """Whether a job is over. Call it while the queue is held."""
        return self.files_of(number).phase() == OVER

    def cancelled_by(self, number: str) -> str:
        """The user who asked for the end of a job. Empty if no user did."""
        return self.files_of(number).cancelled_by()

    def states(self, numbers: list[str]) -> dict[str, tuple[str, dict]]:
        """The phase of each job, and its `name` and end: `word`, `code`, `signal`.

        If a job is over without a written end, all of its processes were killed.
        """
        if not numbers:  # there may be no queue yet
            return {}
        states: dict[str, tuple[str, dict]] = {}
        with self.held():
            tidied = set(numbers).difference(self._numbers())  # their folders were removed
            ends = self.ends.all() if tidied else {}  # read only if needed: the file may be long
            for number in numbers:
                if number in tidied and number in ends:
                    states[number] = OVER, ends[number]
                else:
                    states[number] = self.files_of(number).state()
        return states

    def named(self) -> dict[str, str]:
        """The number of every job that is or was in the queue, by its name."""
        # In the order in which jobs move, so that none is missed: `waiting`, `jobs`, `ended`.
        jobs = [self.job(number) for number in (*self.waiting(), *self._numbers())]
        found = {end["name"]: number for number, end in self.ends.all().items()}
        for job in jobs:
            if job and "number" in job:
                found[job["name"]] = job["number"]
        return found

    def active(self) -> list[dict]:
        """The jobs that wait or run."""
        jobs = []
        for number, (phase, _) in self.states(sorted(self._numbers(), key=_place)).items():
            job = self.job(number)
            if phase != OVER and job:
                jobs.append(job)
        return jobs

    def has(self, group: str) -> bool:
        """Whether a job of a group waits or runs."""
        return any(job.get("group") == group for job in self.active())

    def _numbers(self) -> list[str]:
        """The numbers of all jobs that have files. Jobs that only have a line in `ended` do not."""
        names = {*self.waiting(), *listed(self.path("jobs"))}
        return [name for name in names if name[0].isdigit()]

    # --- tidying up ---

    def tidy(self) -> None:
        """Write a line into `ended` for each job that is over, and remove the job's folder.

        Call it while the queue is held. The folder of the last job stays, because an earlier
        version that shares the queue finds the next number by the folders. Such a version also
        leaves the environment of the job there, which is removed here.
        """
        numbers = sorted(self._numbers(), key=_place)
        over = [number for number in numbers if self.files_of(number).is_finished()]
        if over and over[-1] == numbers[-1]:
            self.files_of(over.pop()).forget_environment()
        self.ends.add({number: self.files_of(number).state()[1] for number in over})
        for number in over:
            remove(self.files_of(number).folder)


def _place(number: str) -> tuple[int, int]:
    """The place of a job in the queue, from its number: `12_3` is between `12_2` and `12_10`."""
    job, _, task = number.partition("_")
    return int(job), int(task or 0)
