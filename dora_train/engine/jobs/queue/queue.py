"""The folder of the local queue: which jobs wait, which run, and which may start.

Files and locks, no daemon.

    waiting/12.json   a job that waits: renamed into place, whole. Its number is its place in the line
    jobs/12/          a job that has started
      job.json        its name, number and id; its environment is gone with waiting/12.json
      alive           locked (flock) by every process of the job, which inherit the open file. Locked means running;
                      the kernel unlocks it when the last of them is gone, whatever ended it
      watched         locked by the process that watches over the job (runner.py), and by no other
      cancel          who asked for its end
      end.json        how it ended, if somebody was left to say so
    ended             a line for each job that is over, in the place of its folder: its number, name
                      and end. It stays, as an experiment's state may rest on it
    last              the highest number so far: no number is given twice, whatever is removed
    slots/0 gpus/0    locked in the same way: a place among the jobs that run at a time, a GPU
    id                names this queue: the numbers of another one mean nothing here
    machine           names the machine, whose host name may change
    lock              held for a moment by whoever looks or changes

The tasks of an array are 12_0, 12_1 ... No process id is stored anywhere, so none can be mistaken
for another's. The folder must be on a local disk, where locks are inherited (executor.py looks). What
is made in it is private: a job that waits keeps the environment of its command. This module,
files.py and runner.py import little: a process of a runner stays for as long as its job runs.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from .ends import Ends
from .files import Locks, is_locked, listed, opened, read, remove, write
from .folder import QueueFolder

PENDING, RUNNING, OVER = "pending", "running", "over"
LOST = "LOST"  # the word for a job whose processes are all gone, its runner too


class Taken:
    """A job that this process may start, or watch over: what it needs is locked."""

    def __init__(self, number: str, shared: list[int], watched: int, gpus: list[str]):
        self.number, self.shared, self.watched, self.gpus = number, shared, watched, gpus

    def close(self) -> None:
        """Let go of the locks; they stay with the processes that inherited them."""
        alive, rest = self.shared[:1], self.shared[1:]
        for fd in (*rest, self.watched, *alive):  # `alive` last: without it, the folder may go
            os.close(fd)


class Queue(QueueFolder):
    """One user's queue on one machine."""

    def __init__(self, root: str):
        super().__init__(root)
        self.ends = Ends(self.path("ended"))

    # --- a job's way through it ---

    def add(self, job: dict, tasks: list[int] | None) -> str:
        """Put a job at the end of the line, or each task of an array; the number of the job, or of
        the array."""
        with self.held():
            self._tidy()
            number = self._next_number()
            for name in [str(number)] if tasks is None else [f"{number}_{task}" for task in tasks]:
                write(
                    self._waiting(name),
                    json.dumps(job | {"number": name, "id": f"{self.id()}-{name}"}),
                )
        return str(number)

    def _next_number(self) -> int:
        """A number that no job had before, even if all of their files were removed."""
        known = [_place(name)[0] for name in (*self._numbers(), *self.ends.all())]
        last = read(self.path("last"))
        number = max([*known, int(last) if last.isdigit() else 0]) + 1
        write(self.path("last"), str(number))
        return number

    def waiting(self) -> list[str]:
        """The numbers of the jobs that wait, first in first."""
        names = [
            name.removesuffix(".json")
            for name in listed(self.path("waiting"))
            if name.endswith(".json")
        ]
        return sorted((name for name in names if name[0].isdigit()), key=_place)

    def job(self, number: str) -> dict | None:
        """What was queued; None where it is not there, or damaged."""
        # a job moves this way only
        for path in (self._waiting(number), self.path("jobs", number, "job.json")):
            with suppress(OSError, ValueError):
                with open(path, encoding="utf-8") as file:
                    return json.load(file)
        return None

    def take(self) -> list[Taken]:
        """The jobs that can start now, in their order.

        Nothing passes a job that waits for what it would take.
        """
        taken: list[Taken] = []
        with self.held():
            self._tidy()
            spoken_for: set[str] = set()  # GPUs that a job before them in line waits for
            for number in self.waiting():
                job = self.job(number) or {}
                if any(self._phase(other) != OVER for other in job.get("after", ())):
                    continue
                found = self._take(number, job, spoken_for)
                if found == "no slot":
                    break
                if isinstance(found, Taken):
                    taken.append(found)
                elif found == "no gpu":
                    spoken_for.update(job["visible"])
        return taken

    def _take(self, number: str, job: dict, spoken_for: set[str]) -> Taken | str:
        os.makedirs(self.path("jobs", number), exist_ok=True)
        with opened() as fds:
            if not fds.lock(self.path("jobs", number, "alive")):
                return "running"  # its runner has yet to take it out of the line
            if not self._lock_slot(fds, number, job.get("limit", 1)):
                return "no slot"
            gpus: list[str] = []
            for gpu in job.get("visible", ()):
                if len(gpus) < job["gpus"] and gpu not in spoken_for:
                    gpus += [gpu] * fds.lock(self.path("gpus", gpu.replace("/", "_")))
            if len(gpus) < job.get("gpus", 0):
                return "no gpu"
            shared = list(fds.kept)
            if not fds.lock(self.path("jobs", number, "watched")):
                return "running"
            return Taken(number, shared, fds.keep()[-1], gpus)

    def _lock_slot(self, fds: Locks, number: str, limit: int) -> bool:
        """Lock a slot, if fewer than `limit` are in use; its content says by whom."""
        names = sorted(listed(self.path("slots")), key=int)
        free = [name for name in names if not is_locked(self.path("slots", name))]
        if len(names) - len(free) >= limit:
            return False
        path = self.path("slots", free[0] if free else str(len(names)))
        fds.lock(path)
        os.ftruncate(fds.kept[-1], 0)
        os.pwrite(fds.kept[-1], number.encode(), 0)
        return True

    def started(self, number: str) -> dict:
        """Take a job out of the line: from here on it is not started again, whatever happens to it.

        Returns:
            What was queued. Its environment, and the secrets in it, are no longer on disk.
        """
        job = self.job(number) or {}
        self._keep_name(number, job)
        os.unlink(self._waiting(number))
        return job

    def _keep_name(self, number: str, job: dict) -> None:
        kept = {key: job[key] for key in ("name", "number", "id") if key in job}
        write(self.path("jobs", number, "job.json"), json.dumps(kept))

    def orphans(self) -> list[Taken]:
        """Jobs that run, and whose runner was killed; each with the right to watch over it."""
        found = []
        with self.held():
            for slot in listed(self.path("slots")):
                number = read(self.path("slots", slot))
                present = os.path.isdir(self.path("jobs", number)) and bool(number)
                if present and is_locked(self.path("slots", slot)):
                    with opened() as fds:
                        if fds.lock(self.path("jobs", number, "watched")):
                            found.append(Taken(number, [], fds.keep()[0], []))
        return found

    def is_alive(self, number: str) -> bool:
        """Whether any process of the job lives."""
        with self.held():
            return is_locked(self.path("jobs", number, "alive"))

    def cancel(self, number: str, by: str, token: str = "") -> None:
        """End a job that waits; ask for the end of one that runs.

        Args:
            token: what the job's name must hold, or it is another's.
        """
        with self.held():
            phase = self._phase(number)
            if phase == OVER or token not in self._name(number):
                return
            os.makedirs(self.path("jobs", number), exist_ok=True)
            write(self.path("jobs", number, "cancel"), by)
            if phase == PENDING:
                # first: one that has ended, and stands in the line, would start
                self.started(number)
                self.end(number, "CANCELLED")

    def cancelled_by(self, number: str) -> str:
        return read(self.path("jobs", number, "cancel"))

    def end(self, number: str, word: str, code: int = 0, signum: int = 0) -> None:
        """Write down how a job ended."""
        write(
            self.path("jobs", number, "end.json"),
            json.dumps({"word": word, "code": code, "signal": signum}),
        )

    # --- what is asked ---

    def states(self, numbers: list[str]) -> dict[str, tuple[str, dict]]:
        """Each job's phase, and its `name` with how it ended: `word`, `code`, `signal`.

        A job that is over and has no end has lost all its processes.
        """
        if not numbers:  # there may be no queue yet
            return {}
        with self.held():
            tidied = set(numbers).difference(self._numbers())
            ends = self.ends.all() if tidied else {}  # it may be long
            states = {number: (OVER, ends[number]) for number in tidied & ends.keys()}
            return {number: states.get(number) or self._state(number) for number in numbers}

    def _state(self, number: str) -> tuple[str, dict]:
        end = self._end(number) or self._lost(number)
        return self._phase(number), {"name": self._name(number)} | end

    def named(self) -> dict[str, str]:
        """The number of every job that there is or was, by its name."""
        # in the order in which they move
        jobs = [self.job(number) for number in (*self.waiting(), *self._numbers())]
        found = {end["name"]: number for number, end in self.ends.all().items()}
        return found | {job["name"]: job["number"] for job in jobs if job and "number" in job}

    def active(self) -> list[dict]:
        """The jobs that wait or run."""
        states = self.states(sorted(self._numbers(), key=_place))
        return [
            job
            for number, (phase, _) in states.items()
            if phase != OVER and (job := self.job(number))
        ]

    def _phase(self, number: str) -> str:
        if self._end(number):
            return OVER
        if is_locked(self.path("jobs", number, "alive")):
            return RUNNING
        return PENDING if os.path.exists(self._waiting(number)) else OVER

    def _end(self, number: str) -> dict:
        try:
            with open(self.path("jobs", number, "end.json"), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            return {}

    def _lost(self, number: str) -> dict:
        return {"word": "CANCELLED" if self.cancelled_by(number) else LOST}

    def _name(self, number: str) -> str:
        return str((self.job(number) or {}).get("name", ""))

    def _tidy(self) -> None:
        """Keep a line of each job that is over, and remove its folder.

        The last one stays: earlier versions, which may share the queue, count on from the folders.
        They also leave the environment there.
        """
        numbers = sorted(self._numbers(), key=_place)
        over = [number for number in numbers if self._is_left(number)]
        if over and over[-1] == numbers[-1]:
            self._forget_environment(over.pop())
        self.ends.add({number: self._state(number)[1] for number in over})
        for number in over:
            remove(self.path("jobs", number))

    def _forget_environment(self, number: str) -> None:
        job = self.job(number) or {}
        if "env" in job:
            self._keep_name(number, job)

    def _is_left(self, number: str) -> bool:
        """Whether a job is over, and its runner has done with it as well."""
        return self._phase(number) == OVER and not is_locked(self.path("jobs", number, "alive"))

    def _numbers(self) -> list[str]:
        names = {*self.waiting(), *listed(self.path("jobs"))}
        return [name for name in names if name[0].isdigit()]

    def _waiting(self, number: str) -> str:
        return self.path("waiting", f"{number}.json")


def _place(number: str) -> tuple[int, int]:
    """A job's place in line, from its number: `12_3` stands between `12_2` and `12_10`."""
    job, _, task = number.partition("_")
    return int(job), int(task or 0)
