"""`python -m dora_train.clean`: lists what can be removed from the disk, by kind and size.

With `--remove`, it removes the kinds that are named. It never removes an experiment that runs or
waits, or anything of another user. Each experiment is checked again just before it is removed.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from .data.cache import cache_folder
from .data.packed import root_of
from .engine import output
from .engine.errors import UserError, report_user_errors
from .engine.experiment import claims
from .engine.experiment.clearing import other_owner
from .engine.experiment.find import outputs, readable
from .engine.experiment.folder import GRIDS, XPS, Experiment
from .engine.experiment.origin import still_needed
from .engine.experiment.records import State
from .engine.experiment.snapshot import discard
from .engine.jobs.choose import asked
from .engine.jobs.queue.old_ends import forget, old_ends
from .engine.watch.info import overrides
from .engine.watch.status import Status, look
from .engine.words import shown_path
from .snapshots import snapshots

EXAMPLES = """\
examples:
  %(prog)s                            what can be removed, by kind and size
  %(prog)s checkpoints failed         the same for two kinds, with a line for each thing
  %(prog)s checkpoints --remove       remove this kind
  %(prog)s failed --days 90 --remove  only what failed more than 90 days ago
"""
KINDS = {
    "checkpoints": "checkpoints of finished runs other than the best",
    "unnamed": "experiments that no grid names",
    "failed": "experiments that failed more than {days:g} days ago",
    "snapshots": "snapshots of code that no experiment ran or will run",
    "leftovers": "leftovers of crashed writes, older than a day",
    "caches": "decoded images of folders that are gone",
    "queue": "records of ended jobs in the local queue that no experiment needs",
}
OLD = 24 * 3600.0  # seconds, after which no process still writes to an unfinished file


@dataclass(frozen=True)
class Thing:
    """Something that can be removed."""

    name: str
    why: str  # more about it, for the user
    size: int  # bytes
    remove: Callable[[], None]


@dataclass
class Disk:
    """What an outputs folder contains at one moment."""

    folder: Path
    days: float = 30.0  # the age from which a failed experiment can be removed
    now: float = field(default_factory=time.time)

    @cached_property
    def experiments(self) -> list[Experiment]:
        """The experiments of this user."""
        return [one for one in readable(self.folder) if one.exists() and not other_owner(one)]

    @cached_property
    def statuses(self) -> dict[str, Status]:
        return look(self.experiments, asked(), force=True)

    @cached_property
    def origins(self) -> set[Path]:
        """The files of weights that an unfinished experiment starts from."""
        return still_needed(readable(self.folder), lambda sig: Experiment(self.folder / XPS / sig))

    def idle(self) -> Iterator[tuple[Experiment, Status]]:
        """The experiments that certainly do not run and do not wait."""
        for one in self.experiments:
            status = self.statuses[one.sig]
            if not status.live and status.certain:
                yield one, status

    # --- the kinds ---

    def checkpoints(self) -> Iterator[Thing]:
        for one, status in self.idle():
            if status.state != State.COMPLETED:
                continue
            names = ["previous.ckpt", "best.next.ckpt", "unused.*.ckpt"]
            if one.best_checkpoint.exists():
                names.append("last.ckpt")
            paths: list[Path] = []
            for name in names:
                paths += sorted(one.folder.glob(name))
            paths = [path for path in paths if path.resolve() not in self.origins]
            if paths:
                files = ", ".join(path.name for path in paths)
                yield _files(one.sig, files, paths, partial(self._refuse_live, one))

    def unnamed(self) -> Iterator[Thing]:
        named = {path.name for path in (self.folder / GRIDS).glob("*/*")}  # links to experiments
        for one, status in self.idle():
            if one.sig not in named:
                yield from self._whole(one, status)

    def failed(self) -> Iterator[Thing]:
        for one, status in self.idle():
            run = one.state()
            ended = run.ended or run.updated or self.now
            is_old = self.now - ended > self.days * 24 * 3600
            if status.state in (State.FAILED, State.TIMED_OUT) and is_old:
                yield from self._whole(one, status)

    def snapshots(self) -> Iterator[Thing]:
        for name, snapshot in snapshots(self.folder).items():
            used = snapshot.runs or snapshot.needed
            if not used and _is_ours(snapshot.path) and self._is_old(snapshot.path):
                path = snapshot.path
                yield Thing(name, "no experiment", _size(path), partial(discard, path))

    def leftovers(self) -> Iterator[Thing]:
        found = [*self.folder.glob("*/.*.removed"), *self.folder.glob("codes/.*")]
        for pattern in ("*/.*.tmp", "*/*/.*.tmp", "*/*/*/.*.tmp"):
            found += self.folder.glob(pattern)
        running = {sig for sig, status in self.statuses.items() if status.live}
        for path in sorted(set(found)):
            if _is_ours(path) and self._is_old(path) and not running & set(path.parts):
                yield _files(shown_path(path), "", [path])

    def caches(self) -> Iterator[Thing]:
        for path in sorted((cache_folder() / "packed").glob("*")):
            root = root_of(path)
            if root is not None and not root.exists() and _is_ours(path):
                parts = [path, *path.parent.glob(f"{path.name}.*")]
                yield _files(path.name, f"{root} is gone", parts)

    def queue(self) -> Iterator[Thing]:
        known: set[str] = set()
        needed: set[str] = set()
        for one in readable(self.folder):
            for number in range(1, one.job_number() + 1):
                job = one.job_at(number)
                known.add(job.token if job else "")
            last = one.job()
            if last is not None and not one.state().state.ended:
                needed.add(last.token)
        numbers = old_ends(known - {""}, needed)
        if numbers:
            words = f"{len(numbers)} jobs"
            yield Thing("ended", words, sum(numbers.values()), partial(forget, set(numbers)))

    # --- how ---

    def _whole(self, one: Experiment, status: Status) -> Iterator[Thing]:
        """A whole experiment. Nothing if an unfinished one starts from its weights."""
        folder = one.folder.resolve()
        if not any(folder in path.parents for path in self.origins):
            why = f"{status}   {overrides(one, one.birth())}"
            yield Thing(one.sig, why, _size(one.folder), partial(self._remove, one))

    def _remove(self, one: Experiment) -> None:
        """Remove an experiment, and the links to it in the folders of grids.

        Raises:
            UserError: it waits or runs by now.
        """
        self._refuse_live(one)
        claims.claim(one)  # from here on, no run of it can begin: of two claims, one succeeds
        for link in (self.folder / GRIDS).glob(f"*/{one.sig}"):
            link.unlink(missing_ok=True)
        aside = one.folder.with_name(f".{one.sig}.{time.time_ns()}.removed")
        one.folder.rename(aside)  # if this process is killed now, `leftovers` finds the rest
        shutil.rmtree(aside, ignore_errors=True)

    def _refuse_live(self, one: Experiment) -> None:
        status = look([one], asked(), force=True)[one.sig]
        if status.live or not status.certain:
            raise UserError(f"XP {one.sig} is {status.state} by now: nothing of it was removed.")

    def _is_old(self, path: Path) -> bool:
        return self.now - path.lstat().st_mtime > OLD


def _files(
    name: str, why: str, paths: Sequence[Path], check: Callable[[], None] = lambda: None
) -> Thing:
    """Files or folders that are removed together. `check` may refuse it with a UserError."""

    def remove() -> None:
        check()
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    return Thing(name, why, sum(map(_size, paths)), remove)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    total = 0
    for part in (path, *path.rglob("*")):
        if part.is_file() and not part.is_symlink():
            total += part.stat().st_size
    return total


def _is_ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def shown_size(size: float) -> str:
    """`310 MB`, `2.4 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.clean",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Show what can be removed from the disk, and remove the kinds that are named.",
    )
    made.add_argument("kinds", metavar="KIND", nargs="*", help=f"{', '.join(KINDS)}")
    made.add_argument("--remove", action="store_true", help="remove the kinds that are named")
    made.add_argument(
        "--days", type=float, default=30.0, help="for the kind failed: its least age, in days (30)"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Show what can be removed, or remove it.

    Raises:
        UserError: a kind is unknown, or `--remove` is given without a kind.
    """
    args = parser().parse_args(argv)
    for kind in args.kinds:
        if kind not in KINDS:
            raise UserError(f'unknown kind "{kind}".', f"there is: {', '.join(KINDS)}.")
    if args.remove and not args.kinds:
        raise UserError(
            "--remove names no kind: nothing was removed.",
            "see what there is: python -m dora_train.clean     then: "
            "python -m dora_train.clean checkpoints --remove",
        )
    disk = Disk(outputs(), args.days)
    for kind in args.kinds or KINDS:
        things = list(getattr(disk, kind)())
        print(_line(kind, things, args.days))
        if args.kinds:
            _each(things, args.remove)
    if not args.remove:
        print("nothing was removed; to remove a kind: python -m dora_train.clean KIND --remove")


def _line(kind: str, things: Sequence[Thing], days: float) -> str:
    size = shown_size(sum(thing.size for thing in things))
    return f"{kind:<12} {len(things):>6} {size:>9}   {KINDS[kind].format(days=days)}"


def _each(things: Iterable[Thing], remove: bool) -> None:
    """Print a line for each thing. Remove it first, if `remove` is true."""
    for thing in things:
        words = f"{shown_size(thing.size):>9}  {thing.name}  {thing.why}".rstrip()
        if not remove:
            print(f"  {words}")
            continue
        try:
            thing.remove()
            print(f"  removed {words}")
        except (UserError, OSError) as error:
            print(f"  kept    {words}: {error}")


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
