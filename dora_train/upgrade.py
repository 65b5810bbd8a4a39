"""`python -m dora_train.upgrade PATH-or-URL [--tag TAG]`: take a later engine into this project.

It replaces the paths that belong to the engine (dora_train/engine/owned.txt) by those of another
clone, and nothing else. It then names the files that changed for the researcher. A project that is
too old to have this command runs the file of the other clone:
`python ../dora_train/dora_train/upgrade.py ../dora_train`. For that reason this file imports
nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

OWNED = "dora_train/engine/owned.txt"
EXAMPLE = "tests/engine/example"  # the front page as the engine's developers have it
MOST = 8  # files that an error lists


def main(args: list[str] | None = None) -> None:
    """Read the arguments, and upgrade the project in the working directory."""
    parser = argparse.ArgumentParser(
        prog="python -m dora_train.upgrade",
        description="Take a later engine into this project. It replaces the engine, the report, "
        "the commands, their tests, their pages in docs/ and conf/engine.yaml. Your files stay as "
        "they are. Nothing is committed.",
    )
    parser.add_argument("source", metavar="PATH-or-URL", help="a clone of dora_train, or its URL")
    parser.add_argument(
        "--tag", default="HEAD", help="a tag, branch or commit of it (default: its HEAD)"
    )
    given = parser.parse_args(args)
    project = Path.cwd()
    _refuse_what_is_no_project(project)
    new = _fetched(project, given.source, given.tag)
    before = _owned(project, "HEAD")
    paths = sorted(set(before) | set(_owned(project, new)) | _moved(project, new))
    _refuse_a_dirty_tree(project, paths)
    _replace(project, new, paths)
    _report(project, new, given.source, paths)


# --- what is refused ---


def _refuse_what_is_no_project(project: Path) -> None:
    """Ends the command unless `project` is the top folder of a git repository with an engine."""
    if not (project / "dora_train/engine").is_dir():
        _refuse(
            f"{project} is not a dora_train project: it has no dora_train/engine.",
            "change into the project's folder first",
        )
    top = _ask(project, "rev-parse", "--show-toplevel")
    if top is None:
        _refuse(
            f"{project} is not a git repository. An upgrade could not be undone.",
            "git init && git add --all && git commit -m 'Before the upgrade'",
        )
    if Path(top).resolve() != project.resolve():
        _refuse(f"the project is not the top folder of its git repository, which is {top}.")
    if _ask(project, "rev-parse", "--verify", "HEAD") is None:
        _refuse(
            "the project has no commit yet. An upgrade could not be undone.",
            "git add --all && git commit -m 'Before the upgrade'",
        )


def _refuse_a_dirty_tree(project: Path, paths: list[str]) -> None:
    """Ends the command if a change is not committed, or if a file that git does not know lies at
    one of the paths: it would be overwritten.

    Other new files, e.g. notebooks, are allowed.
    """
    changed = _git(project, "status", "--porcelain", "--untracked-files=no").splitlines()
    new = _git(project, "ls-files", "--others", "--exclude-standard", "--", *paths)
    changed += [f"?? {name}" for name in new.splitlines()]
    if changed:
        listed = [f"  {line}" for line in changed[:MOST]]
        if len(changed) > MOST:
            listed.append(f"  ... ({len(changed) - MOST} more)")
        _refuse("the project has changes that are not committed:", *listed, "git commit or stash")


def _refuse(*lines: str) -> NoReturn:
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(1)


# --- the new engine ---


def _fetched(project: Path, source: str, tag: str) -> str:
    """The commit of the other clone, whose files git now has in this repository, too."""
    if Path(source).exists():
        source = str(Path(source).resolve())
    done = _run(project, "fetch", "--quiet", "--no-tags", source, tag)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["git said nothing"]
        _refuse(f"git cannot fetch {tag} from {source}:", *[f"  {line}" for line in words[:4]])
    commit = _git(project, "rev-parse", "FETCH_HEAD").strip()
    if not _owned(project, commit):
        _refuse(
            f"{tag} of {source} has no {OWNED}: it is no dora_train, or one from before this command."
        )
    return commit


def _owned(project: Path, commit: str) -> list[str]:
    """The engine's paths at a commit; none if that commit has no list of them."""
    text = _ask(project, "show", f"{commit}:{OWNED}") or ""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _moved(project: Path, commit: str) -> set[str]:
    """Tests that the project has in tests/, and that lie in tests/engine/ by now."""
    new = _names(project, commit)
    found = set()
    for name in _names(project, "HEAD"):
        folder, _, rest = name.partition("/")
        if folder == "tests" and name not in new and f"tests/engine/{rest}" in new:
            found.add(name)
    return found


