"""The values of today for an experiment that comes in by its signature (`-f SIG`).

The values that count are frozen (drift.py). The rest, such as `logger` and `data.num_workers`, come
from today's configuration. It is composed for an experiment like this one: with its data set, its
recipe, and its own overrides of such keys. A choice or override that no longer composes is left
out, and the user is told.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..config import limits
from ..config.compose import Composed, Composer
from ..config.values import flatten, key_of, never_counts, split, unflatten
from ..errors import UserError
from .records import Birth


def todays_values(
    composer: Composer, birth: Birth, exclude: Sequence[str], extra: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of today for a stored experiment, to be put below its frozen ones.

    Args:
        exclude: patterns of the keys that do not count.
        extra: overrides that were given with the signature. They win over the experiment's own.

    Returns:
        The values, and a line for each choice or override of the experiment that was left out.

    Raises:
        UserError: the configuration is broken, or has no place for an override of `extra`.
    """
    wanted = [f"{group}={option}" for group, option in chosen(composer, birth, exclude).items()]
    groups = _composing(composer, [], wanted)
    own = []
    for text in birth.argv:
        if key_of(text) not in composer.groups and never_counts(key_of(text), exclude):
            own.append(text)
    kept = _composing(composer, groups, own)
    values = _compose(composer, [*groups, *kept, *extra]).values
    named = set(map(key_of, [*kept, *extra]))
    for text in wanted:
        if text not in groups:
            # Today's option of this group has other keys: the frozen values must not mix with them.
            values = _without_section(values, _section(key_of(text)), named)
    left_out = [text for text in (*wanted, *own) if text not in groups and text not in kept]
    reason = "no longer fits the configuration: left out; what counts is frozen"
    return values, [f"{text} {reason}" for text in left_out]


def chosen(composer: Composer, birth: Birth, exclude: Sequence[str]) -> dict[str, Any]:
    """The option of each group that the experiment was made with, if it is not today's default."""
    found = birth.groups
    if not found:  # an older version did not store them
        named = {}
        for text in birth.argv:
            if key_of(text) in composer.groups:
                named[key_of(text)] = text.partition("=")[2]
        found = _inferred(composer, birth, named, exclude) | named
    defaults = composer.choices
    others = {}
    for group, option in found.items():
        if option is not None and option != defaults.get(group):
            others[group] = _text(option)
    return others


def _inferred(
    composer: Composer, birth: Birth, named: Mapping[str, str], exclude: Sequence[str]
) -> dict[str, str]:
    """The options that fit the frozen values best, for groups that the overrides do not name.

    The default option may have changed since. Then its keys differ from the frozen ones.
    """
    found: dict[str, str] = {}
    for group, default in composer.choices.items():
        frozen = _keys(birth.config, group, exclude)
        if default is None or group in named or not frozen:
            continue
        # The default first: `min` takes the first of equals.
        options = sorted(composer.groups[group], key=lambda name: name != default)
        misfits = {name: _misfit(composer, named, group, name, frozen, exclude) for name in options}
        found[group] = min(misfits, key=misfits.__getitem__)
    return found


def _misfit(
    composer: Composer,
    named: Mapping[str, str],
    group: str,
    option: str,
    frozen: Mapping[str, Any],
    exclude: Sequence[str],
) -> tuple[float, int]:
    """How badly an option of a group fits the frozen values. Less is better.

    Returns:
        (number of keys that only one of the two has, number of keys with another value).
    """
    overrides = [f"{key}={value}" for key, value in named.items()]
    try:
        values = composer.compose([*overrides, f"{group}={option}"]).values
    except UserError:
        return float("inf"), 0
    found = _keys(values, group, exclude)
    other = [key for key in found if key in frozen and found[key] != frozen[key]]
    return len(set(found) ^ set(frozen)), len(other)


def _keys(values: Mapping[str, Any], group: str, exclude: Sequence[str]) -> dict[str, Any]:
    """The dotted keys of a group's section that count, with their values."""
    counted = split(values, exclude)[0]
    return {key: value for key, value in flatten(counted) if key.startswith(f"{_section(group)}.")}


def _composing(composer: Composer, below: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Those of `overrides` that the configuration takes, on top of `below`."""
    if _composes(composer, [*below, *overrides]):
        return list(overrides)
    return [text for text in overrides if _composes(composer, [*below, text])]


def _compose(composer: Composer, overrides: Sequence[str]) -> Composed:
    """The configuration with these overrides.

    Raises:
        UserError: it has no place for one of them.
    """
    composed = composer.compose(overrides)
    limits.check_changes(composed.delta, composer.defaults)
    return composed


def _composes(composer: Composer, overrides: Sequence[str]) -> bool:
    try:
        _compose(composer, overrides)
    except UserError:
        return False
    return True


def _without_section(values: Mapping[str, Any], section: str, named: set[str]) -> dict[str, Any]:
    """The values without the keys of a section. Keys in `named` stay."""
    kept = []
    for key, value in flatten(values):
        if not key.startswith(f"{section}.") or key in named:
            kept.append((key, value))
    return unflatten(kept)


def _section(group: str) -> str:
    """Where Hydra puts a group's keys, unless its file says something else."""
    return group.replace("/", ".")


def _text(option: object) -> str:
    """An option as an override has it. It may be a list of files."""
    if isinstance(option, list):
        return f"[{','.join(option)}]"
    return str(option)
