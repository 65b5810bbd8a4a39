"""Refuses data that the experiment did not begin with, and weights that have learned its test set.

trainer.py calls it when the data are loaded. contents.py says what is compared.
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

# The share of held-out files that may also be in another training set: blank pages, duplicates.
FEW = 0.01


def contents_of(data: object) -> Contents:
    """Return the files that `data` consist of, or nothing if `data` do not tell."""
    return data.contents() if hasattr(data, "contents") else {}


def inputs_of(data: object) -> dict[str, Any]:
    """Return how `data` become a network's input, or nothing if `data` do not tell."""
    return asdict(data.inputs) if hasattr(data, "inputs") else {}


def keep_or_refuse(session: Session, data: object, resumes: bool) -> None:
    """Store the contents of the data at the first start, and compare them at a resume.

    Args:
        resumes: whether there is a checkpoint. Without one nothing was learned, so that each start
            is a first start.

    Raises:
        UserError: the data are not those that the experiment began with.
    """
    experiment, contents, inputs = session.experiment, contents_of(data), inputs_of(data)
    # On each rank: every node reads the files by itself.
    if resumes and (changes := difference(experiment, contents, inputs)):
        raise other_data(experiment, changes)
    if not session.ranks.is_first:
        return
    # An experiment of an older version may have a checkpoint, but no stored contents.
    if contents and not (resumes and experiment.contents()):
        experiment.write_contents(contents)
    if inputs:
        experiment.write_inputs(inputs)


def refuse_learned(session: Session, given: str, data: object, config: Mapping[str, Any]) -> None:
    """Refuse weights that were trained on images that this run holds out.

    Args:
        given: the value of `continue_from`. The weights of a file are not checked.
        config: the values of `data`.

    Raises:
        UserError: the weights were trained on such images, or it is not known whether they were.
    """
    origin = source(given, session.find)
    if origin is None:
        return
    birth, before = origin.birth(), origin.contents()
    theirs = session.as_stored(birth.config).get("data", {}) if birth else {}
    is_same_set = all(config.get(key) == theirs.get(key) for key in ("name", "root"))
    trouble = ""
    if before is not None:
        trouble = _learned_here(session, origin, before, contents_of(data), is_same_set)
    # Without a root, the data set is one that is always the same.
    elif is_same_set and config.get("root"):
        trouble = _maybe_learned(origin, data)
    if not trouble:
        return
    other = [f"data.{key}={value}" for key, value in theirs.items() if config.get(key) != value]
    had = f"; XP {origin.sig} had {' '.join(other)}" if other else ""
    path = locate(given, session.find) or origin.best_checkpoint
    raise UserError(
        f"continue_from={given}: {trouble}",
        f"the same files and values of data hold out the same images{had}",
        f"take the weights without this check: continue_from={shown_path(path)}",
    )


def _learned_here(
    session: Session, origin: Experiment, before: Contents, contents: Contents, is_same_set: bool
) -> str:
    """Return how many of the held-out images were learned, or nothing if they are few.

    Changes that do no harm are logged.

    Args:
        before: the contents of the data that the weights were trained on.
        is_same_set: whether both data sets have the same name and root.
    """
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


def _maybe_learned(origin: Experiment, data: object) -> str:
    """Return the same for an experiment that did not store its contents.

    Only equal inputs mean that the same images are held out.
    """
    changes = difference(origin, {}, inputs_of(data))
    if not changes:
        return ""
    return f"XP {origin.sig} may have learned what this run holds out: it had {changes}."
