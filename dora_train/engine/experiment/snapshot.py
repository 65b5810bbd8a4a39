"""The files of a code: read, named by their hash, and written as a folder or an archive.

A folder or an archive is compared with the hash in its name when it is read.
"""

import hashlib
import io
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from .folder import CODES

Files = Mapping[str, tuple[bytes, bool]]  # path -> content, and whether it may be executed


def read(path: Path) -> tuple[bytes, bool] | None:
    """The content of a file, and whether it may be executed. None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(), bool(os.fstat(file.fileno()).st_mode & 0o100)
    except OSError:
        return None


def read_all(folder: Path, names: Iterable[str]) -> Files:
    """The files of these names in a folder. A file that cannot be read is left out."""
    files = {}
    for name in names:
        file = read(folder / name)
        if file is not None:
            files[name] = file
    return files


def everything(folder: Path) -> Files:
    """All files below a folder but those that Python compiled."""
    names = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in name.parts:
            names.append(str(name))
    return read_all(folder, names)


def name_of(files: Files) -> str:
    """The hash of these files: of their names, their contents, and whether they may be executed."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content, executable = files[name]
        digest.update(f"{name}\0{len(content)}\0{executable}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()[:16]


def packed(files: Files) -> bytes:
    """The files as a .tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=3) as archive:
        for name, (content, executable) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(archive: Path) -> Files:
    """The files in an archive. Empty if it is missing or damaged."""
    files = {}
    try:
        with tarfile.open(archive) as entries:
            for entry in entries:
                path = Path(entry.name)
                if not entry.isreg() or path.is_absolute() or ".." in path.parts:
                    continue
                content = entries.extractfile(entry)
                if content:
                    files[entry.name] = (content.read(), bool(entry.mode & 0o100))
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        return {}
    return files


def snapshot_of(name: str, archive: Path, dora_dir: Path) -> Path | None:
    """The snapshot of this name, repaired from an experiment's archive. None if there is neither."""
    target = dora_dir / CODES / name
    if target not in _whole:
        files = unpacked(archive)
        if files and name_of(files) == name:
            make_whole(target, files)
        _whole.add(target)
    return target if target.is_dir() else None


_whole: set[Path] = set()  # snapshots that this process has checked: a grid asks for each job


def make_whole(target: Path, files: Files) -> None:
    """Make a folder of these files. If it exists with other contents, it is replaced."""
    if _holds(target, files):
        return
    try:
        if target.exists():
            discard(target)
        lay_out(files, target)
    except OSError:
        if not _holds(target, files):  # else another command made it at the same time
            raise


def _holds(folder: Path, files: Files) -> bool:
    """Whether a folder has these files with these contents."""
    for name, (content, _) in files.items():
        file = read(folder / name)
        if file is None or file[0] != content:
            return False
    return True


def lay_out(files: Files, target: Path) -> None:
    """Write the files into a new folder, which is renamed when it is complete."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.{time.time_ns()}")
    try:
        aside.mkdir(parents=True)
        for name, (content, executable) in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if executable:
                # A user who may read the file may also execute it.
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o444) >> 2)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder. It is renamed first, so that no other command sees half of it."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
