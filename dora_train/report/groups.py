"""Runs that can be compared: measured by the same metric on the same data.

A best run, a verdict and a star mean something within such a group only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.experiment import contents
from ..engine.watch.progress import moment
from .parameters import canonical, text
from .runs import Run

# The values that say on what a run is measured. Of `data.name` and `data`, the file in conf/data
# that was chosen, the first counts that a run has.
DATA = ("task", "data.name", "data", "data.root", "data.valid")
PARTS = ("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.overfit_batches")
METRIC = ("best.metric",)
FILES = "files"  # stands for the files of the data, which no key names


@dataclass(eq=False)
class Group:
    """Runs that can be compared with each other.

    Attributes:
        name: the data set, and what else tells the group from the others. Empty: there is one.
        runs: in the order of the report.
    """

    name: str
    runs: list[Run]


def grouped(runs: Sequence[Run], over: Sequence[str] = ()) -> list[Group]:
    """The groups, the one with the newest run first.

    Args:
        over: keys that the user groups over. They separate no groups.
    """
    by_values: dict[str, list[Run]] = {}
    for run in runs:
        measured = _measured(run)
        kept = [value for key, value in measured.items() if key not in over]
        by_values.setdefault(canonical(kept), []).append(run)
    found: list[list[Run]] = []
    for alike in by_values.values():
        if any(key in DATA for key in over):
            found.append(alike)
        else:
            found += _by_files(alike)
    found.sort(key=lambda group: -max(map(_started, group)))
    return [Group(name, group) for name, group in zip(_names(found), found)]


def _measured(run: Run) -> dict[str, Any]:
    """The values that say on what a run is measured, by their keys."""
    found = run.values((*DATA, *PARTS, *METRIC))
    if found["data.name"] is not None:
        found["data"] = None
    return found


def _by_files(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose data had the same files, together. A run that stored no files is with the newest."""
    of_files: dict[bytes, list[Run]] = {}
    unknown: list[Run] = []
    for run in runs:
        mark = contents.mark(run.experiment)
        if mark:
            of_files.setdefault(mark, []).append(run)
        else:
            unknown.append(run)
    found: list[tuple[Any, list[Run]]] = []
    for group in of_files.values():
        files = group[0].experiment.contents() or {} if len(of_files) > 1 else {}
        for other, same in found:
            # a checksum may be unknown, which makes another mark of the same files
            if not contents.Changes.between(other, files):
                same += group
                break
        else:
            found.append((files, group))
    groups = [group for _, group in found] or [[]]
    newest = max(groups, key=lambda group: max(map(_started, group), default=0.0))
    newest += unknown
    place = {run: at for at, run in enumerate(runs)}
    return [sorted(group, key=lambda run: place[run]) for group in groups]


def _started(run: Run) -> float:
    return run.times.started or 0.0


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A name for each group: the data set, and the values that tell it from the others.

    A single group needs no name.
    """
    if len(groups) < 2:
        return [""] * len(groups)
    names = [data_name(group[0]) for group in groups]
    for key in ("data.valid", *PARTS, *METRIC, "data.root"):
        names = [_told(name, key, names, groups, at) for at, name in enumerate(names)]
    for at, name in enumerate(list(names)):
        if names.count(name) > 1:
            began = min(run.times.began or 0.0 for run in groups[at])
            names[at] = f"{name}, files of {moment(began)}"
    for at, name in enumerate(list(names)):
        if name in names[:at]:
            names[at] = f"{name} ({at + 1})"
    return names


def _told(
    name: str, key: str, names: Sequence[str], groups: Sequence[Sequence[Run]], at: int
) -> str:
    """The name with the value of a key, if another group of the name has another value."""
    own = groups[at][0].value(key)
    for other, group in zip(names, groups):
        if other == name and canonical(group[0].value(key)) != canonical(own):
            return f"{name} {key.rpartition('.')[2]}={text(own) or 'null'}"
    return name


def data_name(run: Run) -> str:
    """`digits`, `image_folder cifar10`: the data set, with the last part of its folder."""
    name = text(run.value("data.name") or run.value("data") or run.value("task")) or "data"
    root = text(run.value("data.root"))
    return f"{name} {Path(root).name}".strip()


def differences(one: Run, other: Run) -> list[str]:
    """What keeps two runs from being compared: keys, or `files`. Empty: they can be compared."""
    theirs = _measured(other)
    found = []
    for key, value in _measured(one).items():
        if canonical(value) != canonical(theirs[key]):
            found.append(key)
    if not found and len(_by_files([one, other])) > 1:
        found = [FILES]
    return found
