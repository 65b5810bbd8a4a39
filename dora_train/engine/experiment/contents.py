"""The files of a data set, compared with those that an experiment began with.

`data.contents()` returns {file name: [part, size, checksum]}. The checksum is None if it is not
known. A run stores this at its first start. A resume, `continue_from` and predict.py compare it
with the data of today. The times of the files do not count, nor the folder that they lie in.
Standard library only.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import UserError
from .folder import Experiment
from .kept import mark_of

Contents = Mapping[str, Sequence[Any]]
PART, SIZE, CHECKSUM = range(3)
HELD_OUT = ("valid", "test")


@dataclass
class Changes:
    """Names of the files that differ between two moments."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)  # the same file, used for another part

    @classmethod
    def between(cls, before: Contents, now: Contents) -> "Changes":
        changes = cls()
        for name in dict.fromkeys([*now, *before]):
            if name not in before:
                changes.added.append(name)
            elif name not in now:
                changes.removed.append(name)
            elif not _is_same(before[name], now[name]):
                changes.changed.append(name)
            elif before[name][PART] != now[name][PART]:
                changes.moved.append(name)
        return changes

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.moved)

    def __str__(self) -> str:
        """`50 added (train/cat/0100.jpg, train/cat/0101.jpg ...), 1 changed (...)`."""
        kinds = {
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "in another part": self.moved,
        }
        return ", ".join(
            f"{len(names):,} {kind} ({_few(names)})" for kind, names in kinds.items() if names
        )


def mark(experiment: Experiment) -> bytes:
    """What is the same for the same contents: see kept.py."""
    if experiment.kept is not None:
        return experiment.kept.mark()
    return mark_of(experiment.folder)


def _few(names: Sequence[str]) -> str:
    """The first three names."""
    shown = ", ".join(repr(name)[1:-1] for name in sorted(names)[:3])  # a name may hold a newline
    return f"{shown} ..." if len(names) > 3 else shown


def _is_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    if one[SIZE] != other[SIZE]:
        return False
    return one[CHECKSUM] == other[CHECKSUM] or None in (one[CHECKSUM], other[CHECKSUM])


def difference(experiment: Experiment, contents: Contents, inputs: Mapping[str, Any]) -> str:
    """How today's data differ from those of an experiment. Empty if they do not, or if unknown.

    Older experiments stored no contents, and some data sets have none. They are compared by their
    inputs: the classes, the shape, and the exact mean and standard deviation of the training set.

    Args:
        contents: of today's data.
        inputs: of today's data, in the format of `inputs.json`.
    """
    before = experiment.contents()
    stored = experiment.inputs()
    if before and contents:
        changes = str(Changes.between(before, contents))
        is_known = isinstance(stored, dict) and "classes" in stored and "classes" in inputs
        # Names that only differ in how a disk writes an accent may be in another order.
        if not changes and is_known and _forms(stored["classes"]) != _forms(inputs["classes"]):
            return "the classes have another order"
        return changes
    if not isinstance(stored, dict):
        return ""
    changed = [key for key in inputs if key in stored and stored[key] != inputs[key]]
    if not changed:
        return ""
    return f"another {' and '.join(changed)} of the training set"


def _forms(names: Iterable[str]) -> list[str]:
    """Names in the one form that does not depend on the disk."""
    return list(map(partial(unicodedata.normalize, "NFC"), names))


def refuse_other_files(experiment: Experiment, contents: Contents) -> None:
    """Refuse a resume with other files, before it reads its data.

    Args:
        contents: of today's data, without checksums.

    Raises:
        UserError: the files are not those that the experiment began with.
    """
    before = experiment.contents()
    if not before or not contents:
        return
    changes = Changes.between(before, contents)
    if changes:
        raise other_data(experiment, str(changes))


def other_data(experiment: Experiment, changes: str) -> UserError:
    """The error of a resume with other data."""
    return UserError(
        f"XP {experiment.sig} began with other data. Since then: {changes}.",
        "to resume it: restore the files, then the same command",
        "with the files of today: --clear starts it over     tag=WORD makes another experiment",
    )


def learned(before: Contents, now: Contents, parts: Sequence[str] = HELD_OUT) -> list[str]:
    """The files in these parts of `now` that were training images in `before`, under any name.

    Data sets hold some images twice. A file that `before` also held out is not among them.
    """
    files = [*before.values(), *now.values()]
    known = all(file[CHECKSUM] is not None for file in files)
    key = _by_content if known else _by_name
    trained, held_out = set(), set()
    for name, file in before.items():
        if file[PART] == "train":
            trained.add(key(name, file))
        else:
            held_out.add(key(name, file))
    learned = trained - held_out
    return [
        name for name, file in now.items() if file[PART] in parts and key(name, file) in learned
    ]


def changes_that_do_no_harm(
    experiment: Experiment, contents: Contents, inputs: Mapping[str, Any]
) -> str:
    """A line on how the data have changed since an experiment was trained. Empty if they have not.

    It is for a measurement on the test set of today.

    Args:
        contents, inputs: as `difference` takes them.

    Raises:
        UserError: the test set holds images that were learned, or may hold some.
    """
    changes = difference(experiment, contents, inputs)
    if not changes:
        return ""
    before = experiment.contents()
    test = [name for name, file in contents.items() if file[PART] == "test"]
    seen = learned(before or {}, contents, ["test"])
    if seen:
        raise UserError(
            f"XP {experiment.sig}: {len(seen):,} of the {len(test):,} test images are "
            f"among those that it was trained on ({seen[0]} ...).",
            f"Since then the data have changed: {changes}.",
        )
    if not before and any(name.startswith("train/") for name in test):
        raise UserError(
            f"XP {experiment.sig}: its data have changed since: it had {changes}.",
            "Its test set is held out of train/, and drawn anew when files come or go "
            "(data.rules=1): it may hold images that were learned.",
        )
    return f"since XP {experiment.sig} was trained, its data have changed: {changes}"


def _by_content(name: str, file: Sequence[Any]) -> tuple[Any, ...]:
    return file[SIZE], file[CHECKSUM]


def _by_name(name: str, file: Sequence[Any]) -> tuple[Any, ...]:
    """By class, name and size, in any part."""
    return name.partition("/")[2], file[SIZE]
