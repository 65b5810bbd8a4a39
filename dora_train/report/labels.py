"""A short name for each run or setting: the few values that tell it from the others."""

from collections.abc import Mapping, Sequence

from .parameters import canonical, text, titles
from .runs import Run

FEW = 3  # values in the name of a run that stands alone

# Sets of runs as bits of an integer: by key, then by value.
Sets = Mapping[str, Mapping[str, int]]


def labels(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """A name for each run: `lr=0.1 model=small`.

    No other run has all the values of a name, as long as `keys` tell the runs apart. Each name has
    few values, and its keys are in the order of `keys`.

    Args:
        runs: one for each setting.
        keys: the keys that differ, the most important ones first.
    """
    short = titles(keys)
    sets: dict[str, dict[str, int]] = {key: {} for key in keys}
    for at, run in enumerate(runs):
        for key, of_key in sets.items():
            value = canonical(run.value(key))
            of_key[value] = of_key.get(value, 0) | 1 << at
    found = []
    for at, run in enumerate(runs):
        chosen = keys[:FEW]
        if len(runs) > 1:
            chosen = _telling(run, at, len(runs), keys, sets)
        found.append(" ".join(pair(short[key], run.value(key)) for key in chosen) or "(defaults)")
    return found


def _telling(run: Run, at: int, count: int, keys: Sequence[str], sets: Sets) -> list[str]:
    """The keys whose values tell one run from the others. Keys without a value are a last resort.

    It takes the key that rules out the most of the others, again and again.

    Args:
        at: the place of the run among all of them, of which there are `count`.
    """
    same = {key: sets[key][canonical(run.value(key))] for key in keys}
    others = (1 << count) - 1 & ~(1 << at)
    with_value = [key for key in keys if run.value(key) is not None]
    chosen: list[str] = []
    for candidates in (with_value, keys):
        while others and candidates:
            # of two keys that rule out as many, the one that the run changes of its default
            key = min(
                candidates,
                key=lambda key: ((others & same[key]).bit_count(), key not in run.delta),
            )
            if others & same[key] == others:
                break
            chosen.append(key)
            others &= same[key]
    return sorted(chosen, key=keys.index)


def pair(title: str, value: object) -> str:
    """`lr=0.1`, in one line: a value may hold line breaks. A blank value is `null`."""
    shown = "null" if value is None else " ".join(text(value).split())
    return f"{title}={shown}"
