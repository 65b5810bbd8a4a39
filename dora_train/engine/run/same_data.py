"""A run reads the data its experiment began with, and is not measured on what was learned before.

Called by trainer.py when the data are loaded. contents.py says what is compared.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..errors import UserError
from ..experiment.contents import HELD_OUT, PART, Changes, Contents, difference, learned, other_data
from ..experiment.folder import Experiment
from ..experiment.origin import locate, source
from ..words import shown_path
from .session import Session

FEW = 0.01  # share of held-out files that two data sets may share: blank pages, duplicates


def contents_of(data: Any) -> Contents:
    """What `data` consists of; empty if it does not tell."""
    return data.contents() if hasattr(data, "contents") else {}


def inputs_of(data: Any) -> dict[str, Any]:
    """How `data` become a network's input; empty if it does not tell."""
    return asdict(data.inputs) if hasattr(data, "inputs") else {}


def keep_or_refuse(session: Session, data: Any, resumes: bool) -> None:
    """Store what the data consist of at the first start, and compare it at a resume.

    Until there is a checkpoint, nothing was learned: each start is a first start.

    Raises:
        UserError: the data are not those that the experiment began with.
    """
    experiment, contents, inputs = session.experiment, contents_of(data), inputs_of(data)
    if resumes and (changes := difference(experiment, contents, inputs)):
        raise other_data(experiment, changes)
    if not session.ranks.is_first:
        return
    if contents and not (resumes and experiment.contents()):
        experiment.write_contents(contents)
    if inputs:
        experiment.write_inputs(inputs)


def refuse_learned(session: Session, given: str, data: Any, config: Mapping[str, Any]) -> None:
    """Refuse weights that were trained on images that this run holds out.

    Args:
        given: the value of `continue_from`. The weights of a file are not checked.
        config: the values of `data`.

    Raises:
        UserError: they were, or it cannot be told.
    """
    origin = source(given, session.find)
    if origin is None:
        return
    birth, before = origin.birth(), origin.contents()
    theirs = session.as_stored(birth.config).get("data", {}) if birth else {}
    is_same_set = all(config.get(key) == theirs.get(key) for key in ("name", "root"))
    trouble = ""
    if before is not None:
        trouble = _known(session, origin, before, contents_of(data), is_same_set)
    elif is_same_set and config.get("root"):
        trouble = _unknown(origin, data)
    if trouble:
        other = [f"data.{key}={value}" for key, value in theirs.items() if config.get(key) != value]
        path = locate(given, session.find) or origin.best_checkpoint
        raise UserError(
            f"continue_from={given}: {trouble}",
            "the same files and values of data hold out the same images"
            + (f"; XP {origin.sig} had {' '.join(other)}" if other else ""),
            f"take the weights without this check: continue_from={shown_path(path)}",
        )


def _known(
    session: Session, origin: Experiment, before: Contents, contents: Contents, is_same_set: bool
) -> str:
    """What is wrong; empty if nothing is. Changes that do no harm are logged."""
    held_out = [name for name, file in contents.items() if file[PART] in HELD_OUT]
    seen = learned(before, contents)
    if len(seen) > FEW * len(held_out):
        return (
            f"{len(seen):,} of the {len(held_out):,} images that this run holds out are among "
            f"those that XP {origin.sig} was trained on ({seen[0]} ...)."
        )
    if seen:
        session.log(
            f"warning: XP {origin.sig} was trained on {len(seen):,} of the images that "
            f"this run holds out ({seen[0]} ...)"
        )
    if is_same_set and (changes := Changes.between(before, contents)):
        session.log(f"since XP {origin.sig} was trained, the data have changed: {changes}")
    return ""


def _unknown(origin: Experiment, data: Any) -> str:
    """The same for an experiment without contents. Only equal inputs mean equal held-out images."""
    changes = difference(origin, {}, inputs_of(data))
    if not changes:
        return ""
    return f"XP {origin.sig} may have learned what this run holds out: it had {changes}."
