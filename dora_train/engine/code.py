"""The code of a run: which commit and changes it was, and the snapshot that a job runs.

A job must run the files as they were when it was submitted, not as they are when a node is free. One snapshot serves
all jobs of the same content: `DORA_DIR/codes/HASH`, made once and never changed. An experiment keeps what made its
files differ from their commit, so that they can be had back without the snapshot: see dora_train/code.py.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import UserError
from .store import CODES, Start

LIMIT = 100 * 2**20  # bytes; more than this is data that someone forgot to ignore
PATCH_LIMIT = 2**20  # bytes; it is kept with each experiment
LEFT_OUT = {".git", ".venv", "env", "venv", "outputs", "__pycache__", "node_modules"}


def _git(root: Path, *args: str, stdin: bytes = b"", **env: str) -> str | None:
    """What git answers, or None where there is no git, or no repository; nothing of it is touched."""
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, timeout=60, input=stdin,
                              env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", **env})
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None


@dataclass(frozen=True)
class Code:
    """The project's files, as they were when it was asked for."""

    root: Path
    commit: str = ""  # empty without git, or before the first commit
    dirty: Sequence[str] = field(default_factory=list)  # files that are not as they are in the commit, or not in it
    hash: str = ""  # of the content, which names a snapshot; empty: too large to be code

    @classmethod
    def of(cls, root: Path) -> "Code":
        known, files = code_of(root), project_files(root)
        small = sum((root / file).stat().st_size for file in files) <= LIMIT
        return cls(root, known.get("commit", ""), known.get("dirty", []), content_hash(root, files) if small else "")

    def stored(self) -> dict[str, Any]:
        """As an experiment's files hold it."""
        known = {"commit": self.commit, "dirty": list(self.dirty)} if self.commit or self.dirty else {}
        return known | {"hash": self.hash}

    @cached_property
    def patch(self) -> bytes | None:
        """What leads from the commit to these files, for `git apply`; None: it is too large, or git fails."""
        return patch_of(self.root, self.commit) if self.hash else None


def code_of(root: Path) -> dict[str, Any]:
    """`{"commit": ..., "dirty": [changed and untracked files]}`; empty without git."""
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames",
                   "--", ".")
    if changed is None:
        return {}
    return {"commit": (commit or "").strip(), "dirty": sorted(entry[3:] for entry in changed.split("\0") if entry)}


def project_files(root: Path) -> list[Path]:
    """The project's own files, relative to `root`: what git tracks or could track; without git, all but the usual."""
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is not None:
        paths = {Path(name) for name in listed.split("\0") if name}
        return sorted(path for path in paths if (root / path).is_file() and "__pycache__" not in path.parts)
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
    for file in sorted(files, key=str):
        content = (root / file).read_bytes()
        mode = os.access(root / file, os.X_OK)
        digest.update(f"{file}\0{len(content)}\0{mode}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()[:16]


def patch_of(root: Path, commit: str, limit: int = PATCH_LIMIT) -> bytes | None:
    """What leads from the commit to the project's files as they are, untracked ones too; None: larger, or git fails.

    git compares the commit with the work tree for the files that an index names: this one is our own, elsewhere, and
    names what a snapshot holds. The contents that it claims for them exist nowhere, so that git looks at the files.
    """
    base = commit or (_git(root, "hash-object", "-t", "tree", "--stdin") or "").strip()
    prefix = (_git(root, "rev-parse", "--show-prefix") or "").removesuffix("\n")
    names = b"".join(f"100644 {'1' * len(base)} 0\t{prefix}{file}\0".encode(errors="surrogateescape")
                     for file in project_files(root))
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        if _git(root, "update-index", "-z", "--index-info", stdin=names, **env) is None:
            return None
        command = ["git", "-C", str(root), "diff", "--binary", "--full-index", "--relative", "--no-renames",
                   "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", base]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                              env={**os.environ, **env}) as git:
            assert git.stdout
            patch = git.stdout.read(limit + 1)
            if len(patch) > limit:
                git.kill()
                return None
        return patch if git.returncode == 0 else None


def in_words(codes: Sequence[Start]) -> str:
    """`3fa2c1e + 2 changed files (epochs 1-7), 9bc01d2 (from epoch 8)`; one code has no epochs behind it."""
    names = [_name(start.code) for start in codes]
    if len(codes) < 2:
        return "".join(names)
    names = [name if name and names.count(name) == 1 else f"{name} [{start.code.get('hash') or '?'}]".strip()
             for name, start in zip(names, codes)]
    return ", ".join(f"{name} ({_epochs(at, codes)})" for at, name in enumerate(names))


def _name(code: dict[str, Any]) -> str:
    """`3fa2c1e + 2 changed files`; empty without git."""
    commit, dirty = str(code.get("commit") or ""), code.get("dirty") or []
    if not commit and not dirty:
        return ""
    more = f" + {len(dirty)} changed file{'s' * (len(dirty) != 1)}" if dirty else ""
    return f"{commit[:9] or 'no commit'}{more}"


def _epochs(at: int, codes: Sequence[Start]) -> str:
    first = codes[at].epoch
    if at == len(codes) - 1:
        return f"from epoch {first}"
    last = max(first, codes[at + 1].epoch - 1)
    return f"epoch {first}" if first == last else f"epochs {first}-{last}"


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
