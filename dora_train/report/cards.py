"""The runs of the page: a row of the table each, and a card. Called by page.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.experiment.code import in_words
from ..engine.watch.board import epochs
from ..engine.watch.logs import log_of
from ..engine.watch.progress import duration, moment
from ..engine.watch.status import when
from ..engine.words import shown_path
from .parameters import text, texts
from .runs import Run

LARGEST = 2**53  # the largest whole number up to which a browser knows all
# A confusion matrix of more classes is not shown. Its most frequent confusions are.
MOST_CLASSES = 20
CONFUSIONS = 15


def card(run: Run, keys: Sequence[str], common: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a run, without its confusion matrix.

    Args:
        keys: the columns of the table.
        common: values that the card leaves out.
    """
    own = {key: value for key, value in run.config.items() if key not in common}
    return {
        "sig": run.sig,
        "state": str(run.status.state),
        "brief": str(run.status),
        "finished": run.finished,
        "cause": "" if run.finished else run.status.cause,
        "epochs": epochs(run.state, run.epochs),
        "values": texts(run.values(keys)),
        "metrics": {name: _exact(value) for name, value in run.metrics.items()},
        "started": run.times.started,
        "when": moment(run.times.started),
        "took": run.times.took,
        "duration": duration(run.times.took),
        "config": texts(own),
        "facts": _facts(run),
        "command": run.command,
    }


def _facts(run: Run) -> dict[str, str]:
    """Texts for the card of a run. Facts that are not known are left out."""
    times = run.times
    facts = {
        "epochs": epochs(run.state, run.epochs),
        "began": when(times.began),
        "ended": when(times.ended),
        "took": duration(times.took),
        "attempts": str(times.attempts) if times.attempts > 1 else "",
        "where": run.status.where,
    }
    facts["grids"] = ", ".join(run.grids)
    facts["bits"] = run.state.bits
    facts["code"] = in_words(run.codes)
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    facts["folder"] = shown_path(run.experiment.folder)
    log = log_of(run.experiment, run.experiment.job())
    if log:
        facts["log"] = shown_path(log)
    return {name: fact for name, fact in facts.items() if fact}


def common_values(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs have in common."""
    common = dict(runs[0].config)
    for run in runs[1:]:
        for key in list(common):  # a copy, as keys are removed
            # by their text: for Python, true is 1
            if key not in run.config or not _is_same(run.config[key], common[key]):
                del common[key]
    return common


def _is_same(one: object, other: object) -> bool:
    if type(one) is type(other) is str:
        return one == other
    return text(one) == text(other)


def _exact(value: float) -> float | str:
    """The value, as text if it is a whole number that a browser would round."""
    is_large = isinstance(value, int) and abs(value) > LARGEST
    return str(value) if is_large else value


def confusion(run: Run) -> dict[str, Any] | None:
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


def classes_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The names of the classes that each run told apart, by signature."""
    found: dict[str, list[str]] = {}
    for run in runs:
        inputs = run.experiment.inputs()
        if isinstance(inputs, dict) and isinstance(inputs.get("classes"), list):
            found[run.sig] = list(map(str, inputs["classes"]))
    return found
