"""Which values tell experiments apart, and what those columns are called."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .runs import Run


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys whose values differ; of a single run: what it changes of the defaults.

    What a choice (`data=cifar10`) brings along is left out: the choice says it. A default that was
    edited between two runs is not, though neither names it.
    """
    if len(runs) == 1:
        return list(runs[0].delta)
    choices = list(dict.fromkeys(key for run in runs for key in run.choices))
    named = dict.fromkeys(key for run in runs for key in run.delta)
    keys = dict.fromkeys([*named, *(key for run in runs for key in run.config)])
    chosen = [frozen([run.value(choice) for choice in choices]) for run in runs]
    return [
        key
        for key in keys
        if _varies(runs, key) and (key in named or not _follows(runs, key, chosen))
    ]


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len({frozen(run.value(key)) for run in runs}) > 1


def _follows(runs: Sequence[Run], key: str, chosen: Sequence[str]) -> bool:
    """Whether runs with the same choices have the same value."""
    return len({(choice, frozen(run.value(key))) for run, choice in zip(runs, chosen)}) == len(
        set(chosen)
    )


def shared(runs: Sequence[Run]) -> dict[str, Any]:
    """What all of them change of the defaults."""
    if len(runs) < 2:
        return {}
    return {
        key: value
        for key, value in runs[0].delta.items()
        if all(key in run.delta and frozen(run.delta[key]) == frozen(value) for run in runs)
    }


def setting(run: Run, over: Sequence[str] = ()) -> str:
    """Equal for runs whose values differ in `over` at most."""
    values = {**run.choices, **run.config}
    return frozen({key: value for key, value in values.items() if key not in over})


def frozen(value: Any) -> str:
    """1 and 1.0 are the same value."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def titles(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last part, where that names one of them only, and says something by itself.

    >>> titles(["optim.lr", "schedule.name"])
    {'optim.lr': 'lr', 'schedule.name': 'schedule.name'}
    """
    ends = [key.rpartition(".")[2] for key in keys]
    return {
        key: end if ends.count(end) == 1 and end != "name" else key for key, end in zip(keys, ends)
    }


def text(value: Any) -> str:
    """A value as one types it:

    `0.1`, `1e+09`, `true`, `[1, 2]`; null, and a key that is not there, are empty.
    """
    if isinstance(value, float):
        return next(
            short
            for short in (f"{value:g}", repr(value))
            if math.isnan(value) or float(short) == value
        )
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def names(each: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """A name for each: `lr=0.1 model=small`. Numbers have four digits if that tells them apart."""
    short = titles(keys)
    found = [_named(one, short, brief) for one in each]
    if len(set(found)) < len(found):
        found = [_named(one, short, text) for one in each]
    return found


def _named(one: Run, short: Mapping[str, str], form: Callable[[Any], str]) -> str:
    """Keys without a value are left out."""
    known = {key: one.value(key) for key in short}
    words = " ".join(
        f"{short[key]}={form(value)}" for key, value in known.items() if value is not None
    )
    return " ".join(words.split()) or "(defaults)"


def brief(value: Any) -> str:
    """For a sentence and a legend: four digits."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)
