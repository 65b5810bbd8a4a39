"""From the beginning of a signature to the experiment's folder: for `-f SIG`, and for whatever reads experiments.

Light: no Dora, no Hydra's composing, no torch.
"""

import os
from pathlib import Path

from .errors import UserError, shortened
from .store import XPS, Experiment

ROOT = Path(__file__).resolve().parents[2]


def find(folder: Path, sig: str) -> Experiment:
    """The stored experiment whose signature begins with `sig`.

    Args:
        folder: where everything lands, which holds `xps/`.

    Raises:
        UserError: there is none, or several.
    """
    if not 0 < len(sig) <= 8 or not all(letter in "0123456789abcdef" for letter in sig):
        raise UserError(f'"{sig[:40]}" is not a signature: up to eight of 0-9 and a-f, e.g. 5f3a91c2.')
    folder = folder / XPS
    found = sorted(path.parent.name for path in folder.glob(f"{sig}*/.argv.json"))
    if not found:
        known = sorted(path.parent.name for path in folder.glob("*/.argv.json"))
        raise UserError(f'there is no experiment "{sig}" under {shown_path(folder)}.',
                        f"there is: {shortened(known, 8)}." if known else "it holds no experiment yet: dora run")
    if len(found) > 1:
        raise UserError(f'"{sig}" begins several signatures: {shortened(found, 8)}.')
    return Experiment(folder / found[0])


def outputs() -> Path:
    """Where everything lands, as `dora.dir` of the configuration says; nothing is composed.

    A relative folder may be named from a notebook, which may lie anywhere: see `placed`.
    """
    from omegaconf import OmegaConf  # here: it takes 0.1 s

    try:
        text = OmegaConf.select(OmegaConf.load(ROOT / "conf" / "config.yaml"), "dora.dir", default="outputs")
    except Exception:  # a configuration in the middle of an edit must not keep anyone from reading
        text = os.environ.get("DORA_DIR", "outputs")
    return placed(Path(str(text or "outputs")))


def placed(folder: Path) -> Path:
    """A relative folder of results: the one below the working directory if it exists, else the project's."""
    return folder if (folder / XPS).is_dir() else ROOT / folder


def shown_path(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
