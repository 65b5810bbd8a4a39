"""From the beginning of a signature to the experiment's folder, for `-f SIG` and for all readers.

It imports nothing slow: no Dora, no Hydra, no torch.
"""

import os
import shlex
from pathlib import Path

from .. import environment
from ..access import exists, listed
from ..errors import UserError, shortened
from ..words import shown_path
from .folder import XPS, Experiment, cleared_folder, is_hexadecimal, is_signature

ROOT = Path(__file__).resolve().parents[3]


def find(folder: Path, sig: str) -> Experiment:
    """The stored experiment whose signature begins with `sig`.

    Args:
        folder: the folder of results, which holds `xps/`.

    Raises:
        UserError: there is none, or several, or this user may not read it.
    """
    if not 0 < len(sig) <= 8 or not is_hexadecimal(sig):
        raise UserError(
            f'"{sig[:40]}" is not a signature: up to eight of 0-9 and a-f, e.g. 5f3a91c2.'
        )
    xps = folder / XPS
    names = sorted(filter(is_signature, listed(xps)))
    found = [name for name in names if name.startswith(sig) and exists(xps / name / ".argv.json")]
    if not found:
        _refuse_cleared(xps, sig)
        raise _not_found(xps, sig, names)
    if len(found) > 1:
        raise UserError(f'"{sig}" begins several signatures: {shortened(found, 8)}.')
    return Experiment(xps / found[0])


def _not_found(xps: Path, sig: str, names: list[str]) -> UserError:
    """The error if no signature in `names` begins with `sig`. It shows those that there are."""
    known = [name for name in names if os.path.exists(xps / name / ".argv.json")]
    hint = "it holds no experiment yet: dora run"
    if known:
        hint = f"there is: {shortened(known, 8)}."
    return UserError(f'there is no experiment "{sig}" under {shown_path(xps)}.', hint)


def _refuse_cleared(xps: Path, sig: str) -> None:
    """Refuse a signature whose results `--clear` has put aside, before it was killed.

    Raises:
        UserError: it says how to have the results back.
    """
    for aside in sorted(cleared_folder(xps).glob(f"{sig}*")):
        words = shlex.join(["mv", shown_path(aside), shown_path(xps / aside.name)])
        raise UserError(
            f"XP {aside.name} was cleared, and the command ended before its new run.",
            f"to have the results back: {words}",
        )


def readable(folder: Path) -> list[Experiment]:
    """The experiments that this user may read.

    Args:
        folder: as for `find`.
    """
    return [experiment for experiment in _all(folder) if may_read(experiment.folder)]


def closed(folder: Path) -> list[str]:
    """The signatures of the experiments that this user may not read.

    Args:
        folder: as for `find`.
    """
    return [experiment.sig for experiment in _all(folder) if not may_read(experiment.folder)]


def _all(folder: Path) -> list[Experiment]:
    """The experiments below `folder`, by their signatures."""
    return [Experiment(folder / XPS / name) for name in signatures(folder)]


def signatures(folder: Path) -> list[str]:
    """The signatures of all experiments, sorted.

    Args:
        folder: as for `find`.
    """
    return sorted(filter(is_signature, listed(folder / XPS)))


def may_read(folder: Path) -> bool:
    """Whether this user may read a folder and its files. The file that is written first decides."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return False
    file = folder / ".argv.json"
    return os.access(file, os.R_OK) or not file.exists()


def outputs() -> Path:
    """The folder of results, as `dora.dir` of the configuration says. Nothing is composed.

    A notebook may lie anywhere, so a relative folder is searched for: see `placed`.
    """
    from omegaconf import OmegaConf  # here: it takes 0.1 s

    try:
        text = OmegaConf.select(
            OmegaConf.load(ROOT / "conf" / "config.yaml"), "dora.dir", default="outputs"
        )
    except Exception:  # a configuration in the middle of an edit must not keep anyone from reading
        text = environment.outputs()
    return placed(Path(str(text or "outputs")))


def placed(folder: Path) -> Path:
    """A relative folder of results: the one below the working directory if it exists, else the
    project's."""
    if os.path.isdir(folder / XPS):
        return folder
    return ROOT / folder
