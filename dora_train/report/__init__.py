"""Experiments compared: `python -m dora_train.report NAME...`, and `frame` for notebooks.

It reads stored files alone. A map: nothing is imported here unless it is needed, and nothing of
it imports torch, Dora, Hydra or Lightning.

    __main__.py    the command
    report.py      from names and options to what is shown
    names.py       which experiments a name means
    runs.py        one experiment, as its folder has it
    parameters.py  which values tell runs apart
    query.py       --where, --sort
    settings.py    runs that differ in their seed alone, together
    verdict.py     `compare`: which setting is the best, and which are worse
    max_t.py       the statistics behind it
    ranking.py     the settings of a report, compared by one metric
    conclusion.py  what a ranking says, in words
    additions.py   the seeds that would decide it, as lines of a grid file
    marks.py       the verdict in a live table
    sheet.py       the table of runs; ranking_sheet.py: of settings
    records.py     the same for programs
    formats.py     text, CSV, Markdown, LaTeX, JSON
    page.py        the page of --html; assets/ is its look and its script
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
    """Which setting is the best, and which are worse: see `verdict.compare`, which this is.

    Args:
        values: {setting: {seed: value}}.
        mode: "max" if larger values are better, "min" if smaller ones are.
        level: the probability of calling any setting worse if all are equal.
    """
    from . import verdict

    return verdict.compare(values, mode, level)


def frame(*names: str, over: Sequence[str] = (), where: Sequence[str] = ()) -> "DataFrame":
    """Experiments as a pandas DataFrame: a row each, with its state, parameters and metrics.

    Args:
        names: grids, or beginnings of signatures; none: every experiment.
        over: keys to group over, e.g. `["seed"]`: a row is then a setting. Its metrics are
            `test.acc.mean`, `.std`, `.n`, `.low`, `.high`, and the verdict stands beside them.
        where: conditions, e.g. `["optim.lr=0.1"]`.

    Raises:
        UserError: a name or a condition means nothing; pandas is not installed.
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
    return pandas.DataFrame(flattened(report.records()))
