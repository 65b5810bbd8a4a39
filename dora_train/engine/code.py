"""The code of a run: which commit and changes it was, and the snapshot that a job runs.

A job must run the files as they were when it was submitted, not as they are when a node is free. One snapshot serves
all jobs of the same content: `DORA_DIR/codes/HASH`, made once and never changed.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .errors import UserError
from .store import CODES

LIMIT = 100 * 2**20  # bytes; more than this is data that someone forgot to ignore
LEFT_OUT = {".git", ".venv", "env", "venv", "outputs", "__pycache__", "node_modules"}


def _git(root: Path, *args: str) -> str | None:
    """What git answers, or None where there is no git, or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None


def code_of(root: Path) -> dict[str, Any]:
    """`{"commit": ..., "dirty": [changed and untracked files]}`; empty without git."""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "-z", "--untracked-files=all")
    if changed is None:
        return {}
    return {"commit": (commit or "").strip(), "dirty": sorted(entry[3:] for entry in changed.split("\0") if entry)}


def project_files(root: Path) -> list[Path]:
    """The project's own files, relative to `root`: what git tracks or could track; without git, all but the usual."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is not None:
        names = sorted({name for name in listed.split("\0") if name})
        return [Path(name) for name in names if (root / name).is_file()]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
        found += [Path(folder, name).relative_to(root) for name in sorted(files) if not name.endswith(".pyc")]
    return found


def snapshot(root: Path, dora_dir: Path) -> Path:
    """The folder under `dora_dir` that holds the project's files as they are now; made if it is not there.

    Raises:
        UserError: they are too large to be code.
    """
    files = project_files(root)
    sizes = {file: (root / file).stat().st_size for file in files}
    if sum(sizes.values()) > LIMIT:
        largest = sorted(sizes, key=lambda file: -sizes[file])[:3]
        named = ", ".join(f"{file} ({sizes[file] / 2**20:.0f} MB)" for file in largest)
        raise UserError(f"the project's files are {sum(sizes.values()) / 2**20:.0f} MB, too large for a snapshot.",
                        f"the largest: {named}; name them in .gitignore, or take code=live")
    target = dora_dir / CODES / content_hash(root, files)
    if not target.exists():
        _copy(root, files, target)
    return target


def content_hash(root: Path, files: list[Path] | None = None) -> str:
    """The name of the snapshot of these files, or of all of the project's; nothing is written."""
    files = project_files(root) if files is None else files
    digest = hashlib.sha256()
    for file in files:
        content = (root / file).read_bytes()
        mode = os.access(root / file, os.X_OK)
        digest.update(f"{file}\0{len(content)}\0{mode}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()[:16]


def _copy(root: Path, files: list[Path], target: Path) -> None:
    """Copied aside, and renamed whole: of two that do it at once, the second finds it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for file in files:
            (aside / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, aside / file)
        aside.chmod(0o755)
        aside.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
