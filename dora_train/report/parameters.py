"""Which values tell experiments apart, and how those columns are titled."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .runs import Run, keys_of


def differing(runs: Sequence[Run]) -> list[str]:
    """The keys whose values differ, or those that a single run changes of the defaults.

    The values that a choice (`data=cifar10`) brings along are left out, because the choice has a
    column of its own. A default that was edited between two runs is listed, although no run names
    it.
    """
    if len(runs) == 1:
        return list(runs[0].delta)
    choices = keys_of(run.choices for run in runs)
    named = keys_of(run.delta for run in runs)
    configured = keys_of(run.config for run in runs)
    chosen = [values_of(run, choices) for run in runs]
    found = []
    for key in dict.fromkeys([*named, *configured]):
        if _varies(runs, key) and (key in named or not _follows(runs, key, chosen)):
            found.append(key)
    return found


def _varies(runs: Sequence[Run], key: str) -> bool:
    return len({canonical(run.value(key)) for run in runs}) > 1


def _follows(runs: Sequence[Run], key: str, chosen: Sequence[str]) -> bool:
    """Whether runs with the same choices have the same value.

    Args:
        chosen: the choices of each run, as one text.
    """
    by_choice: dict[str, str] = {}
    for run, choice in zip(runs, chosen):
        value = canonical(run.value(key))
        if by_choice.setdefault(choice, value) != value:
            return False
    return True


def shared(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs change of the defaults, and in the same way."""
    if len(runs) < 2:
        return {}
    deltas = [run.delta for run in runs]
    return {key: value for key, value in deltas[0].items() if _all_have(deltas, key, value)}


def _all_have(deltas: Sequence[Mapping[str, Any]], key: str, value: object) -> bool:
    wanted = canonical(value)
    return all(key in delta and canonical(delta[key]) == wanted for delta in deltas)


def setting(run: Run, over: Sequence[str] = ()) -> str:
    """A text that is equal for runs whose values differ in the keys of `over` at most."""
    values = {**run.choices, **run.config}
    return canonical({key: value for key, value in values.items() if key not in over})


def values_of(run: Run, keys: Sequence[str]) -> str:
    """A text that is equal for runs with the same values of these keys."""
    return canonical([run.value(key) for key in keys])


def canonical(value: object) -> str:
    """A text that is equal for equal values. 1 and 1.0 are equal."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def titles(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last part if no other key ends with it, else the whole key.

    `name` says nothing by itself, so such a key is always whole.

    >>> titles(["optim.lr", "schedule.name"])
    {'optim.lr': 'lr', 'schedule.name': 'schedule.name'}
    """
    ends = [key.rpartition(".")[2] for key in keys]
    found = {}
    for key, end in zip(keys, ends):
        is_clear = ends.count(end) == 1 and end != "name"
        found[key] = end if is_clear else key
    return found


def text(value: object) -> str:
    """A value as one types it: `0.1`, `1e+09`, `true`, `[1, 2]`.

    The text is empty for null, and for a key that is not there.
    """
    if isinstance(value, float):
        short = f"{value:g}"  # six digits
        is_exact = math.isnan(value) or float(short) == value
        return short if is_exact else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def names(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """A name for each run: `lr=0.1 model=small`.

    Numbers have four digits if these are enough to tell the runs apart.
    """
    short = titles(keys)
    found = [_named(run, short, brief) for run in runs]
    if len(set(found)) < len(found):
        found = [_named(run, short, text) for run in runs]
    return found


def _named(run: Run, short: Mapping[str, str], form: Callable[[object], str]) -> str:
    """`lr=0.1 model=small`. Keys without a value are left out.

    Args:
        short: the title of each key.
    """
    words: list[str] = []
    for key, title in short.items():
        value = run.value(key)
        if value is not None:
            # A value may hold line breaks, but a name stands in one line.
            words += f"{title}={form(value)}".split()
    return " ".join(words) or "(defaults)"


def brief(value: object) -> str:
    """A value for a sentence or a legend: numbers have four digits."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)
