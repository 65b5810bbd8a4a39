"""Experiments compared: `python -m dora_train.report NAME...`, and `frame` for notebooks. Reads stored files alone.

A map. Nothing is imported here but on need, and nothing of it imports torch, Dora, Hydra or Lightning.

    __main__.py    the command
    report.py      from names and options to what is shown
    names.py       which experiments a name means
    runs.py        one experiment, as its folder has it
    parameters.py  which values tell runs apart
    query.py       --where, --sort
    settings.py    runs that differ in their seed alone, together; student.py: how far their mean can be trusted
    verdict.py     which setting is the best, and which are worse; max_t.py: the statistics behind it
    sheet.py       the table: columns and lines; records.py: the same for programs
    formats.py     text, CSV, Markdown, LaTeX, JSON
    page.py        the page of --html; assets/ is its look and its script; trials.py: the searches on it
    hiplot.py      the page of --hiplot
    diff.py        two experiments side by side
    watch.py       the live table
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from .verdict import Comparison


def compare(
    values: Mapping[Hashable, Mapping[Hashable, float | None]],
    mode: str = "max",
    level: float = 0.05,
) -> "dict[Hashable, Comparison]":
    """Which setting is the best, and which are worse: see `verdict.compare`, which this is.

    Args:
        values: {setting: {seed: value}}.
        mode: "max" if larger values are better, "min" if smaller ones are.
        level: the probability of calling any setting worse if all are equal.
    """
    from . import verdict

    return verdict.compare(values, mode, level)


def frame(*names: str, over: Sequence[str] = (), where: Sequence[str] = ()) -> "DataFrame":
    """Experiments as a pandas DataFrame: a row each, columns for its state, its parameters and its metrics.

    Args:
        names: grids, or beginnings of signatures; none: every experiment.
        over: keys to group over, e.g. `["seed"]`; the metrics are then `test.acc.mean`, `.std`, `.n`, `.low`, `.high`.
        where: conditions, e.g. `["optim.lr=0.1"]`.

    Raises:
        UserError: a name or a condition means nothing; pandas is not installed.
    """
    from ..engine.errors import UserError
    from ..engine.find import outputs
    from ..engine.grid.places import asked
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
