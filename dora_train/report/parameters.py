"""Which values tell experiments apart, and how those columns are titled."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from .runs import Run

SEED = "seed"
PLAIN = (str, int, float, bool, type(None))


def differing(runs: Sequence[Run], over: Sequence[str] = ()) -> list[str]:
    """The keys whose values differ, or those that a single run changes of the defaults.

    Keys of `over` are left out, since runs are grouped over them. The values that a choice
    (`data=cifar10`) brings along are left out too, because the choice has a column of its own. A
    default that was edited between two runs is listed, although no run names it.
    """
    keys = list(runs[0].delta) if len(runs) == 1 else _differing(runs)
    return [key for key in keys if key not in over]


def _differing(runs: Sequence[Run]) -> list[str]:
    # Runs with equal choices may differ in a value that no run names, if a default was edited.
    choices: dict[str, Any] = {}
    named: dict[str, Any] = {}
    configured: dict[str, Any] = {}
    for run in runs:
        choices |= run.choices
        named |= run.delta
        configured |= run.config
    chosen = [tuple(identity(run.value(key)) for key in choices) for run in runs]
    varying = _varying(runs)
    found = []
    for key in named | configured:
        if key in varying and (key in named or not _follows(runs, key, chosen)):
            found.append(key)
    return found


def _varying(runs: Sequence[Run]) -> set[str]:
    """The keys that do not have the same value in all runs."""
    first = runs[0].by_key
    found: set[str] = set()
    for run in runs:
        for key in first.keys() - run.by_key.keys():
            if first[key] is not None:  # a key that is missing is as a blank one
                found.add(key)
        for key, value in run.by_key.items():
            known = first.get(key)
            # the common case first: there may be thousands of runs
            if type(value) is type(known) and type(value) in PLAIN and value == known:
                continue
            if key not in found and identity(value) != identity(known):
                found.add(key)
    return found


def _follows(runs: Sequence[Run], key: str, chosen: Sequence[Hashable]) -> bool:
    """Whether runs with the same choices have the same value.

    Args:
        chosen: the choices of each run.
    """
    by_choice: dict[Hashable, object] = {}
    for run, choice in zip(runs, chosen):
        value = identity(run.value(key))
        if by_choice.setdefault(choice, value) != value:
            return False
    return True


def by_separation(groups: Sequence[Sequence[Run]], keys: Iterable[str]) -> list[str]:
    """The keys in the order of how many pairs of runs they tell apart.

    The seed comes last. It tells all runs apart, and says nothing of a setting.

    Args:
        groups: only runs of the same group are compared.
    """
    return sorted(
        keys, key=lambda key: (key == SEED, -sum(_separated(runs, key) for runs in groups))
    )


def _separated(runs: Sequence[Run], key: str) -> int:
    """The number of ordered pairs of runs with different values."""
    counts = Counter(identity(run.value(key)) for run in runs)
    return len(runs) ** 2 - sum(count**2 for count in counts.values())


def shared(runs: Sequence[Run]) -> dict[str, Any]:
    """The values that all runs change of the defaults, and in the same way."""
    if len(runs) < 2:
        return {}
    common = dict(runs[0].delta)
    for run in runs[1:]:
        for key in list(common):  # a copy, as keys are removed
            if key not in run.delta or identity(run.delta[key]) != identity(common[key]):
                del common[key]
    return common


def setting(run: Run, over: Sequence[str] = ()) -> str:
    """A text that is equal for runs whose values differ in the keys of `over` at most."""
    values = {**run.choices, **run.config}
    return canonical({key: value for key, value in values.items() if key not in over})


def values_of(run: Run, keys: Iterable[str]) -> str:
    """A text that is equal for runs with the same values of these keys."""
    return canonical(list(map(run.value, keys)))


def canonical(value: object) -> str:
    """A text that is equal for equal values. 1 and 1.0 are equal."""
    # str: YAML also has types that JSON does not know, such as dates
    return json.dumps(_plain(value), sort_keys=True, default=str)


def identity(value: object) -> Hashable:
    """Equal for the values whose `canonical` text is equal. A number or a text is its own."""
    if value is None or type(value) in (int, str) or (type(value) is float and value == value):
        return value  # type: ignore[return-value]  # all of these have a hash
    return type(value), canonical(value)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return list(map(_plain, value))
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
        short, whole = f"{value:g}", repr(value)  # six digits, and all of them
        if math.isnan(value):
            return short
        return short if float(short) == value and len(short) <= len(whole) else whole
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return ""
    return str(value)


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """The values as `text` writes them, by the same keys."""
    return {key: text(value) for key, value in values.items()}
