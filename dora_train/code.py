"""`python -m dora_train.code`: the files that an experiment ran, had back; and the snapshots that jobs run.

They come from the snapshot where it is still there, else from the commit and the patch that the experiment keeps.
Only this command removes a snapshot, and none that a job may still start from.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .engine import output
from .engine.code import content_hash, in_words
from .engine.errors import UserError, report_user_errors, shortened
from .engine.files import listed as listed_in
from .engine.find import ROOT, find, outputs, shown_path
from .engine.grid.places import asked
from .engine.grid.status import Status, look
from .engine.store import CODES, XPS, Experiment, Start, State

EXAMPLES = """\
examples:
  %(prog)s                       the snapshots, and who needs them
  %(prog)s 5f3a there            the files that 5f3a last ran, into a new folder
  %(prog)s 5f3a there --code 9b  another code of those that it ran
  %(prog)s --remove 9b1c 77d0    these snapshots
"""
NEEDED = {State.WAITING, State.RUNNING, State.INTERRUPTED}  # goes on with the code that it was submitted with


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.code", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Have back the files that an experiment ran; list and remove the snapshots that jobs run.")
    made.add_argument("sig", metavar="SIG", nargs="?", default="", help="the beginning of a signature")
    made.add_argument("folder", metavar="FOLDER", nargs="?", default="", help="where to write its files: a new folder")
    made.add_argument("--code", metavar="HASH", default="", help="which of its codes, by its hash or its commit")
    made.add_argument("--remove", metavar="HASH", nargs="+", default=[], help="remove these snapshots")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command asks for.

    Raises:
        UserError: a name that means nothing, files that are nowhere any more, a snapshot that is needed.
    """
    args = parser().parse_args(argv)
    if args.remove and not args.sig:
        remove(outputs(), args.remove)
    elif args.sig and args.folder and not args.remove:
        print(restore(outputs(), args.sig, Path(args.folder), args.code))
    elif not args.sig and not args.code:
        print("\n".join(listed(outputs())))
    else:
        raise UserError("a signature and a new folder, or --remove HASH, or nothing: python -m dora_train.code --help")


# --- the files of an experiment ---

