"""Experiments compared: `python -m dora_train.report NAME...`, and `frame` for notebooks.

The report only reads stored files. This page imports its parts only if they are needed, and none of
them imports torch, Dora, Hydra or Lightning.

    __main__.py    the command
    report.py      from names and options to runs, settings and tables
    names.py       which experiments a name stands for
    runs.py        one experiment, as its folder has it
    groups.py      runs that can be compared: the same data, the same metric
    section.py     such a group in a report: its order, its metrics, its ranking
    parameters.py  which values tell runs apart
    labels.py      short names of runs: the values that tell them apart
    query.py       --where, --sort, --last, --since
    settings.py    runs that differ only in their seed, together
    verdict.py     `compare`: which setting is the best, and which are worse
    max_t.py       the statistics behind it
    ranking.py     the settings of a report, compared by one metric
    conclusion.py  a ranking in words
    additions.py   the seeds that would decide it, as lines of a grid file
    marks.py       the verdict in a live table
    sheet.py       a table: run_sheet.py makes that of runs, ranking_sheet.py that of settings
    fit.py         which of its columns fit into a terminal
    records.py     the same for programs
    formats.py     text, CSV, Markdown, LaTeX, JSON
    page.py        the page of --html. assets/ holds its style and its scripts
    cards.py       a row of the page's table and a card for each run
    compact.py     the same for thousands of runs, in columns
    curves.py      the curves on the page
    trials.py      the searches on the page
    hiplot.py      the page of --hiplot
    diff.py        two experiments, or two settings, side by side
    watch.py       the live table
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pandas import DataFrame

    from .verdict import Comparison

K = TypeVar("K", bound=Hashable)  # a setting


def compare(
    values: Mapping[K, Mapping[Any, float | None]],
    mode: str = "max",
    level: float = 0.05,
) -> "dict[K, Comparison]":
    """The verdict on each setting: which is the best, and which are worse. See `verdict.compare`.

    Args:
        values: {setting: {seed: value}}.
        mode: "max" if larger values are better, "min" if smaller ones are.
        level: the probability of calling any setting worse if all are equal.
    """
    from . import verdict

    return verdict.compare(values, mode, level)


def frame(*names: str, over: Sequence[str] = (), where: Sequence[str] = ()) -> "DataFrame":
    """A pandas DataFrame with one row per experiment: its state, its parameters, its metrics.

    Args:
        names: grids, or beginnings of signatures. None: every experiment.
        over: keys to group over, e.g. `["seed"]`: a row is then a setting. Its metrics are
            `test.acc.mean`, `.std`, `.n`, `.low`, `.high`, and the verdict is a column.
        where: conditions, e.g. `["optim.lr=0.1"]`.

    Raises:
        UserError: a name or a key is unknown, or pandas is not installed.
    """
    from ..engine.errors import UserError
    from ..engine.experiment.find import outputs
    from ..engine.jobs.choose import asked
    from .records import flattened
    from .report import Report

    try:
        import pandas
    except ImportError:
        raise UserError(
            "a DataFrame needs pandas, which is not installed: pip install -r requirements-extra.txt",
            "without it: python -m dora_train.report NAME --format csv",
        ) from None
    report = Report(outputs(), names, where, over, executor=asked())
    made = pandas.DataFrame(flattened(report.records()), dtype=object)
    for name, column in made.items():
        known = column.dropna()
        if len(known) < len(column) and all(type(value) is int for value in known):
            # By itself, pandas makes floats of whole numbers with a blank among them, and rounds.
            made[name] = column.astype("Int64")
    return made.infer_objects()
