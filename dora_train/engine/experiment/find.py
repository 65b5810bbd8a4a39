"""From the beginning of a signature to the experiment's folder: for `-f SIG`, and for whatever
reads experiments.

Light: no Dora, no Hydra's composing, no torch.
"""

import os
import shlex
from pathlib import Path

from ..access import exists, listed
from ..errors import UserError, shortened
from ..words import shown_path
from .folder import XPS, Experiment, cleared_folder, is_signature

ROOT = Path(__file__).resolve().parents[3]


def find(folder: Path, sig: str) -> Experiment:
    """The stored experiment whose signature begins with `sig`.

    Args:
        folder: where everything lands, which holds `xps/`.

    Raises:
        UserError: there is none, or several, or this user may not read it.
    """
    if not 0 < len(sig) <= 8 or not all(letter in "0123456789abcdef" for letter in sig):
        raise UserError(
            f'"{sig[:40]}" is not a signature: up to eight of 0-9 and a-f, e.g. 5f3a91c2.'
        )
    folder = folder / XPS
    names = sorted(name for name in listed(folder) if is_signature(name))
    meant = [name for name in names if name.startswith(sig)]
    found = [name for name in meant if exists(folder / name / ".argv.json")]
    if not found:
        _refuse_cleared(folder, sig)
        known = [name for name in names if os.path.exists(folder / name / ".argv.json")]
        raise UserError(
            f'there is no experiment "{sig}" under {shown_path(folder)}.',
            f"there is: {shortened(known, 8)}."
            if known
            else "it holds no experiment yet: dora run",
        )
    if len(found) > 1:
        raise UserError(f'"{sig}" begins several signatures: {shortened(found, 8)}.')
    return Experiment(folder / found[0])


def _refuse_cleared(xps: Path, sig: str) -> None:
    """Raises: UserError if its results were put aside by `--clear`, which was killed at that
    moment."""
    for aside in sorted(cleared_folder(xps).glob(f"{sig}*")):
        words = shlex.join(["mv", shown_path(aside), shown_path(xps / aside.name)])
        raise UserError(
            f"XP {aside.name} was cleared, and the command ended before its new run.",
            f"to have the results back: {words}",
        )


def readable(folder: Path) -> list[Experiment]:
    """The experiments below `folder`, as for `find`, that this user may read."""
    return [experiment for experiment in _all(folder) if _may_read(experiment.folder)]


def closed(folder: Path) -> list[str]:
    """The signatures of those that this user may not read."""
    return [experiment.sig for experiment in _all(folder) if not _may_read(experiment.folder)]


def _all(folder: Path) -> list[Experiment]:
    names = sorted(name for name in listed(folder / XPS) if is_signature(name))
    return [Experiment(folder / XPS / name) for name in names]


def _may_read(folder: Path) -> bool:
    """A folder, and the files in it, by the first that is written."""
    file = folder / ".argv.json"
    return os.access(folder, os.R_OK | os.X_OK) and (os.access(file, os.R_OK) or not file.exists())


def outputs() -> Path:
    """Where everything lands, as `dora.dir` of the configuration says; nothing is composed.

    A relative folder may be named from a notebook, which may lie anywhere: see `placed`.
    """
    from omegaconf import OmegaConf  # here: it takes 0.1 s

    try:
        text = OmegaConf.select(
            OmegaConf.load(ROOT / "conf" / "config.yaml"), "dora.dir", default="outputs"
        )
    except Exception:  # a configuration in the middle of an edit must not keep anyone from reading
        text = os.environ.get("DORA_DIR", "outputs")
    return placed(Path(str(text or "outputs")))


def placed(folder: Path) -> Path:
    """A relative folder of results: the one below the working directory if it exists, else the
    project's."""
    return folder if os.path.isdir(folder / XPS) else ROOT / folder
