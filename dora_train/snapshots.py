"""`python -m dora_train.snapshots`: get back the files of an experiment; list and remove snapshots.

The files come from the archive that the experiment keeps. Experiments of earlier versions have
none: theirs come from the snapshot, or from the commit and the patch. Only this command removes a
snapshot, and never one that a job may still start from.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .engine import output
from .engine.access import listed as listed_in
from .engine.errors import UserError, report_user_errors, shortened
from .engine.experiment.code import in_words
from .engine.experiment.find import ROOT, find, outputs
from .engine.experiment.folder import CODES, XPS, Experiment
from .engine.experiment.project import git
from .engine.experiment.records import Start, State
from .engine.experiment.snapshot import Files, discard, everything, lay_out, name_of, unpacked
from .engine.jobs.choose import asked
from .engine.watch.status import Status, look
from .engine.words import shown_path

EXAMPLES = """\
examples:
  %(prog)s                       the snapshots, and who needs them
  %(prog)s 5f3a there            the files that 5f3a last ran, into a new folder
  %(prog)s 5f3a there --code 9b  another code of those that it ran
  %(prog)s --remove 9b1c 77d0    these snapshots
"""
# goes on with the code that it was submitted with
NEEDED = {State.WAITING, State.RUNNING, State.INTERRUPTED}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.snapshots",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Get back the files that an experiment ran. List and remove snapshots.",
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
        "--remove", metavar="HASH", nargs="+", default=[], help="remove these snapshots"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command asks for.

    Raises:
        UserError: a name that means nothing, files that are lost, a snapshot that is needed.
    """
    args = parser().parse_args(argv)
    if args.remove and not args.sig:
        remove(outputs(), args.remove)
    elif args.sig and args.folder and not args.remove:
        print(restore(outputs(), args.sig, Path(args.folder), args.code))
    elif not args.sig and not args.code:
        print("\n".join(listed(outputs())))
    else:
        raise UserError(
            "give a signature and a new folder, or --remove HASH, or nothing.",
            "see: python -m dora_train.snapshots --help",
        )


# --- the files of an experiment ---


def restore(dora_dir: Path, sig: str, folder: Path, name: str = "") -> str:
    """Write the files that an experiment ran into a new folder. Returns what was done, in words.

    Raises:
        UserError: the folder is in use, there is no such code, or its files are lost.
    """
    experiment = find(dora_dir, sig)
    start = chosen(experiment, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: name a folder that does not.")
    files, source = files_of(dora_dir, experiment, start)
    try:
        lay_out(files, folder.absolute())
    except OSError as error:
        raise UserError(f"cannot write {shown_path(folder)}: {error.strerror or error}.") from error
    words = ", ".join(filter(None, [f"what XP {experiment.sig} ran", in_words([start])]))
    return f"{shown_path(folder)}: {words}, from {source}"


def chosen(experiment: Experiment, name: str = "") -> Start:
    """The code that it ran last, or the one whose hash or commit begins with `name`.

    Raises:
        UserError: there is none, or several.
    """
    codes = experiment.codes()
    if not codes:
        raise UserError(f"XP {experiment.sig} does not say which code it ran.")
    if not name:
        return codes[-1]
    found = {
        _id(start): start
        for start in codes
        if any(str(start.code.get(key) or "").startswith(name) for key in ("hash", "commit"))
    }
    if len(found) != 1:
        count = "several codes" if found else "no code"
        raise UserError(
            f'XP {experiment.sig} ran {count} "{name}".',
            f"it ran: {shortened([_id(start) for start in codes], 8)}.",
        )
    return next(iter(found.values()))


def _id(start: Start) -> str:
    return str(start.code.get("hash") or start.code.get("commit") or "a code without a name")


def files_of(dora_dir: Path, experiment: Experiment, start: Start) -> tuple[Files, str]:
    """The files whose hash is that of `start`, and where they were found.

    Raises:
        UserError: they are lost, or what is left are other files: better none than those.
    """
    name = str(start.code.get("hash") or "")
    if not name:
        return _from_commit(experiment, start), "the commit"
    archived = unpacked(experiment.code_archive(name))
    if name_of(archived) == name:
        return archived, "its archive"
    in_snapshot = everything(dora_dir / CODES / name)
    if name_of(in_snapshot) == name:
        return in_snapshot, "its snapshot"
    patched = _from_commit(experiment, start)
    if name_of(patched) == name:
        return patched, "the commit and its patch"
    raise UserError(
        f"what is left leads to other files than XP {experiment.sig} ran: git changes",
        "line ends or filters some, or the archive, the snapshot or the patch was edited.",
    )


def _from_commit(experiment: Experiment, start: Start) -> Files:
    """How earlier versions kept the files.

    Raises:
        UserError: the commit or the patch is missing.
    """
    commit, dirty = str(start.code.get("commit") or ""), start.code.get("dirty") or []
    patch = experiment.patch(str(start.code.get("hash") or ""))
    if not commit and not patch.exists():
        raise UserError(
            f"XP {experiment.sig} ran files that are lost:",
            "no archive, snapshot or commit holds them.",
        )
    if dirty and not patch.exists():
        raise UserError(
            f"XP {experiment.sig} ran {in_words([start])}. The changes were not kept:",
            f"{shortened(dirty, 3)}. There is no archive and no snapshot of it.",
        )
    changes = patch if dirty and patch.stat().st_size else None
    with tempfile.TemporaryDirectory() as folder:
        check_out(ROOT, commit, changes, Path(folder, "files"))
        return everything(Path(folder, "files"))


def check_out(repository: Path, commit: str, patch: Path | None, folder: Path) -> None:
    """Write the files of a commit into a new folder, and apply a patch to them.

    Raises:
        UserError: git does not know the commit, or the patch does not fit it.
    """
    git_dir = git(repository, "rev-parse", "--absolute-git-dir")
    prefix = (git(repository, "rev-parse", "--show-prefix") or "").removesuffix("\n")
    if git_dir is None:
        raise UserError(
            f"no snapshot of it is left. {shown_path(repository)} is no git repository.",
            "call this from a clone of the project",
        )
    folder.mkdir()
    env = {
        "GIT_DIR": git_dir.removesuffix("\n"),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(folder.with_name("index")),
    }
    if commit and git(folder, "read-tree", f"{commit}:{prefix}", **env) is None:
        raise UserError(
            f"no snapshot of it is left. Commit {commit[:9]} is not in this clone.",
            "perhaps in another clone of it: git fetch, and the same command again",
        )
    if commit and git(folder, "checkout-index", "--all", **env) is None:
        raise UserError(f"git could not write the files of commit {commit[:9]}.")
    if patch and git(folder, "apply", "--whitespace=nowarn", str(patch.absolute()), **env) is None:
        raise UserError(f"{shown_path(patch)} does not fit commit {commit[:9]}.")


# --- snapshots ---


@dataclass
class Snapshot:
    """One folder under `codes/`, and the experiments that ran it, or are to."""

    path: Path
    commit: str = ""
    runs: set[str] = field(default_factory=set)
    needed: dict[str, Status] = field(default_factory=dict)  # whose next start is from it

    def line(self) -> str:
        size = sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())
        made = time.strftime("%d %b %H:%M", time.localtime(self.path.stat().st_ctime))
        return (
            f"{self.path.name}  {size / 2**20:7.1f} MB  {made}  {self.commit[:9] or '-':<9}  "
            f"{len(self.runs):>5} {'XP ' if len(self.runs) == 1 else 'XPs'}  {len(self.needed):>5} unfinished"
        )


