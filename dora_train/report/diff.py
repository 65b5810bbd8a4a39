"""Two experiments side by side, or two settings: what differs, and which one is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..engine.errors import UserError
from ..engine.experiment.code import in_words
from ..engine.watch.best import Better
from .conclusion import conclusion, remarks
from .formats import as_text
from .parameters import setting, text
from .ranking import metric_of, ranking
from .report import Report
from .runs import Run
from .settings import group, seeds

Pair = tuple[str, Any, Any]
LASTING = ("values", "code", "versions")  # parts that are the same for all runs of a setting


def differences(one: Run, other: Run) -> dict[str, list[Pair]]:
    """(name, value of the one, value of the other) of all that differs, by part."""
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


def of_runs(one: Run, other: Run) -> str:
    """A part a paragraph, a difference a line, and a verdict; what does not differ is named."""
    found = differences(one, other)
    lines = [f"{one.sig}  {one.command}", f"{other.sig}  {other.command}", *_listed(found)]
    same = [part for part, pairs in found.items() if not pairs]
    if same:
        lines += ["", f"same: {', '.join(same)}"]
    return "\n".join([*lines, "", *_verdict(one, other)]) + "\n"


def _listed(found: Mapping[str, Sequence[Pair]]) -> list[str]:
    width = max((len(name) for pairs in found.values() for name, _, _ in pairs), default=0)
    lines = []
    for part, pairs in found.items():
        if pairs:
            lines += ["", part]
            lines += [
                f"  {name:<{width}}  {_change(a, b, part == 'result')}" for name, a, b in pairs
            ]
    return lines


def _verdict(*runs: Run) -> list[str]:
    """What two runs say of their settings: little, as they are one seed each."""
    over = seeds(runs)
    better = Better.of(run.birth for run in runs)
    found = ranking(group(runs, over), metric_of(runs, better), better, over)
    if len(found.entries) == 1:
        lines = ["They differ in no value but the seed: these are two runs of one setting."]
    else:
        lines = [conclusion(found), *remarks(found)[:1]]
    sigs = " ".join(run.sig for run in runs)
    hint = f"With all seeds of both settings: python -m dora_train.report --diff {sigs} --over seed"
    return [*lines, *([hint] if over and len(found.entries) == 2 else [])]


def of_settings(report: Report) -> str:
    """The settings that two names stand for, each with all its runs, wherever they are.

    Args:
        report: of two names, each a signature or a grid, grouped over some keys.

    Raises:
        UserError: a name stands for several settings, or both for one.
    """
    first, second = (_member(replace(report, names=[name])) for name in report.names)
    over = report.over_keys
    wanted = [setting(run, over) for run in (first, second)]
    if wanted[0] == wanted[1]:
        both = " and ".join(report.names)
        raise UserError(f"{both} differ in {', '.join(over)} alone: they are one setting.")
    every = replace(report, names=())
    every.runs = [run for run in every.runs if setting(run, over) in wanted]
    found = {part: pairs for part, pairs in differences(first, second).items() if part in LASTING}
    found["values"] = [pair for pair in found["values"] if pair[0] not in over]
    every.names = report.names
    return "\n".join([*_listed(found)[1:], "", as_text(every.sheet(), [])])


def _member(report: Report) -> Run:
    """A run of the only setting of a report. Raises: UserError if there are several."""
    over = report.over_keys
    count = len({setting(run, over) for run in report.runs})
    if count > 1:
        raise UserError(
            f"{report.names[0]} has {count} settings, and --diff compares two:",
            f"give the signature of a run of each: python -m dora_train.report {report.names[0]}",
        )
    return report.runs[0]


def _change(a: Any, b: Any, measured: bool) -> str:
    """`0.1 -> 0.3`; of numbers that were measured, the difference as well."""
    if measured and isinstance(a, float) and isinstance(b, float):
        return f"{a:.6g} -> {b:.6g}  ({b - a:+.2g})"
    return f"{a}" if a == b else f"{text(a) or '(none)'} -> {text(b) or '(none)'}"
