"""The report as a page: one file, no network.

What it shows is put together here; assets/ draws it in the browser.

Drawn by our own script, of a few hundred lines, and not by Plotly: that brings 4.8 MB into each
page, knows no dark mode, and draws 500 curves in seconds.
"""

import html
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..best_so_far import epochs_in, metrics_of
from ..engine.experiment.code import in_words
from ..engine.watch.best import is_number
from ..engine.watch.board import counted, epochs
from ..engine.watch.logs import log_of
from ..engine.watch.status import when
from ..engine.words import shown_path
from .additions import additions, shown
from .conclusion import conclusion, remarks
from .parameters import differing, shared, text, titles
from .ranking import Ranked
from .ranking_sheet import missing
from .records import finite
from .report import Report
from .runs import Run, flat
from .settings import Setting
from .trials import searches

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("charts.js", "trials.js", "intervals.js", "page.js")
MOST_NUMBERS = 600_000  # of all curves together: some 5 MB; what is above is thinned out
MOST_CLASSES = (
    20  # of a confusion matrix that is shown as one; above, the most frequent confusions are
)
CONFUSIONS = 15
OWN = ("best.", "test.")  # metrics that are no curves


def page(report: Report) -> str:
    """The whole HTML file."""
    title = " ".join(report.names) or "all experiments"
    data = json.dumps(
        finite(content(report, title)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    parts = {
        "title": html.escape(title),
        "style": _asset("page.css"),
        "data": data.replace("<", "\\u003c"),
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def content(report: Report, title: str) -> dict[str, Any]:
    """All that the script knows. Runs and settings name each other by their place."""
    runs = report.runs
    keys = differing(runs)
    names = titles(keys)
    place = {run: at for at, run in enumerate(runs)}
    common = _common(runs)
    entries = report.entries
    curves, stride = _curves([one.setting for one in entries])
    return {
        "title": title,
        "made": when(time.time()),
        "counts": counted([run.status for run in runs], " · "),
        "base": {key: text(value) for key, value in shared(runs).items()},
        "over": report.over_keys,
        "metric": report.metric,
        "compared": report.compared,
        "conclusion": conclusion(report.ranking),
        "remarks": remarks(report.ranking),
        "additions": shown(report.ranking, additions(report.ranking)),
        "metrics": report.metrics,
        "modes": {name: report.better.mode(name) for name in report.metrics},
        "parameters": [{"key": key, "title": names[key]} for key in keys],
        "settings": [_setting(one, report, place) for one in entries],
        "runs": [_run(run, keys, common) for run in runs],
        "common": {key: text(common[key]) for key in common},
        "classes": _classes(runs),
        "curves": curves,
        "stride": stride,
        "axis": "epoch" if all(epochs_in(run.history) for run in runs if run.history) else "entry",
        "searches": searches(report),
    }


# --- settings and their curves ---


def _setting(one: Ranked, report: Report, place: Mapping[Run, int]) -> dict[str, Any]:
    keys = [key for key in differing(report.runs) if key not in report.over_keys]
    low, high = one.found.difference_interval or (None, None)
    metrics = dict.fromkeys([*report.metrics, *([report.compared] if report.compared else [])])
    return {
        "name": one.name,
        "values": {key: _value(one.setting.value(key)) for key in keys},
        "runs": [place[run] for run in one.setting.runs],
        "n": one.found.n,
        "missing": missing(one, report.compared),
        "metrics": {name: _summary(one.setting, name, report.over_keys) for name in metrics},
        "behind": [one.found.difference, low, high],
        "verdict": one.verdict,
    }


def _summary(setting: Setting, name: str, over: Sequence[str]) -> list[Any] | None:
    """[mean, standard deviation, n, low, high]."""
    found = setting.summary(name, over)
    if found is None:
        return None
    return [found.mean, found.std, found.n, *(found.interval or (None, None))]


def _curves(settings: Sequence[Setting]) -> tuple[dict[str, list[Any]], int]:
    """({metric: one curve a setting}, every which epoch is drawn).

    A curve: mean, and for several runs low, high, n.
    """
    histories = [
        [dict(enumerate(map(_flat_numbers, run.history))) for run in one.runs] for one in settings
    ]
    lengths = [max(map(len, each), default=0) for each in histories]
    metrics = list(
        dict.fromkeys(
            name for each in histories for run in each for entry in run.values() for name in entry
        )
    )
    numbers = sum(
        length * (1 if len(each) < 2 else 4) for length, each in zip(lengths, histories)
    ) * len(metrics)
    stride = max(1, math.ceil(numbers / MOST_NUMBERS))
    return {
        name: [
            _curve(each, name, range(0, length, stride)) for each, length in zip(histories, lengths)
        ]
        for name in metrics
    }, stride


def _curve(
    histories: Sequence[dict[int, dict[str, float]]], name: str, at: range
) -> dict[str, list] | None:
    each = [
        [history[epoch][name] for history in histories if name in history.get(epoch, {})]
        for epoch in at
    ]
    if not any(each):
        return None
    finite_ = [[value for value in values if math.isfinite(value)] for values in each]
    curve = {"mean": [_short(sum(values) / len(values)) if values else None for values in finite_]}
    if len(histories) > 1:
        curve |= {
            "low": [_short(min(values, default=None)) for values in finite_],
            "high": [_short(max(values, default=None)) for values in finite_],
            "n": [len(values) for values in finite_],
        }
    return curve


def _flat_numbers(entry: dict) -> dict[str, float]:
    return {
        name: value
        for name, value in flat(metrics_of(entry))
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _short(value: float | None) -> float | None:
    """Five digits are more than a screen shows."""
    return None if value is None else float(f"{value:.5g}")


# --- runs and their cards ---


def _run(run: Run, keys: Sequence[str], common: dict[str, Any]) -> dict[str, Any]:
    birth, state = run.birth, run.state
    log = log_of(run.experiment, run.experiment.job())
    facts = {
        "epochs": epochs(state, run.epochs),
        "where": run.status.where,
        "ended": when(state.ended) if not run.status.live else "",
        "grids": ", ".join(run.grids),
        "code": in_words(run.codes),
        "versions": ", ".join(f"{name} {version}" for name, version in birth.versions.items())
        if birth
        else "",
        "folder": shown_path(run.experiment.folder),
        "log": shown_path(log) if log else "",
    }
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "brief": str(run.status),
        "finished": run.finished,
        "cause": "" if run.finished else run.status.cause,
        "epochs": facts["epochs"],
        "values": {key: _value(run.value(key)) for key in keys},
        "metrics": run.metrics,
        "config": {key: text(value) for key, value in run.config.items() if key not in common},
        "facts": {key: value for key, value in facts.items() if value},
        "command": run.command,
        "confusion": _confusion(run),
    }


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs have in common."""
    first, *others = runs
    return {
        key: value
        for key, value in first.config.items()
        if all(key in run.config and run.config[key] == value for run in others)
    }


def _value(value: Any) -> Any:
    """A number as it is, for an axis; anything else as text."""
    return value if is_number(value) else text(value)


def _confusion(run: Run) -> dict[str, Any] | None:
    """A matrix, or of many classes the most frequent confusions: [true, given, count]."""
    matrix = run.experiment.confusion()
    if matrix is None or len(matrix) <= MOST_CLASSES:
        return None if matrix is None else {"matrix": matrix}
    wrong = [
        [row, column, count]
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return {
        "most": sorted(wrong, key=lambda triple: -triple[2])[:CONFUSIONS],
        "of": sum(map(sum, matrix)),
    }


def _classes(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of a data set's classes, by signature; each list once, and by its first run."""
    found: dict[str, list[str]] = {}
    for run in runs:
        inputs = run.experiment.inputs()
        names = inputs.get("classes") if isinstance(inputs, dict) else None
        if isinstance(names, list):
            found[run.sig] = next(
                (known for known in found.values() if known == names), list(map(str, names))
            )
    return found
