"""The table of settings: mean and spread of each, its distance from the best, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.experiment.records import State
from ..engine.watch.best import Better
from ..engine.watch.board import Board, Column, Line, counted
from ..engine.watch.status import Status
from .additions import additions, shown
from .conclusion import conclusion, remarks
from .fit import fit
from .parameters import by_separation, differing, titles
from .ranking import Ranked, Ranking, is_finite
from .runs import Run, statuses_of
from .settings import Setting
from .sheet import Sheet, base_of, cells, own, parameter, style_of
from .verdict import Comparison, Interval

NAME = Column(("Meta", "name"), "setting", right=False)
VERDICT = own("verdict", left=True)


@dataclass(frozen=True)
class Means(Column):
    """A column of `Comparison`s. Its values are the means. Its cells show the spread as well."""

    least: int = 1  # the mean of fewer seeds cannot be the best

    def cell(self, values: Mapping[str, Any]) -> str:
        found = super().value(values)
        if found is None:
            return ""
        style = self.format or ".1f"
        mean = f"{found.mean:{style}}"
        if found.std is None:
            return mean
        return f"{mean} ± {found.std:{style}}"

    def value(self, values: Mapping[str, Any]) -> float | None:
        found = super().value(values)
        if found is None or found.n < self.least:
            return None
        return found.mean


def sheet_of_ranking(
    title: str,
    ranking: Ranking,
    metrics: Sequence[str],
    better: Better,
    entries: Sequence[Ranked],
    width: int,
) -> Sheet:
    """One line for each setting, and below them the sentence, the remarks and the seeds to add.

    Args:
        metrics: the columns. The compared metric comes last, wherever it stands here.
        entries: the settings in the order of the table.
        width: of the screen. If the parameters do not fit, one column has the settings' names.
    """
    runs = ranking.runs
    parameters = by_separation([runs], differing(runs, ranking.over))
    short = titles(parameters)
    metrics = [name for name in metrics if name and name != ranking.metric]
    if ranking.metric:
        metrics.append(ranking.metric)
    least = min(2, max((one.found.n for one in entries), default=1))
    style = style_of(runs, ranking.metric)
    lines = [_line(one, parameters, metrics, ranking.over, style) for one in entries]
    means = [_means(name, style_of(runs, name), least) for name in metrics]
    named = [parameter(key, short[key], runs) for key in parameters]
    board = Board("", "", named, lines, better)
    if not fit([*named, own("n"), *means[-1:], VERDICT], board, width):
        named = [NAME]
    columns = [
        *named,
        own("n"),
        own("missing", left=True),
        *means,
        Column(("Meta", "interval"), "95%", right=False),
        Column(("Meta", "behind"), "behind", right=False),
        VERDICT,
    ]
    return Sheet(
        title,
        base_of(runs, ranking.over),
        columns,
        lines,
        better,
        conclusion(ranking),
        remarks(ranking),
        shown(ranking, additions(ranking)),
        statuses_of(runs),
    )


def _means(name: str, style: str, least: int) -> Means:
    return Means(("metrics", name), name.replace(".", " "), style, least=least)


def _line(
    one: Ranked, parameters: Sequence[str], metrics: Sequence[str], over: Sequence[str], style: str
) -> Line:
    own_values = {
        "n": str(one.found.n),
        "missing": missing(one, metrics[-1] if metrics else ""),
        "interval": _interval(one.found.interval, style),
        "behind": _behind(one.found, style),
        "verdict": one.verdict,
        "name": one.name,
        **cells(one.setting, parameters),
    }
    means = {name: one.setting.summary(name, over) for name in metrics}
    return Line(_status(one.setting), {"Meta": own_values, "metrics": means})


def missing(one: Ranked, metric: str) -> str:
    """`1 running, 1 failed, 1 without a value`: the runs that are in no mean."""
    words = [unfinished_of(one.setting)]
    without = [run for run in one.setting.finished if not is_finite(run, metric)]
    if without:
        words.append(f"{len(without)} without a value")
    return ", ".join(filter(None, words))


def unfinished_of(setting: Setting) -> str:
    """`1 running, 1 failed`."""
    return counted(statuses_of(_unfinished(setting)), ", ")


def _unfinished(setting: Setting) -> list[Run]:
    return [run for run in setting.runs if not run.finished]


def _interval(interval: Interval | None, style: str) -> str:
    if interval is None:
        return ""
    low, high = interval
    style = style or ".1f"
    return f"[{low:{style}}, {high:{style}}]"


def _behind(found: Comparison, style: str) -> str:
    """`0.0120 [0.0041, 0.0199]`; empty for the best setting."""
    if not found.difference:
        return ""
    interval = _interval(found.difference_interval, style)
    return f"{found.difference:{style or '.1f'}} {interval}".strip()


def _status(setting: Setting) -> Status:
    """The status of its first unfinished run. It gives the line of the setting its colour."""
    unfinished = statuses_of(_unfinished(setting))
    return unfinished[0] if unfinished else Status(State.COMPLETED)