def snapshots(dora_dir: Path) -> dict[str, Snapshot]:
    """All there are, by name."""
    names = [name for name in sorted(listed_in(dora_dir / CODES)) if not name.startswith(".")]
    folders = [dora_dir / CODES / name for name in names]
    found = {folder.name: Snapshot(folder) for folder in folders if folder.is_dir()}
    if not found:
        return {}
    experiments = {path.name: Experiment(path) for path in (dora_dir / XPS).glob("[!.]*")}
    statuses = look(experiments.values(), asked(), force=True)
    for sig, experiment in experiments.items():
        job = experiment.job()
        codes: list[dict[str, Any]] = [start.code for start in experiment.starts()] + (
            [job.code] if job else []
        )
        for code in codes:
            if snapshot := found.get(str(code.get("hash") or "")):
                snapshot.runs.add(sig)
                snapshot.commit = str(code.get("commit") or "")
        if (
            job
            and (statuses[sig].state in NEEDED or job.held)
            and str(job.code.get("hash")) in found
        ):
            found[str(job.code["hash"])].needed[sig] = statuses[sig]
    return found


def listed(dora_dir: Path) -> list[str]:
    """A line each."""
    lines = [snapshot.line() for snapshot in snapshots(dora_dir).values()]
    return lines or [
        f"no snapshots under {shown_path(dora_dir / CODES)}: dora grid and dora launch make them."
    ]


def remove(dora_dir: Path, names: Sequence[str]) -> None:
    """Remove snapshots, given by the beginning of their names; all of them, or none.

    Raises:
        UserError: there is no such snapshot, or several; or an unfinished experiment needs it.
    """
    known = snapshots(dora_dir)
    chosen_: list[Snapshot] = []
    for name in names:
        found = [snapshot for key, snapshot in known.items() if key.startswith(name)]
        if len(found) != 1 or not name:
            raise UserError(
                f'{"several snapshots begin" if found else "no snapshot begins"} with "{name}".',
                f"there is: {shortened(known, 8)}." if known else "",
            )
        if found[0].needed:
            sig, status = next(iter(found[0].needed.items()))
            more = f" (and {len(found[0].needed) - 1} more)" if len(found[0].needed) > 1 else ""
            raise UserError(
                f"snapshot {found[0].path.name} is needed: XP {sig} is {status.state}{more}. Nothing was "
                "removed.",
                f"stop it: dora info -f {sig} -C     or let it end",
            )
        chosen_ += found
    for snapshot in {one.path: one for one in chosen_}.values():
        discard(snapshot.path)
        print(f"removed {snapshot.path.name}")


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
