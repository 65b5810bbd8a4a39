"""Runs and settings as plain dicts, every digit kept: for CSV, JSON, pandas and other programs."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .parameters import differing
from .runs import Run
from .settings import Setting, Summary
from .sheet import words


def of_run(run: Run, parameters: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """`{"sig": ..., "parameters": {...}, "metrics": {...}}`."""
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "cause": run.status.cause,
        "grids": run.grids,
        "epochs": len(run.history),
        "parameters": {key: run.value(key) for key in parameters},
        "metrics": {name: run.metrics[name] for name in metrics if name in run.metrics},
    }


def of_setting(
    setting: Setting, parameters: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    """The same for a setting; each metric is a dict of mean, std, n, low and high (the 95% interval)."""
    return {
        "sigs": [run.sig for run in setting.runs],
        "n": setting.n,
        "unfinished": words(setting),
        "parameters": {key: setting.value(key) for key in parameters},
        "metrics": {
            name: _summary(summary) for name in metrics if (summary := setting.summary(name))
        },
    }


def _summary(summary: Summary) -> dict[str, Any]:
    low, high = summary.interval or (None, None)
    return {"mean": summary.mean, "std": summary.std, "n": summary.n, "low": low, "high": high}


def records(
    chosen: Sequence[Run] | Sequence[Setting], metrics: Sequence[str], over: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One dict for each of `chosen`."""
    runs = [run for one in chosen for run in (one.runs if isinstance(one, Setting) else [one])]
    parameters = [key for key in differing(runs) if key not in over]
    return [
        of_setting(one, parameters, metrics)
        if isinstance(one, Setting)
        else of_run(one, parameters, metrics)
        for one in chosen
    ]


def flattened(made: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One level: parameters by their keys; `test.acc`, or `test.acc.mean`, `test.acc.std` ...; lists as words."""
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
            row[key] = " ".join(value) if isinstance(value, list) else value
    return row


def finite(value: Any) -> Any:
    """For JSON, which knows no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
