"""Runs and settings as plain dicts, every digit kept: for CSV, JSON, pandas and other programs."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .additions import additions
from .conclusion import conclusion
from .parameters import differing
from .ranking import Ranked, Ranking
from .ranking_sheet import unfinished_of
from .runs import Run
from .verdict import Comparison


def of_run(run: Run, parameters: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """`{"sig": ..., "parameters": {...}, "metrics": {...}}`."""
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "cause": run.status.cause,
        "grids": run.grids,
        "epochs": run.epochs,
        "parameters": {key: run.value(key) for key in parameters},
        "metrics": {name: run.metrics[name] for name in metrics if name in run.metrics},
    }


def of_setting(
    one: Ranked, parameters: Sequence[str], metrics: Sequence[str], over: Sequence[str]
) -> dict[str, Any]:
    """The same for a setting; a metric is a dict of mean, std, n, low and high (95% interval)."""
    setting = one.setting
    summaries = {name: setting.summary(name, over) for name in metrics}
    return {
        "sigs": [run.sig for run in setting.runs],
        "n": setting.n,
        "unfinished": unfinished_of(setting),
        "parameters": {key: setting.value(key) for key in parameters},
        "metrics": {name: _summary(found) for name, found in summaries.items() if found},
    }


def _summary(found: Comparison) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {"mean": found.mean, "std": found.std, "n": found.n, "low": low, "high": high}


def of_runs(runs: Sequence[Run], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """One dict for each run."""
    parameters = differing(runs)
    return [of_run(run, parameters, metrics) for run in runs]


def of_ranking(
    ranking: Ranking, entries: Sequence[Ranked], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """One dict for each of `entries`, with the verdict on it. All have the same conclusion."""
    parameters = [key for key in differing(ranking.runs) if key not in ranking.over]
    said = {"compared": ranking.metric, "conclusion": conclusion(ranking)}
    seeds = dict(zip(map(id, ranking.entries), additions(ranking).seeds))
    return [
        {
            **of_setting(one, parameters, metrics, ranking.over),
            **_verdict(one),
            "add": seeds[id(one)],
            **said,
        }
        for one in entries
    ]


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
    """One level: parameters by their keys; `test.acc`, or `test.acc.mean`, `test.acc.std` ...;
    lists as words."""
    return [_flattened(record) for record in made]


def _flattened(record: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in record.items():
        if key in ("parameters", "metrics"):
            for name, inner in value.items():
                row |= (
                    {f"{name}.{part}": number for part, number in inner.items()}
                    if (key == "metrics" and isinstance(inner, dict))
                    else {name: inner}
                )
        else:
            row[key] = " ".join(map(str, value)) if isinstance(value, list) else value
    return row


def finite(value: Any) -> Any:
    """For JSON, which knows no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
