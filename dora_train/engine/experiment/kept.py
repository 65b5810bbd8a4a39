"""Turns the small files of a finished experiment into a line of text, and back (finished.py)."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..access import inode, listed
from ..files import read_json

FORMAT = "1"  # the format of an entry. A version that changes the format must change this number
NAMES = (".argv.json", "birth.json", "state.json", "result.json", "history.json")
FOLDERS = ("attempts", "jobs")
MOST = 16_000  # characters. A longer file, such as a long history, is left in the folder
INODES, MARK = "inodes", "mark"  # the names of two fields of an entry that are not files


@dataclass(frozen=True)
class Kept:
    """The small files of one experiment, as they were when the stamp of its folder was taken."""

    sig: str
    stamp: str
    # The JSON of each file, by its name. An empty text: the file is too long, and is read from the
    # folder.
    texts: Mapping[str, str]
    _read: dict[str, Any] = field(default_factory=dict)  # contents that were parsed already

    def has(self, name: str) -> bool:
        """Whether it is known what a file contains, or that the file is missing."""
        known = name in NAMES or name.partition("/")[0] in FOLDERS
        return known and self.texts.get(name) != ""

    def content(self, name: str) -> Any:
        """The content of a file. None if there is no such file."""
        text = self.texts.get(name)
        if not text:
            return None
        # A new copy each time, because an explorer may change the history that it gets.
        if name == "history.json":
            return json.loads(text)
        if name not in self._read:
            self._read[name] = json.loads(text)
        return self._read[name]

    def names(self, folder: str) -> list[str]:
        """The names of the files in a sub-folder."""
        start = f"{folder}/"
        return [name.removeprefix(start) for name in self.texts if name.startswith(start)]

    def inode(self, name: str) -> int:
        """The inode that a file had when it was kept. `name` is "" for the experiment's folder."""
        inodes = self.content(INODES)
        return inodes.get(name, 0)

    def mark(self) -> bytes:
        """The result of `mark_of` when the experiment was kept."""
        return bytes.fromhex(self.content(MARK))

    def line(self) -> str:
        """The line of the index. It begins with a checksum, because another machine may write into
        the index at the same time, and damage the line.
        """
        fields = [self.sig, self.stamp]
        for name, text in self.texts.items():
            fields += [name, text]
        rest = "\t".join(fields)
        return f"{zlib.crc32(rest.encode()):08x}\t{rest}\n"

    @classmethod
    def of_line(cls, line: str) -> "Kept | None":
        """The entry in a line of the index. None if the line is damaged."""
        checksum, _, rest = line.partition("\t")
        if checksum != f"{zlib.crc32(rest.encode()):08x}":
            return None
        sig, stamp, *fields = rest.split("\t")
        return cls(sig, stamp, dict(zip(fields[::2], fields[1::2], strict=True)))

    @classmethod
    def of_folder(cls, folder: Path, stamp: str) -> "Kept":
        """Read the files of a folder.

        Args:
            stamp: the stamp of the folder. It must be taken before this call, so that a change
                during the call is noticed later.
        """
        texts, inodes = {}, {"": inode(folder)}
        names = list(NAMES)
        for sub in FOLDERS:
            names += [f"{sub}/{name}" for name in listed(folder / sub) if _is_record(name)]
        for name in names:
            content = read_json(folder / name)
            if content is not None:
                text = json.dumps(content)
                texts[name] = text if len(text) <= MOST else ""
            if name.startswith("attempts/"):  # claims.py recognises a copied folder by these inodes
                inodes[name] = inode(folder / name)
        texts[INODES] = json.dumps(inodes)
        texts[MARK] = json.dumps(mark_of(folder).hex())
        return cls(folder.name, stamp, texts)


def mark_of(folder: Path) -> bytes:
    """Eight bytes that identify the contents of `data.json.gz`. Empty if there is no such file.

    They are the checksum and the length that gzip stores at the end of a file. Reading the whole
    file takes long if the data set has many files.
    """
    try:
        with open(folder / "data.json.gz", "rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read()
    except OSError:
        return b""


def _is_record(name: str) -> bool:
    """Whether a file is a record, and not a temporary file of an unfinished write."""
    return name.endswith(".json") and not name.startswith(".")


def stamp_of(folder: str) -> tuple[str, float]:
    """The stamp of an experiment's folder, and the time of its last change.

    The stamp changes if the experiment does: a run replaces `state.json`, and each attempt makes a
    file in `attempts`. A copy has another stamp than the original, because no program can set an
    inode or a ctime. The stamp is empty if there is nothing to compare, or this user may not look.
    """
    try:
        state = os.stat(f"{folder}/state.json")
        attempts = os.stat(f"{folder}/attempts")
    except OSError:
        return "", 0.0
    changed = max(state.st_mtime, state.st_ctime, attempts.st_mtime, attempts.st_ctime)
    numbers = (
        *(state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns),
        *(attempts.st_ino, attempts.st_mtime_ns, attempts.st_ctime_ns),
    )
    return f"{FORMAT}:{':'.join(map(str, numbers))}", changed
