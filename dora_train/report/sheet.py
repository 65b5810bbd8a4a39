"""The table that is shown: which columns, for runs or for settings. How it is written is formats.py's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.grid.best import Better, is_number
from ..engine.grid.board import Board, Column, Line, counted, heading, meta
from ..engine.grid.status import Status
from ..engine.store import State
from .parameters import differing, shared, text, titles
from .runs import Run
from .settings import Gap, Setting, Summary, gap

FIRST = (
    "best.",
    "test.",
)  # what a person compares by; the rest is in CSV and JSON, or named by --metrics


@dataclass(frozen=True)
class Means(Column):
    """A column of `Summary`s: its values are the means, its cells have the spread as well."""

    def cell(self, values: Any) -> str:
        summary = super().value(values)
        if summary is None:
            return ""
        style = self.format or ".1f"
        return f"{summary.mean:{style}}" + (
            "" if summary.std is None else f" ± {summary.std:{style}}"
        )

    def value(self, values: Any) -> Any:
        summary = super().value(values)
        return None if summary is None else summary.mean


@dataclass
class Sheet:
    """Columns and lines, and what is said above and below them."""

    title: str
    base: str
    columns: list[Column]
    lines: list[Line]
    better: Better
    notes: list[str] = field(default_factory=list)
    statuses: Sequence[Status] = ()
    final: bool = False  # only what is finished can be the best

    def board(self) -> Board:
        header = heading(self.title, self.statuses)
        return Board(header, self.base, self.columns, self.lines, self.better, final=self.final)


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """All that any of them has, in the order of the epochs: train, valid, best, test."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics))


def for_people(metrics: Sequence[str]) -> list[str]:
    return [name for name in metrics if name.startswith(FIRST)] or list(metrics)


def sheet_of_runs(title: str, runs: Sequence[Run], metrics: Sequence[str], better: Better) -> Sheet:
    """One line a run. Only a finished run can hold the best value of a column."""
    parameters = differing(runs)
    names = titles(parameters)
    columns = [
        _meta("sig", left=True),
        *(_parameter(key, names[key], runs) for key in parameters),
        _meta("state", left=True),
        _meta("epoch"),
        *(
            Column(("metrics", name), name.replace(".", " "), _format(_values(runs, name)))
            for name in metrics
        ),
    ]
    lines = [
        Line(
            run.status,
            {
                "Meta": {
                    "sig": run.sig,
                    **meta(run.state, run.status, len(run.history)),
                    **_texts(run, parameters),
                },
                "metrics": run.metrics,
            },
        )
        for run in runs
    ]
    return Sheet(
        title,
        _base(runs),
        columns,
        lines,
        better,
        statuses=[run.status for run in runs],
        final=True,
    )


def sheet_of_settings(
    title: str,
    settings: Sequence[Setting],
    over: Sequence[str],
    metrics: Sequence[str],
    better: Better,
    key: str,
) -> Sheet:
    """One line a setting: mean and spread of each metric, how many runs they come from, and how many are missing.

    Args:
        key: the metric whose gaps to the best are shown.
    """
    runs = [run for setting in settings for run in setting.runs]
    parameters = [name for name in differing(runs) if name not in over]
    names = titles(parameters)
    columns = [
        *(_parameter(name, names[name], runs) for name in parameters),
        _meta("n"),
        _meta("unfinished", left=True),
    ]
    for name in metrics:
        style, title_ = _format(_values(runs, name)), name.replace(".", " ")
        columns += [
            Means(("metrics", name), title_, style),
            Column(("Meta", f"{name} interval"), "95%", right=False),
        ]
    gaps = gaps_of(settings, key, better)
    columns += [Column(("Meta", "gap"), "behind", right=False)] if any(gaps) else []
    style = _format(_values(runs, key))
    lines = [
        Line(
            _status(one),
            {
                "Meta": {
                    "n": str(one.n),
                    "unfinished": words(one),
                    "gap": _gap(found, style),
                    **{
                        f"{name} interval": _interval(one.summary(name), style_of(runs, name))
                        for name in metrics
                    },
                    **_texts(one, parameters),
                },
                "metrics": {name: one.summary(name) for name in metrics},
            },
        )
        for one, found in zip(settings, gaps)
    ]
    return Sheet(
        title,
        _base(runs, over),
        columns,
        lines,
        better,
        _notes(settings, over, any(gaps)),
        [run.status for run in runs],
    )


