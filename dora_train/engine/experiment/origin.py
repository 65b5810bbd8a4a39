"""`continue_from`: the file of an experiment's first weights, decided when the experiment is made.

The hash of the file is part of the birth. If the file is overwritten later, a run notices it. The
weights are read by `run/start.py`.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import UserError
from .folder import Experiment, is_hexadecimal, is_signature
from .records import State

Find = Callable[[str], Experiment]


def source(given: str, find: Find) -> Experiment | None:
    """The experiment whose signature `continue_from` names. None if it names a file, or nothing."""
    sig, _, which = given.partition(":")
    if is_signature(sig) and which in ("", "last"):
        return find(sig)
    return None


def locate(given: str, find: Find) -> Path | None:
    """The file that `continue_from` names. None if it is blank.

    Args:
        given: a signature (its best weights), `SIGNATURE:last`, or a file.
        find: from a signature to its experiment. It raises UserError if there is none.

    Raises:
        UserError: there is no such file, or the experiment is not finished.
    """
    if not given:
        return None
    sig, colon, which = given.partition(":")
    if is_signature(sig) and which in ("", "last"):
        return _checkpoint(find(sig), given, last=bool(colon))
    if Path(given).is_file():
        return Path(given).resolve()
    if 4 <= len(sig) < 8 and is_hexadecimal(sig):
        raise UserError(
            f"continue_from={given}: write all eight letters, as it becomes part of a name: "
            f"{find(sig).sig}{colon}{which}"
        )
    raise UserError(
        f"continue_from={given}: there is no such file, and it is no signature.",
        "its best weights: continue_from=5f3a91c2     its last ones: continue_from=5f3a91c2:last",
    )


def still_needed(experiments: Iterable[Experiment], find: Find) -> set[Path]:
    """The files of weights that unfinished experiments start from.

    A file that is gone already is left out.
    """
    found = set()
    for one in experiments:
        birth = one.birth()
        if birth is None or one.state().state is State.COMPLETED:
            continue
        given = str(birth.config.get("continue_from") or "")
        try:
            path = locate(given, find)
        except UserError:
            continue
        except OSError:  # e.g. a folder of another user: it may be there
            path = Path(given).absolute()
        if path is not None:
            found.add(path.resolve())
    return found


def _checkpoint(experiment: Experiment, given: str, last: bool) -> Path:
    """The checkpoint of a finished experiment: the best one, or the last one.

    Raises:
        UserError: the experiment is not finished, or the file was removed.
    """
    state = experiment.state().state
    if state is not State.COMPLETED:
        raise UserError(
            f"continue_from={given}: XP {experiment.sig} is not finished ({state}).",
            f"finish it first: dora run -f {experiment.sig}",
        )
    path = experiment.last_checkpoint
    # Without a best entry, e.g. without a validation, the last weights were tested.
    if not last and (experiment.result() or {}).get("best"):
        path = experiment.best_checkpoint
    if not path.exists():
        raise UserError(
            f"continue_from={given}: XP {experiment.sig} has no {path.name} any more "
            "(checkpoint.keep, or it was removed)."
        )
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of the file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