def restore(dora_dir: Path, sig: str, folder: Path, name: str = "") -> str:
    """Write the files that an experiment ran into a new folder; what was done, in words.

    Raises:
        UserError: the folder is in use, there is no such code, or its files are nowhere any more.
    """
    experiment = find(dora_dir, sig)
    start = chosen(experiment, name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: name a folder that does not.")
    snapshot = dora_dir / CODES / str(start.code.get("hash") or "none")
    with _made_aside(folder) as aside:
        if snapshot.is_dir():
            shutil.copytree(snapshot, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            _from_commit(experiment, start, aside)
        _compare(experiment, start, aside)
    source = "its snapshot" if snapshot.is_dir() else "the commit and its patch"
    return f"{shown_path(folder)}: what XP {experiment.sig} ran{_words(start)}, from {source}"


def _words(start: Start) -> str:
    name = in_words([start])
    return f", {name}" if name else ""


def chosen(experiment: Experiment, name: str = "") -> Start:
    """The code that it ran last, or the one whose hash or commit begins with `name`.

    Raises:
        UserError: there is none, or several.
    """
    codes = experiment.codes()
    if not codes:
        raise UserError(f"XP {experiment.sig} says nothing of its code.")
    if not name:
        return codes[-1]
    found = {_id(start): start for start in codes
             if any(str(start.code.get(key) or "").startswith(name) for key in ("hash", "commit"))}
    if len(found) != 1:
        raise UserError(f'XP {experiment.sig} ran {"several codes" if found else "no code"} "{name}".',
                        f"it ran: {shortened([_id(start) for start in codes], 8)}.")
    return next(iter(found.values()))


def _id(start: Start) -> str:
    return str(start.code.get("hash") or start.code.get("commit") or "a code without a name")


def _from_commit(experiment: Experiment, start: Start, folder: Path) -> None:
    """Raises: UserError where the commit or the patch is missing."""
    code, name = start.code, str(start.code.get("hash") or "")
    patch = experiment.patch(name)
    if not code.get("commit") and not patch.exists():
        raise UserError(f"XP {experiment.sig} ran files that no commit and no snapshot holds any more.")
    if code.get("dirty") and not patch.exists():
        raise UserError(f"XP {experiment.sig} ran {in_words([start])}, and what was changed was not kept:",
                        f"{shortened(code['dirty'], 3)}. No snapshot of it is left either.")
    changes = code.get("dirty") and patch.stat().st_size
    check_out(ROOT, str(code.get("commit") or ""), patch if changes else None, folder)


def _compare(experiment: Experiment, start: Start, folder: Path) -> None:
    """Raises: UserError where these are not the files that ran: better none than others."""
    name = str(start.code.get("hash") or "")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    if name and content_hash(folder, files) != name:
        raise UserError(f"what is left leads to other files than XP {experiment.sig} ran: git changes some on their "
                        "way (line ends, filters), or the snapshot or the patch was edited.")


def check_out(repository: Path, commit: str, patch: Path | None, folder: Path) -> None:
    """The files of a commit with a patch applied, into an empty folder; the repository stays as it is.

    Raises:
        UserError: git does not know the commit, or the patch does not fit it.
    """
    git_dir = _git(["rev-parse", "--absolute-git-dir"], repository)
    if git_dir is None:
        raise UserError(f"no snapshot of it is left, and {shown_path(repository)} is no repository of git.",
                        "call this from a clone of the project")
    prefix = (_git(["rev-parse", "--show-prefix"], repository) or "").removesuffix("\n")
    with tempfile.TemporaryDirectory() as elsewhere:
        env = {"GIT_DIR": git_dir.removesuffix("\n"), "GIT_WORK_TREE": str(folder),
               "GIT_INDEX_FILE": str(Path(elsewhere, "index"))}
        if commit and _git(["read-tree", f"{commit}:{prefix}"], folder, **env) is None:
            raise UserError(f"no snapshot of it is left, and commit {commit[:9]} is not in this repository.",
                            "perhaps in another clone of it: git fetch, and the same command again")
        if commit and _git(["checkout-index", "--all"], folder, **env) is None:
            raise UserError(f"git could not write the files of commit {commit[:9]}.")
        if patch and _git(["apply", "--whitespace=nowarn", str(patch.absolute())], folder, **env) is None:
            raise UserError(f"{shown_path(patch)} does not fit commit {commit[:9]}.")


def _git(args: Sequence[str], folder: Path, **env: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=folder, env={**os.environ, **env}, capture_output=True)
    except OSError:
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None


@contextmanager
def _made_aside(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when it is whole; nothing is left of one that fails.

    Raises:
        UserError: it cannot be written.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            yield aside
            aside.chmod(0o755)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write {shown_path(folder)}: {error.strerror or error}.") from error


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
        return (f"{self.path.name}  {size / 2**20:7.1f} MB  {made}  {self.commit[:9] or '-':<9}  "
                f"{len(self.runs):>5} {'XP ' if len(self.runs) == 1 else 'XPs'}  {len(self.needed):>5} unfinished")


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
        codes: list[dict[str, Any]] = [start.code for start in experiment.starts()] + ([job.code] if job else [])
        for code in codes:
            if snapshot := found.get(str(code.get("hash") or "")):
                snapshot.runs.add(sig)
                snapshot.commit = str(code.get("commit") or "")
        if job and (statuses[sig].state in NEEDED or job.held) and str(job.code.get("hash")) in found:
            found[str(job.code["hash"])].needed[sig] = statuses[sig]
    return found


def listed(dora_dir: Path) -> list[str]:
    """A line each."""
    lines = [snapshot.line() for snapshot in snapshots(dora_dir).values()]
    return lines or [f"no snapshots under {shown_path(dora_dir / CODES)}: dora grid and dora launch make them."]


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
            raise UserError(f'{"several snapshots begin" if found else "no snapshot begins"} with "{name}".',
                            f"there is: {shortened(known, 8)}." if known else "")
        if found[0].needed:
            sig, status = next(iter(found[0].needed.items()))
            more = f" (and {len(found[0].needed) - 1} more)" if len(found[0].needed) > 1 else ""
            raise UserError(f"snapshot {found[0].path.name} is needed: XP {sig} is {status.state}{more}. Nothing was "
                            "removed.", f"stop it: dora info -f {sig} -C     or let it end")
        chosen_ += found
    for snapshot in {one.path: one for one in chosen_}.values():
        aside = snapshot.path.with_name(f".{snapshot.path.name}.{os.getpid()}.removed")
        snapshot.path.rename(aside)  # nobody sees half of it
        shutil.rmtree(aside, ignore_errors=True)
        print(f"removed {snapshot.path.name}")


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
