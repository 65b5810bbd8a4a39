"""Two experiments side by side, or two settings: what differs, and which one is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..engine.errors import UserError
from ..engine.experiment.code import in_words
from . import groups
from .conclusion import conclusion, remarks
from .formats import as_text
from .parameters import setting, text
from .ranking import ranking_of
from .report import Report
from .runs import Run, keys_of
from .settings import seeds

Pair = tuple[str, Any, Any]  # name, value of the one run, value of the other
LASTING = ("values", "code", "versions")  # parts that are the same for all runs of a setting


def differences(one: Run, other: Run) -> dict[str, list[Pair]]:
    """All that differs between two runs, by part. A part without a difference is empty."""
    return {
        "values": _values(one, other),
        "code": _pairs(*_codes(one, other)),
        "versions": _pairs(one.versions, other.versions),
        "run": _pairs(_run(one), _run(other)),
        "result": _pairs(one.metrics, other.metrics),
        "history": _history(one, other),
    }


def _values(one: Run, other: Run) -> list[Pair]:
    """The values that differ, the choices of files first. A default has its value."""
    keys = keys_of([one.choices, other.choices, one.config, other.config])
    return _pairs(one.values(keys), other.values(keys))


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Pair]:
    found = []
    for key in keys_of([one, other]):
        a, b = one.get(key), other.get(key)
        if not _same(a, b):
            found.append((key, a, b))
    return found


def _same(a: object, b: object) -> bool:
    # NaN is not equal to itself, and two runs that diverged alike do not differ
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or a == b


def _codes(*runs: Run) -> list[dict[str, Any]]:
    """Commit and changed files of each run, and the hashes of its files if all runs have them."""
    hashes = list(map(_hashes, runs))
    exact = all(map(all, hashes))
    found = []
    for run, of_run in zip(runs, hashes):
        changed = keys_of(start.code.get("dirty") or [] for start in run.codes)
        code = {"commit": in_words(run.codes), "changed files": ", ".join(changed), "content": ""}
        if exact:
            code["content"] = ", ".join(of_run)
        found.append(code)
    return found


def _hashes(run: Run) -> list[str]:
    """The hash of each code that it ran. Empty for a code of an older version."""
    return [start.code.get("hash") or "" for start in run.codes]


def _run(run: Run) -> dict[str, Any]:
    return {
        "state": str(run.status),
        "host": run.state.host,
        "threads": run.birth.threads if run.birth else None,
    }


def _history(one: Run, other: Run) -> list[Pair]:
    """The first epoch whose numbers differ, or else the numbers of epochs if these differ."""
    for epoch, (mine, theirs) in enumerate(zip(one.history, other.history), 1):
        if mine != theirs:
            return [("first differs at epoch", epoch, epoch)]
    if len(one.history) != len(other.history):
        return [("epochs", len(one.history), len(other.history))]
    return []


def of_runs(one: Run, other: Run) -> str:
    """A paragraph for each part that differs, a line that names the others, and a verdict."""
    found = differences(one, other)
    lines = [f"{one.sig}  {one.command}", f"{other.sig}  {other.command}", *_listed(found)]
    same = [part for part, pairs in found.items() if not pairs]
    if same:
        lines += ["", f"same: {', '.join(same)}"]
    return "\n".join([*lines, "", *_verdict(one, other)]) + "\n"


def _listed(found: Mapping[str, Sequence[Pair]]) -> list[str]:
    """For each part with differences: an empty line, its name, and a line for each difference."""
    width = 0
    for pairs in found.values():
        width = max([width, *(len(name) for name, _, _ in pairs)])
    lines = []
    for part, pairs in found.items():
        if pairs:
            lines += ["", part]
        for name, a, b in pairs:
            lines.append(f"  {name:<{width}}  {_change(a, b, part == 'result')}")
    return lines


def _verdict(*runs: Run) -> list[str]:
    """What two runs say of their settings. That is little, as they are one seed each."""
    apart = groups.differences(*runs)
    if apart:
        return [_apart(apart)]
    over = seeds(runs)
    found = ranking_of(runs, over)
    if len(found.entries) == 1:
        return ["They differ in no value but the seed: these are two runs of one setting."]
    lines = [conclusion(found), *remarks(found)[:1]]
    if over:
        sigs = " ".join(run.sig for run in runs)
        lines.append(
            "With all seeds of both settings: "
            f"python -m dora_train.report --diff {sigs} --over seed"
        )
    return lines


def _apart(keys: Sequence[str]) -> str:
    """Why two runs cannot be compared."""
    if set(keys) <= set(groups.METRIC):
        return "No verdict: they chose their best epochs by different metrics."
    if keys == [groups.FILES]:
        return "No verdict: the data differ. Their files are not the same."
    return f"No verdict: the data differ ({', '.join(keys)})."


def of_settings(report: Report) -> str:
    """The settings that two names stand for, each with all its runs, whatever grid they are of.

    Args:
        report: of two names, each a signature or a grid, grouped over some keys.

    Raises:
        UserError: a name stands for several settings, or both for one.
    """
    first, second = map(partial(_member, report), report.names)
    over = report.over_keys
    wanted = [setting(first, over), setting(second, over)]
    if wanted[0] == wanted[1]:
        both = " and ".join(report.names)
        raise UserError(f"{both} differ in {', '.join(over)} alone: they are one setting.")
    every = replace(report, names=())
    # `found` is cached: from here on these are the runs of the report.
    every.found = [run for run in every.found if setting(run, over) in wanted]
    every_part = differences(first, second)
    found = {part: every_part[part] for part in LASTING}
    found["values"] = [pair for pair in found["values"] if pair[0] not in over]
    every.names = report.names  # the title of the table
    # the first line is the empty one before the first part
    lines = [*_listed(found)[1:], ""]
    apart = groups.differences(first, second)
    if apart:
        lines += [_apart(apart), ""]
    return "\n".join([*lines, as_text(every)])


def _member(both: Report, name: str) -> Run:
    """A run of the only setting that a name stands for.

    Raises:
        UserError: it stands for several settings.
    """
    report = replace(both, names=[name])
    over = report.over_keys
    count = len({setting(run, over) for run in report.runs})
    if count > 1:
        raise UserError(
            f"{name} has {count} settings, and --diff compares two:",
            f"give the signature of a run of each: python -m dora_train.report {name}",
        )
    return report.runs[0]


def _change(a: object, b: object, measured: bool) -> str:
    """`0.1 -> 0.3`; of numbers that were measured, the difference as well."""
    if measured and isinstance(a, float) and isinstance(b, float):
        return f"{a:.6g} -> {b:.6g}  ({b - a:+.2g})"
    if a == b:
        return f"{a}"
    return f"{text(a) or '(none)'} -> {text(b) or '(none)'}"
