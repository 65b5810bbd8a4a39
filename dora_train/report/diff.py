"""Two experiments side by side: what differs in their values, their code, their versions and their results."""

import math
from collections.abc import Mapping
from typing import Any

from ..engine.code import in_words
from .parameters import text
from .runs import Run

Pair = tuple[str, Any, Any]


def differences(one: Run, other: Run) -> dict[str, list[Pair]]:
    """(name, value of the one, value of the other) of all that differs, by part; empty: nothing does."""
    return {
        "values": _pairs({**one.choices, **one.config}, {**other.choices, **other.config}),
        "code": _pairs(*_codes(one, other)),
        "versions": _pairs(_versions(one), _versions(other)),
        "run": _pairs(_run(one), _run(other)),
        "result": _pairs(one.metrics, other.metrics),
        "history": _history(one, other),
    }


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Pair]:
    keys = dict.fromkeys([*one, *other])
    return [
        (key, one.get(key), other.get(key))
        for key in keys
        if not _same(one.get(key), other.get(key))
    ]


def _same(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or a == b


def _codes(*runs: Run) -> list[dict[str, Any]]:
    """By their content as well, where all of them know it."""
    exact = all(start.code.get("hash") for run in runs for start in run.codes)
    return [
        {
            "commit": in_words(run.codes),
            "changed files": ", ".join(_changed(run)),
            "content": ", ".join(start.code["hash"] for start in run.codes) if exact else "",
        }
        for run in runs
    ]


def _changed(run: Run) -> list[str]:
    return list(
        dict.fromkeys(name for start in run.codes for name in start.code.get("dirty") or [])
    )


def _versions(run: Run) -> dict[str, str]:
    return dict(run.birth.versions) if run.birth else {}


def _run(run: Run) -> dict[str, Any]:
    return {
        "state": str(run.status),
        "host": run.state.host,
        "threads": run.birth.threads if run.birth else None,
    }


def _history(one: Run, other: Run) -> list[Pair]:
    """The first epoch whose numbers are not the same."""
    for epoch, (mine, theirs) in enumerate(zip(one.history, other.history), 1):
        if mine != theirs:
            return [("first differs at epoch", epoch, epoch)]
    if len(one.history) != len(other.history):
        return [("epochs", len(one.history), len(other.history))]
    return []


def as_text(one: Run, other: Run) -> str:
    """A part a paragraph, a difference a line; what does not differ is named at the end."""
    found = differences(one, other)
    lines = [f"{one.sig}  {one.command}", f"{other.sig}  {other.command}"]
    width = max((len(name) for pairs in found.values() for name, _, _ in pairs), default=0)
    for part, pairs in found.items():
        lines += ["", part] * bool(pairs) + [
            f"  {name:<{width}}  {_change(a, b, part == 'result')}" for name, a, b in pairs
        ]
    same = [part for part, pairs in found.items() if not pairs]
    return "\n".join([*lines, *(["", f"same: {', '.join(same)}"] if same else [])]) + "\n"


def _change(a: Any, b: Any, measured: bool) -> str:
    """`0.1 -> 0.3`; of numbers that were measured, the difference as well."""
    if measured and isinstance(a, float) and isinstance(b, float):
        return f"{a:.6g} -> {b:.6g}  ({b - a:+.2g})"
    return f"{a}" if a == b else f"{text(a) or '(none)'} -> {text(b) or '(none)'}"