def gaps_of(settings: Sequence[Setting], key: str, better: Better) -> list[Gap | None]:
    """How far each is behind the best mean of `key`; None for the best itself, and where nothing can be said."""
    means = [one.summary(key) for one in settings]
    best = better.best(key, [found.mean if found else None for found in means])
    if not best:
        return [None] * len(settings)
    first = means[min(best)]
    assert first is not None
    return [
        None if found is None or at in best or not math.isfinite(found.mean) else gap(first, found)
        for at, found in enumerate(means)
    ]


def sort_settings(settings: Sequence[Setting], key: str, better: Better) -> list[Setting]:
    """The best mean first."""

    def rank(one: Setting) -> tuple[bool, float]:
        summary = one.summary(key)
        return better.key(key, summary.mean if summary else None)

    return sorted(settings, key=rank)


def words(setting: Setting) -> str:
    """`1 running, 1 failed`."""
    return counted([run.status for run in setting.runs if not run.finished], ", ")


def _notes(settings: Sequence[Setting], over: Sequence[str], with_gaps: bool) -> list[str]:
    notes = [
        f"mean ± standard deviation over {', '.join(over)}, of n finished runs; 95%: interval of the mean (t)."
    ]
    missing = sum(len(one.runs) - one.n for one in settings)
    if missing:
        notes.append(f"{missing} unfinished run{'s are' if missing > 1 else ' is'} in no mean.")
    if with_gaps:
        notes.append("behind: distance to the best mean; noise: its 95% interval (Welch) holds 0.")
    return notes


# --- the pieces of a line ---


def _meta(name: str, left: bool = False) -> Column:
    return Column(("Meta", name), name, right=not left)


def _parameter(key: str, title: str, runs: Sequence[Run]) -> Column:
    numeric = all(is_number(run.value(key)) or run.value(key) is None for run in runs)
    return Column(("Meta", f"={key}"), title, right=numeric)


def _texts(one: Run | Setting, parameters: Sequence[str]) -> dict[str, str]:
    return {f"={key}": text(one.value(key)) for key in parameters}


def _base(runs: Sequence[Run], over: Sequence[str] = ()) -> str:
    return " ".join(
        f"{key}={text(value)}" for key, value in shared(runs).items() if key not in over
    )


def _values(runs: Sequence[Run], metric: str) -> list[float]:
    return [run.metrics[metric] for run in runs if metric in run.metrics]


def style_of(runs: Sequence[Run], metric: str) -> str:
    return _format(_values(runs, metric))


def _format(values: Sequence[float]) -> str:
    """One for the whole column, so that its points stand in a line."""
    if all(isinstance(value, int) for value in values):
        return ""
    plain = all(value == 0 or 1e-3 <= abs(value) < 1e4 for value in values if math.isfinite(value))
    return ".4f" if plain else ".3e"


def _interval(summary: Summary | None, style: str) -> str:
    interval = summary.interval if summary else None
    return f"[{interval[0]:{style or '.1f'}}, {interval[1]:{style or '.1f'}}]" if interval else ""


def _gap(found: Gap | None, style: str) -> str:
    """`0.0120 ± 0.0041`, `0.0012 ± 0.0041 noise`."""
    if found is None:
        return ""
    half = "" if found.half is None else f" ± {found.half:{style}}"
    return f"{found.difference:{style}}{half}" + (" noise" if found.noise else "")


def _status(setting: Setting) -> Status:
    """Its own colour: where a run failed, red; where one runs, green."""
    return next((run.status for run in setting.runs if not run.finished), Status(State.COMPLETED))
