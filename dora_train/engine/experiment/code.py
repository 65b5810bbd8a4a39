"""The code of a run: its files, read once, and the copies that are made of them.

`dora run` reads them before it imports the project's modules. The bytes that are hashed are those that the
experiment keeps, and those that a job runs: `DORA_DIR/codes/HASH` is the snapshot of all jobs of
the same content. An archive in the experiment's folder gives the files back without the snapshot,
without git, and on another machine.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import environment
from ..errors import shortened
from ..files import written_aside
from .find import ROOT
from .folder import ARRAYS, CODES, XPS
from .project import Repository, find_code, shown
from .records import Start
from .snapshot import Files, make_whole, name_of, packed, read, read_all


def read_project(dora_dir: Path) -> "Code":
    """The project's code as it is now.

    Results, the queue and data are not code, even if they lie in the project.
    """
    left_out = [dora_dir, dora_dir / XPS, dora_dir / CODES, dora_dir / ARRAYS]
    left_out += map(Path, environment.folders_beside_the_code())
    return Code.of(ROOT, left_out)


@dataclass
class Code:
    """The project's code as it was when it was read."""

    root: Path
    files: Files
    commit: str = ""  # empty without git, or before the first commit
    dirty: Sequence[str] = ()  # paths of code that differs from the commit, or is not in it
    data: Sequence[str] = ()  # files and folders that are too large to be code, in words
    _kept: Path | None = field(default=None, repr=False)  # an archive of these files

    @classmethod
    def of(cls, root: Path, left_out: Iterable[Path] = ()) -> "Code":
        """Read the code.

        Args:
            left_out: folders that are never code, e.g. `DORA_DIR`.

        Raises:
            UserError: the folder holds more files than a project.
        """
        repository = Repository.of(root)
        never = set(map(os.path.realpath, left_out))
        code, data = find_code(root, never, repository.ignored)
        dirty = repository.changed_code(root, code)
        return cls(root, read_all(root, code), repository.commit, dirty, data)

    @cached_property
    def hash(self) -> str:
        return name_of(self.files)

    @property
    def note(self) -> str:
        """A line that names large files and folders that are not code. Empty if there are none."""
        if not self.data:
            return ""
        return f"not part of the code: {shortened(self.data, 3)}"

    def stored(self) -> dict[str, Any]:
        """The record of this code in the files of an experiment."""
        if not self.commit and not self.dirty:  # without git
            return {"hash": self.hash}
        return {"commit": self.commit, "dirty": list(self.dirty), "hash": self.hash}

    def edited(self) -> list[str]:
        """The names of the files that have changed since they were read."""
        return [shown(name) for name, file in self.files.items() if read(self.root / name) != file]

    def snapshot(self, dora_dir: Path) -> Path:
        """The folder under `dora_dir` that holds these files. It is made or repaired if needed."""
        target = dora_dir / CODES / self.hash
        make_whole(target, self.files)
        return target

    def keep(self, archive: Path) -> None:
        """Write these files into an archive, unless it is there.

        The archives of one command are links to one file: a grid has many experiments.
        """
        if self._kept and not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # a disk without links, or the other experiment is gone
                os.link(self._kept, archive)
        if not archive.exists():
            with written_aside(archive) as aside:
                aside.write_bytes(packed(self.files))
            self._kept = archive


def in_words(codes: Sequence[Start]) -> str:
    """`3fa2c1e + 2 changed files (epochs 1-7), 9bc01d2 (from epoch 8)`.

    The epochs are left out if there is one code only.
    """
    names = [_name(start.code) for start in codes]
    if len(codes) < 2:
        return "".join(names)
    words = []
    for at, name in enumerate(names):
        if not name or names.count(name) > 1:
            name = f"{name} [{codes[at].code.get('hash') or '?'}]".strip()
        words.append(f"{name} ({_epochs(at, codes)})")
    return ", ".join(words)


def _name(code: dict[str, Any]) -> str:
    """`3fa2c1e + 2 changed files`. Empty without git."""
    commit, dirty = str(code.get("commit") or ""), code.get("dirty") or []
    if not commit and not dirty:
        return ""
    name = commit[:9] or "no commit"
    if not dirty:
        return name
    files = "file" if len(dirty) == 1 else "files"
    return f"{name} + {len(dirty)} changed {files}"


def _epochs(at: int, codes: Sequence[Start]) -> str:
    first = codes[at].epoch
    if at == len(codes) - 1:
        return f"from epoch {first}"
    last = max(first, codes[at + 1].epoch - 1)
    if first == last:
        return f"epoch {first}"
    return f"epochs {first}-{last}"
