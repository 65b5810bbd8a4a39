"""The files that an experiment ran, and how one of them differs from today's.

They come from the archive that the experiment keeps, from the snapshot, or from the commit and the
patch that earlier versions kept. `python -m dora_train.snapshots` is the one user.
"""

import difflib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, shortened
from .code import in_words
from .commit_files import check_out
from .find import ROOT
from .folder import CODES, Experiment
from .project import shown
from .records import Start
from .snapshot import Files, everything, name_of, unpacked


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
    found = {_id(start): start for start in codes if _begins_with(start, name)}
    if len(found) != 1:
        count = "several codes" if found else "no code"
        raise UserError(
            f'XP {experiment.sig} ran {count} "{name}".',
            f"it ran: {shortened([_id(start) for start in codes], 8)}.",
        )
    return next(iter(found.values()))


def _begins_with(start: Start, name: str) -> bool:
    """Whether the hash or the commit of a code begins with `name`."""
    hash_, commit = start.code.get("hash") or "", start.code.get("commit") or ""
    return str(hash_).startswith(name) or str(commit).startswith(name)


def _id(start: Start) -> str:
    return str(start.code.get("hash") or start.code.get("commit") or "a code without a name")


def files_of(dora_dir: Path, experiment: Experiment, start: Start) -> tuple[Files, str]:
    """The files whose hash is that of `start`, and a word for the place where they were found.

    Raises:
        UserError: they are lost, or the files that are left have another hash.
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
    """The files of a commit with a patch: earlier versions of this project kept them so.

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


def file_diff(
    path: str, before: tuple[bytes, bool] | None, now: tuple[bytes, bool] | None
) -> Iterator[str]:
    """The lines of a unified diff of one file.

    Args:
        before, now: its content and whether it may be executed. None: there is no such file.
    """
    name = shown(path)
    try:
        old, new = (file[0].decode().splitlines() if file else [] for file in (before, now))
    except UnicodeDecodeError:
        yield f"{name}: binary files differ"
        return
    if before and now and before[1] != now[1]:
        yield f"{name}: only one of the two files may be executed"
    was = f"a/{name}" if before else "/dev/null"
    is_now = f"b/{name}" if now else "/dev/null"
    yield from difflib.unified_diff(old, new, was, is_now, lineterm="")
