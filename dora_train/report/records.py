"""Runs and settings as plain dicts with every digit: for CSV, JSON, pandas and other programs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .additions import additions
from .conclusion import conclusion
from .parameters import differing
from .ranking import Ranked, Ranking
from .ranking_sheet import unfinished_of
from .runs import Run, joined
from .section import Section
from .verdict import Comparison


def of_run(run: Run, parameters: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """`{"sig": ..., "parameters": {...}, "metrics": {...}}`."""
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "cause": run.status.cause,
        "grids": run.grids,
        "epochs": run.epochs,
        "started": iso(run.times.started),
        "took": run.times.took,
        "used": run.used.values() if run.used else {},
        "parameters": run.values(parameters),
        "metrics": {name: run.metrics[name] for name in metrics if name in run.metrics},
    }


def of_setting(
    one: Ranked, parameters: Sequence[str], metrics: Sequence[str], over: Sequence[str]
) -> dict[str, Any]:
    """The same for a setting. A metric is a dict of mean, std, n, low and high (95% interval)."""
    setting = one.setting
    summaries = {}
    for name in metrics:
        found = setting.summary(name, over)
        if found is not None:
            summaries[name] = _summary(found)
    return {
        "sigs": [run.sig for run in setting.runs],
        "n": setting.n,
        "unfinished": unfinished_of(setting),
        "parameters": setting.values(parameters),
        "metrics": summaries,
    }


def _summary(found: Comparison) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {"mean": found.mean, "std": found.std, "n": found.n, "low": low, "high": high}


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as local time with its offset: `2026-11-26T14:02:31+01:00`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def of_runs(sections: Sequence[Section], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One dict for each run. Each has all keys that differ anywhere."""
    parameters = differing(joined(section.runs for section in sections))
    found = []
    for section in sections:
        for run in section.runs:
            found.append({**of_run(run, parameters, metrics), "group": section.name})
    return found


def of_ranking(
    ranking: Ranking, entries: Sequence[Ranked], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """One dict for each of `entries`, with the verdict on it. All have the same conclusion."""
    parameters = differing(ranking.runs, ranking.over)
    said = {"compared": ranking.metric, "conclusion": conclusion(ranking)}
    settings = [one.setting for one in ranking.entries]
    seeds = dict(zip(settings, additions(ranking).seeds))
    found = []
    for one in entries:
        setting = of_setting(one, parameters, metrics, ranking.over)
        found.append({**setting, **_verdict(one), "add": seeds[one.setting], **said})
    return found


def _verdict(one: Ranked) -> dict[str, Any]:
    low, high = one.found.difference_interval or (None, None)
    return {
        "verdict": one.verdict,
        "behind": one.found.difference,
        "behind.low": low,
        "behind.high": high,
        "paired": one.found.paired,
        "needs": one.found.needs,
        "missing": one.found.missing,
    }


def flattened(made: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The dicts with one level: parameters by their keys, metrics by their names, lists as words.

    The metrics of a setting become `test.acc.mean`, `test.acc.std` and so on.
    """
    return list(map(_flattened, made))


def _flattened(record: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in record.items():
        if key == "used":
            row |= {f"used.{name}": part for name, part in value.items()}
        elif key == "parameters":
            row |= value
        elif key == "metrics":
            row |= _parts(value)
        elif isinstance(value, list):
            row[key] = " ".join(map(str, value))
        else:
            row[key] = value
    return row


def _parts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a run as they are, and one entry for each part of a metric of a setting."""
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= {f"{name}.{part}": number for part, number in value.items()}
        else:
            found[name] = value
    return found


def finite(value: object) -> Any:
    """The value for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(finite, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
