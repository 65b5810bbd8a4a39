"""The files of a commit of this project, with uncommitted changes applied.

Called by snapshots.py for experiments of earlier versions, which kept a commit and a patch.
"""

from pathlib import Path

from ..errors import UserError
from ..words import shown_path
from .project import git


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
