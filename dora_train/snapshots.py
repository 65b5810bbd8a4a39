"""`python -m dora_train.snapshots`: the files that an experiment ran, and the snapshots.

The files come from the archive that the experiment keeps. Experiments of earlier versions have
none. Their files come from the snapshot, or from the commit and the patch. Only this command
removes a snapshot, and it keeps each one that a job may still start from.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .engine import output
from .engine.access import listed as listed_in
from .engine.errors import UserError, report_user_errors, shortened
from .engine.experiment.code import in_words, read_project
from .engine.experiment.find import find, outputs
from .engine.experiment.folder import CODES, XPS, Experiment
from .engine.experiment.ran_files import chosen, file_diff, files_of
from .engine.experiment.records import State
from .engine.experiment.snapshot import discard, lay_out
from .engine.jobs.choose import asked
from .engine.watch.status import Status, look
from .engine.words import shown_path

EXAMPLES = """\
examples:
  %(prog)s                       the snapshots, and who needs them
  %(prog)s 5f3a there            the files that 5f3a last ran, into a new folder
  %(prog)s 5f3a there --code 9b  another code of those that it ran
  %(prog)s --diff 5f3a           how today's code differs from what 5f3a last ran
  %(prog)s --remove 9b1c 77d0    these snapshots
"""
# An experiment in one of these states runs on with the code that it was submitted with.
NEEDED = {State.WAITING, State.RUNNING, State.INTERRUPTED}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.snapshots",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Get back the files that an experiment ran, or compare them with today's. List "
        "and remove snapshots.",
    )
    made.add_argument(
        "sig", metavar="SIG", nargs="?", default="", help="the beginning of a signature"
    )
    made.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        default="",
        help="where to write its files: a new folder",
    )
    made.add_argument(
        "--code", metavar="HASH", default="", help="which of its codes, by its hash or its commit"
    )
    made.add_argument(
        "--diff",
        action="store_true",
        help="show how today's code differs from what SIG ran, as a unified diff",
    )
    made.add_argument(
        "--remove", metavar="HASH", nargs="+", default=[], help="remove these snapshots"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Restore or compare files, remove snapshots or list them, as the options say.

    Args:
        argv: without the name of the program. None: `sys.argv`.

    Raises:
        UserError: a name is unknown, files are lost, or a snapshot is needed.
    """
    args = parser().parse_args(argv)
    if args.remove and not args.sig and not args.diff:
        remove(outputs(), args.remove)
    elif args.diff and args.sig and not args.folder and not args.remove:
        for line in diff(outputs(), args.sig, args.code):
            print(line)
    elif args.sig and args.folder and not args.remove and not args.diff:
        print(restore(outputs(), args.sig, Path(args.folder), args.code))
    elif not args.sig and not args.code and not args.diff:
        print("\n".join(listed(outputs())))
    else:
        raise UserError(
            "give a signature and a new folder, --diff and a signature, --remove HASH, or nothing.",
            "see: python -m dora_train.snapshots --help",
        )


# --- the files of an experiment ---


