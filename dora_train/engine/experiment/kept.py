"""The small files of a finished experiment as a line of text, and back: an entry of finished.py."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..access import inode, listed
from ..files import read_json

FORMAT = "1"  # of an entry. A version that writes another one raises it
NAMES = (".argv.json", "birth.json", "state.json", "result.json", "history.json")
FOLDERS = ("attempts", "jobs")
MOST = 16_000  # characters of a file. A longer history is left in the folder
INODES, MARK = "inodes", "mark"  # the names of two fields that are no files


@dataclass(frozen=True)
class Kept:
    """The small files of one experiment, as they were when the stamp of its folder was taken."""

    sig: str
    stamp: str
    texts: Mapping[str, str]  # JSON by the file's name. Empty: it is read from the folder
    _read: dict[str, Any] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether the content of a file, or that there is none, is known."""
        known = name in NAMES or name.partition("/")[0] in FOLDERS
        return known and self.texts.get(name) != ""

    def content(self, name: str) -> Any:
        """The content of a file. None if there is none."""
        text = self.texts.get(name)
        if not text:
            return None
        # An explorer may change what it gets of a history.
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
        """The inode of a file, or of the experiment's folder (""), when it was kept."""
        inodes = self.content(INODES)
        return inodes.get(name, 0)

    def mark(self) -> bytes:
        """As `mark_of`."""
        return bytes.fromhex(self.content(MARK))

    def line(self) -> str:
        """The entry. It begins with a checksum, as another machine may write at the same time."""
        fields = [self.sig, self.stamp]
        for name, text in self.texts.items():
            fields += [name, text]
        rest = "\t".join(fields)
        return f"{zlib.crc32(rest.encode()):08x}\t{rest}\n"

    @classmethod
    def of_line(cls, line: str) -> "Kept | None":
        """The entry of a line. None if the line is damaged."""
        checksum, _, rest = line.partition("\t")
        if checksum != f"{zlib.crc32(rest.encode()):08x}":
            return None
        sig, stamp, *fields = rest.split("\t")
        return cls(sig, stamp, dict(zip(fields[::2], fields[1::2], strict=True)))

    @classmethod
    def of_folder(cls, folder: Path, stamp: str) -> "Kept":
        """What the files in a folder hold now.

        Args:
            stamp: of the folder, from before this call.
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
            if name.startswith("attempts/"):
                inodes[name] = inode(folder / name)
        texts[INODES] = json.dumps(inodes)
        texts[MARK] = json.dumps(mark_of(folder).hex())
        return cls(folder.name, stamp, texts)


def mark_of(folder: Path) -> bytes:
    """Eight bytes that are the same for the same contents. Empty if the contents were not stored.

    They are gzip's own checksum and length of the text, at the end of the file. To read all of the
    file takes long if the data have many files.
    """
    try:
        with open(folder / "data.json.gz", "rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read()
    except OSError:
        return b""


def _is_record(name: str) -> bool:
    """Whether it is a file that was written to the end."""
    return name.endswith(".json") and not name.startswith(".")


def stamp_of(folder: str) -> tuple[str, float]:
    """What changes if a finished experiment does, and the time of its last change.

    A run writes `state.json` anew by a rename, and each attempt makes a file in `attempts`. The
    inodes and the times of change tell a copy from the original: no program can set a time of
    change. Empty: there is nothing to compare, or this user may not look.
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
