"""Compares what two runs held at each step (trace.py): the first place and name that differ."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.values import flatten, same
from ..experiment.folder import XPS, Experiment
from .arms import END

Place = tuple[int, int]  # (epoch, batch), both from 0


@dataclass(frozen=True)
class Difference:
    """The first place where two runs differ, and what differs there."""

    place: str  # "epoch 1, after batch 2"
    name: str  # "weights net.0.weight"


@dataclass(frozen=True)
class Traced:
    """The records of one run, of all its starts.

    Attributes:
        tensors: place -> what each start that came there held, by name.
        suspects: as `Suspects.found` gives them. Empty if the run did not reach its end.
        metrics: of the history and the result, by dotted name.
    """

    tensors: Mapping[Place, list[dict[str, str]]] = field(default_factory=dict)
    suspects: Mapping[str, list[str]] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def read(folder: Path) -> Traced:
    """Read the records of a run, and its experiment.

    Args:
        folder: of the arm: it holds `trace` and `xps`.
    """
    tensors: dict[Place, list[dict[str, str]]] = {}
    suspects: dict[str, list[str]] = {}
    for line in (folder / "trace").read_text().splitlines():
        record = json.loads(line)
        epoch, batch = record["place"]
        tensors.setdefault((epoch, batch), []).append(record["tensors"])
        suspects = record.get("suspects", suspects)
    experiments = [Experiment(path) for path in (folder / XPS).glob("[!.]*")]
    metrics = dict(_metrics(experiments[0])) if experiments else {}
    return Traced(tensors, suspects, metrics)


def _metrics(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    for number, entry in enumerate(experiment.history(), 1):
        for name, value in flatten(entry):
            yield f"history, entry {number}: {name}", value
    for name, value in flatten(experiment.result() or {}):
        yield f"result: {name}", value


def first_difference(one: Traced, other: Traced) -> Difference | None:
    """The first difference of `other` from `one`. None if they are equal bit for bit.

    A place that several starts came to is compared for each of them.
    """
    for place in sorted(one.tensors.keys() | other.tensors.keys()):
        known, found = one.tensors.get(place), other.tensors.get(place)
        if not known or not found:
            return Difference(_in_words(place), "only one of the two runs comes there")
        for tensors in found:
            if name := _first_name(known[0], tensors):
                return Difference(_in_words(place), name)
    for name in dict.fromkeys([*one.metrics, *other.metrics]):
        if not same(one.metrics.get(name), other.metrics.get(name)):
            return Difference("", name)
    return None


def _first_name(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """The first name whose values differ. Empty: there is none."""
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            return name
    return ""


def _in_words(place: Place) -> str:
    """`epoch 1, after batch 2`, from 1."""
    epoch, batch = place
    if place == END:
        return "at the end"
    if batch == 0:
        return f"before epoch {epoch + 1}"
    return f"epoch {epoch + 1}, after batch {batch}"