def restore(dora_dir: Path, sig: str, folder: Path, name: str = "") -> str:
    """Write the files that an experiment ran into a new folder.

    Args:
        name: the beginning of a hash or a commit. Empty: the code that it ran last.

    Returns:
        A line that says which files they are, and where they were found.

    Raises:
        UserError: the folder is not empty, there is no such code, or its files are lost.
    """
    experiment = find(dora_dir, sig)
    start = chosen(experiment, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: name a folder that does not.")
    # all files are read and compared with the hash before any is written
    files, source = files_of(dora_dir, experiment, start)
    try:
        lay_out(files, folder.absolute())
    except OSError as error:
        raise UserError(f"cannot write {shown_path(folder)}: {error.strerror or error}.") from error
    code = in_words([start])
    words = f"what XP {experiment.sig} ran, {code}" if code else f"what XP {experiment.sig} ran"
    return f"{shown_path(folder)}: {words}, from {source}"


def diff(dora_dir: Path, sig: str, name: str = "") -> Iterator[str]:
    """The lines of a unified diff from the code that an experiment ran to today's.

    Args:
        name: as for `restore`.

    Raises:
        UserError: there is no such code, or its files are lost.
    """
    experiment = find(dora_dir, sig)
    before = files_of(dora_dir, experiment, chosen(experiment, name))[0]
    now = read_project(dora_dir).files
    if before == now:
        yield f"XP {experiment.sig} ran today's code: there is no difference."
    for path in sorted(before.keys() | now.keys()):
        if before.get(path) != now.get(path):
            yield from file_diff(path, before.get(path), now.get(path))


# --- snapshots ---


@dataclass
class Snapshot:
    """One folder under `codes/`, and the experiments that have to do with it.

    Attributes:
        runs: the signatures of experiments that ran it, or whose job has it.
        needed: the experiments that will run it at their next start, by signature.
    """

    path: Path
    commit: str = ""
    runs: set[str] = field(default_factory=set)
    needed: dict[str, Status] = field(default_factory=dict)

    def line(self) -> str:
        size = sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())
        made = time.strftime("%d %b %H:%M", time.localtime(self.path.stat().st_ctime))
        noun = "XP " if len(self.runs) == 1 else "XPs"
        return (
            f"{self.path.name}  {size / 2**20:7.1f} MB  {made}  {self.commit[:9] or '-':<9}  "
            f"{len(self.runs):>5} {noun}  {len(self.needed):>5} unfinished"
        )


def snapshots(dora_dir: Path) -> dict[str, Snapshot]:
    """All snapshots, by name."""
    names = [name for name in sorted(listed_in(dora_dir / CODES)) if not name.startswith(".")]
    folders = [dora_dir / CODES / name for name in names]
    found = {folder.name: Snapshot(folder) for folder in folders if folder.is_dir()}
    if not found:
        return {}
    experiments = {path.name: Experiment(path) for path in (dora_dir / XPS).glob("[!.]*")}
    # Forced, as a status that is a few seconds old may hide a job that needs a snapshot.
    statuses = look(experiments.values(), asked(), force=True)
    for sig, experiment in experiments.items():
        job = experiment.job()
        codes: list[dict[str, Any]] = [start.code for start in experiment.starts()]
        if job:
            codes.append(job.code)
        for code in codes:
            if snapshot := found.get(str(code.get("hash") or "")):
                snapshot.runs.add(sig)
                snapshot.commit = str(code.get("commit") or "")
        if job and (statuses[sig].state in NEEDED or job.held):
            if snapshot := found.get(str(job.code.get("hash"))):
                snapshot.needed[sig] = statuses[sig]
    return found


def listed(dora_dir: Path) -> list[str]:
    """One line for each snapshot."""
    lines = [snapshot.line() for snapshot in snapshots(dora_dir).values()]
    return lines or [
        f"no snapshots under {shown_path(dora_dir / CODES)}: dora grid and dora launch make them."
    ]


def remove(dora_dir: Path, names: Sequence[str]) -> None:
    """Remove the snapshots whose names begin with `names`. Nothing is removed if one cannot be.

    Raises:
        UserError: a name fits no snapshot, or several. Or an unfinished experiment needs one.
    """
    known = snapshots(dora_dir)
    paths = [_removable(known, name).path for name in names]
    for path in dict.fromkeys(paths):  # two names may begin the same snapshot
        discard(path)
        print(f"removed {path.name}")


def _removable(known: Mapping[str, Snapshot], name: str) -> Snapshot:
    found = [snapshot for key, snapshot in known.items() if key.startswith(name)]
    if len(found) != 1 or not name:
        count = "several snapshots begin" if found else "no snapshot begins"
        raise UserError(
            f'{count} with "{name}".', f"there is: {shortened(known, 8)}." if known else ""
        )
    [snapshot] = found
    if snapshot.needed:
        sig, status = next(iter(snapshot.needed.items()))
        others = len(snapshot.needed) - 1
        more = f" (and {others} more)" if others else ""
        raise UserError(
            f"snapshot {snapshot.path.name} is needed: XP {sig} is {status.state}{more}. Nothing was "
            "removed.",
            f"stop it: dora info -f {sig} -C     or let it end",
        )
    return snapshot


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
