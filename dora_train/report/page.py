"""The report as a page: one HTML file that needs no network.

The numbers are collected here. The scripts in assets/ draw them in the browser.

The scripts are our own, a few hundred lines. Plotly would add 4.8 MB to each page, it has no dark
mode, and it takes seconds to draw 500 curves.
"""

import html
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from itertools import chain
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
from .runs import Run, keys_of, numbers
from .settings import Setting
from .trials import searches

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("charts.js", "trials.js", "intervals.js", "page.js")
# Numbers of all curves together, some 5 MB. If there are more, only every n-th epoch is drawn.
MOST_NUMBERS = 600_000
# A confusion matrix of more classes is not shown. Its most frequent confusions are.
MOST_CLASSES = 20
CONFUSIONS = 15

# The metrics of one run, one dict for each entry of its history.
History = list[dict[str, float]]


def page(report: Report) -> str:
    """The content of the HTML file."""
    title = " ".join(report.names) or "all experiments"
    data = json.dumps(
        finite(content(report, title)), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    parts = {
        "title": html.escape(title),
        "style": _asset("page.css"),
        "data": data.replace("<", "\\u003c"),  # a value may hold "</script>"
        "script": "".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"@@(\w+)@@", lambda mark: parts[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def content(report: Report, title: str) -> dict[str, Any]:
    """All data of the page. A run or a setting is referred to by its place in its list."""
    runs = report.runs
    keys = differing(runs)
    names = titles(keys)
    place = {run: at for at, run in enumerate(runs)}
    common = _common(runs)
    entries = report.entries
    curves, stride = _curves([one.setting for one in entries])
    has_epochs = all(epochs_in(run.history) for run in runs if run.history)
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
        "axis": "epoch" if has_epochs else "entry",
        "searches": searches(report),
    }


# --- settings and their curves ---


def _setting(one: Ranked, report: Report, place: Mapping[Run, int]) -> dict[str, Any]:
    keys = [key for key in differing(report.runs) if key not in report.over_keys]
    low, high = one.found.difference_interval or (None, None)
    metrics = keys_of([report.metrics, filter(None, [report.compared])])
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
    """({metric: one curve for each setting}, stride): every stride-th epoch is drawn.

    A setting that does not have the metric has None in the place of its curve.
    """
    histories = [[_history(run) for run in one.runs] for one in settings]
    lengths = [max(map(len, of_setting), default=0) for of_setting in histories]
    entries = chain.from_iterable(chain.from_iterable(histories))
    metrics = keys_of(entries)
    count = 0
    for of_setting, length in zip(histories, lengths):
        lines = 1 if len(of_setting) < 2 else 4  # see `_curve`
        count += length * lines * len(metrics)
    stride = max(1, math.ceil(count / MOST_NUMBERS))
    curves: dict[str, list[Any]] = {name: [] for name in metrics}
    for of_setting, length in zip(histories, lengths):
        for name in metrics:
            curves[name].append(_curve(of_setting, name, range(0, length, stride)))
    return curves, stride


def _history(run: Run) -> History:
    return [dict(numbers(metrics_of(entry))) for entry in run.history]


def _curve(histories: Sequence[History], name: str, epochs: range) -> dict[str, list] | None:
    """The mean of the runs in each epoch. If there are several: lowest, highest and number, too.

    None if no run has the metric.
    """
    each = [_values_at(histories, epoch, name) for epoch in epochs]
    if not any(each):
        return None
    known = [list(filter(math.isfinite, values)) for values in each]
    curve: dict[str, list] = {"mean": [_mean(values) for values in known]}
    if len(histories) > 1:
        curve["low"] = [_short(min(values, default=None)) for values in known]
        curve["high"] = [_short(max(values, default=None)) for values in known]
        curve["n"] = list(map(len, known))
    return curve


def _values_at(histories: Sequence[History], epoch: int, name: str) -> list[float]:
    long_enough = [history[epoch] for history in histories if epoch < len(history)]
    return [entry[name] for entry in long_enough if name in entry]


def _mean(values: Sequence[float]) -> float | None:
    return _short(sum(values) / len(values)) if values else None


def _short(value: float | None) -> float | None:
    """The value with five digits: more than a screen shows, and a third of the bytes."""
    return None if value is None else float(f"{value:.5g}")


# --- runs and their cards ---


def _run(run: Run, keys: Sequence[str], common: Mapping[str, Any]) -> dict[str, Any]:
    """Args: keys: the columns of the table. common: values that the card leaves out."""
    facts = _facts(run)
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


def _facts(run: Run) -> dict[str, str]:
    """Texts for the card of a run. An empty text means that nothing is known."""
    log = log_of(run.experiment, run.experiment.job())
    versions = run.birth.versions if run.birth else {}
    return {
        "epochs": epochs(run.state, run.epochs),
        "where": run.status.where,
        "ended": "" if run.status.live else when(run.state.ended),
        "grids": ", ".join(run.grids),
        "code": in_words(run.codes),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "folder": shown_path(run.experiment.folder),
        "log": shown_path(log) if log else "",
    }


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs have in common."""
    common = dict(runs[0].config)
    for run in runs[1:]:
        for key in list(common):
            if key not in run.config or run.config[key] != common[key]:
                del common[key]
    return common


def _value(value: object) -> Any:
    """A number as it is, for an axis. Anything else as text."""
    return value if is_number(value) else text(value)


def _confusion(run: Run) -> dict[str, Any] | None:
    """The matrix, or the most frequent confusions [true, given, count] if there are many classes."""
    matrix = run.experiment.confusion()
    if matrix is None:
        return None
    if len(matrix) <= MOST_CLASSES:
        return {"matrix": matrix}
    wrong = []
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            if row != column and count:
                wrong.append([row, column, count])
    wrong.sort(key=lambda triple: -triple[2])
    return {"most": wrong[:CONFUSIONS], "of": sum(map(sum, matrix))}


def _classes(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of the classes that each run told apart, by signature."""
    found: dict[str, list[str]] = {}
    for run in runs:
        inputs = run.experiment.inputs()
        names = inputs.get("classes") if isinstance(inputs, dict) else None
        if isinstance(names, list):
            found[run.sig] = list(map(str, names))
    return found