def _names(project: Path, commit: str) -> set[str]:
    """The paths of all files at a commit."""
    listed = _git(project, "ls-tree", "-r", "-z", "--name-only", commit)
    return set(listed.split("\0")) - {""}


def _replace(project: Path, commit: str, paths: list[str]) -> None:
    """Make each path what it is at the commit. A path that the commit does not have goes."""
    known = _names(project, "HEAD") | _names(project, commit)
    there = [path for path in paths if any(Path(name).is_relative_to(path) for name in known)]
    _git(project, "restore", f"--source={commit}", "--staged", "--worktree", "--", *there)


# --- what is said ---


def _report(project: Path, commit: str, source: str, paths: list[str]) -> None:
    """Print what was replaced, what changed for the researcher, and the next commands."""
    short = _git(project, "rev-parse", "--short", commit).strip()
    print(
        f"dora_train {short} of {source}:",
        _git(project, "log", "-1", "--format=%s", commit),
        end="",
    )
    replaced = _git(project, "diff", "--cached", "--shortstat", "HEAD").strip()
    if not replaced:
        print("This project has that engine already.")
        return
    print(f"The engine's files: {replaced}.")
    _report_front_page(project, short, paths)
    print()
    print("Nothing is committed.")
    print("  test it:  make test-fast")
    print(f"  keep it:  git commit -m 'Upgrade the engine to dora_train {short}'")
    print("  undo it:  git restore --source=HEAD --staged --worktree .")


def _report_front_page(project: Path, commit: str, paths: list[str]) -> None:
    """Name the files of the example that changed between the project's engine and the new one.

    The example is the front page as the engine's developers have it. A researcher may want the same
    changes in the files that are their own.
    """
    old, new, where = f"HEAD:{EXAMPLE}", f"{commit}:{EXAMPLE}", ["."]
    if _ask(project, "rev-parse", "--verify", old) is None:
        # A project from before the example. The commit that was cloned holds the old front page.
        tops = _git(project, "ls-tree", "--name-only", new).split()
        where = [*tops, *[f":(exclude){path}" for path in paths]]
        old, new = _ask(project, "merge-base", "HEAD", commit) or "HEAD", commit
        old = _git(project, "rev-parse", "--short", old).strip()
    changes = _git(project, "diff", "--stat=80", old, new, "--", *where).rstrip("\n")
    print()
    if not changes:
        print("Your files are untouched, and nothing has changed for them.")
        return
    print("Your files are untouched. Since your engine, these have changed in the original:")
    print(changes)
    print(f"  see it:   git diff {old} {new} -- FILE")
    print(f"  take it:  git diff {old} {new} -- FILE | git apply --3way")


# --- git ---


def _git(project: Path, *args: str) -> str:
    """What a git command prints. It ends this command if git refuses."""
    done = _run(project, *args)
    if done.returncode:
        _refuse(f"git {args[0]} failed:", *done.stderr.strip().splitlines()[:4])
    return done.stdout


def _ask(project: Path, *args: str) -> str | None:
    """What a git command prints, without the last line's end. None if git refuses."""
    done = _run(project, *args)
    return None if done.returncode else done.stdout.strip()


def _run(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(project), "-c", "core.quotePath=false", *args]
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        _refuse("this command needs git, which is not installed.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
