"""The values that an experiment was made with, beside those of today.

The values that count are frozen: `drift` says which of them would be others now. An experiment that
comes in by its signature (`-f SIG`) takes the rest, such as `logger` and `data.num_workers`, from
today (`todays_values`): for an experiment like this one, with its data set, its recipe, and its own
overrides of such keys. What of that no longer composes is left out, and said.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import limits
from ..config.compose import Composed, Composer
from ..config.values import flatten, is_excluded, merged, same, split, unflatten
from ..errors import UserError
from .folder import Experiment
from .records import Birth


@dataclass
class Drift:
    """A key whose value would now be another one than when the experiment was made."""

    key: str
    was: Any
    now: Any  # None with `gone`
    gone: bool = False

    def __str__(self) -> str:
        now = "is gone" if self.gone else f"is {self.now} now"
        return f"{self.key} was {self.was}; it {now}"


def frozen_values(
    experiment: Experiment, config: Mapping[str, Any], counted: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the experiment was made with; for younger keys, what it did or first ran with.

    Args:
        config: the configuration that its birth has, with the keys that `as_stored` adds.
        counted: the values of today that count.
    """
    known = {key for key, _ in flatten(config)}
    if all(key in known for key, _ in flatten(counted)):  # mostly: no more files are read
        return config
    added: dict[str, Any] = {}
    for start in experiment.starts():
        added = start.added | added
    return merged(unflatten(list(added.items())), config)


def drift(
    frozen: Mapping[str, Any],
    counted: Mapping[str, Any],
    exclude: Sequence[str],
    younger: Collection[str] = (),
) -> list[Drift]:
    """The keys that were frozen with another value than today's.

    A key that `dora.exclude` has taken in since does not count.

    Args:
        frozen: as `frozen_values` gives them.
        counted: the values of today that count.
        younger: keys that `as_stored` has added; they are as they always were.
    """
    now = dict(flatten(counted))
    found = []
    for key, was in flatten(frozen):
        if is_excluded(key, exclude) or key in younger:
            continue
        if key not in now or not same(now[key], was):
            found.append(Drift(key, was, now.get(key), key not in now))
    return found


def todays_values(
    composer: Composer, birth: Birth, exclude: Sequence[str], extra: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of today for a stored experiment, to be put below its frozen ones.

    Args:
        exclude: patterns of the keys that do not count.
        extra: overrides that were given with the signature; they win over the experiment's own.

    Returns:
        The values, and a line for each choice or override of the experiment that was left out.

    Raises:
        UserError: the configuration is broken, or has no place for an override of `extra`.
    """
    wanted = [f"{group}={option}" for group, option in chosen(composer, birth, exclude).items()]
    groups = _composing(composer, [], wanted)
    own = [
        text
        for text in birth.argv
        if _key(text) not in composer.groups and is_excluded(_key(text), exclude)
    ]
    kept = _composing(composer, groups, own)
    values = _compose(composer, [*groups, *kept, *extra]).values
    gone = [text for text in wanted if text not in groups]
    named = {_key(text) for text in (*kept, *extra)}
    for text in gone:
        values = _emptied(values, _section(_key(text)), named)
    left_out = [text for text in (*wanted, *own) if text not in groups and text not in kept]
    return values, [
        f"{text} no longer fits the configuration: left out; what counts is frozen"
        for text in left_out
    ]


def chosen(composer: Composer, birth: Birth, exclude: Sequence[str]) -> dict[str, Any]:
    """The option of each group that the experiment was made with, where it is not today's
    default."""
    found = birth.groups
    if not found:  # it was made before that was stored
        found = {
            _key(text): text.partition("=")[2]
            for text in birth.argv
            if _key(text) in composer.groups
        }
        found = _inferred(composer, birth, found, exclude) | found
    defaults = composer.choices
    return {
        group: _text(option)
        for group, option in found.items()
        if option is not None and option != defaults.get(group)
    }


def _inferred(
    composer: Composer, birth: Birth, named: Mapping[str, str], exclude: Sequence[str]
) -> dict[str, str]:
    """The options that fit the frozen values best, for groups that the overrides do not name.

    A default data set may be another one since: then its keys are not those that were frozen.
    """
    found: dict[str, str] = {}
    for group, default in composer.choices.items():
        frozen = _keys(birth.config, group, exclude)
        if default is None or group in named or not frozen:
            continue
        options = sorted(composer.groups[group], key=lambda name: name != default)
        misfits = {name: _misfit(composer, named, group, name, frozen, exclude) for name in options}
        found[group] = min(options, key=lambda name: misfits[name])  # of equals the default
    return found


def _misfit(
    composer: Composer,
    named: Mapping[str, str],
    group: str,
    option: str,
    frozen: Mapping[str, Any],
    exclude: Sequence[str],
) -> tuple[float, int]:
    """(keys that only one of the two has, keys with another value); the less the better."""
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
    """Raises: UserError if the configuration has no place for one of them."""
    composed = composer.compose(overrides)
    limits.check_changes(composed.delta, composer.defaults)
    return composed


def _composes(composer: Composer, overrides: Sequence[str]) -> bool:
    try:
        _compose(composer, overrides)
    except UserError:
        return False
    return True


def _emptied(values: Mapping[str, Any], section: str, named: set[str]) -> dict[str, Any]:
    """Without a section's keys, which are those of another option; those that were named stay."""
    return unflatten(
        [
            (key, value)
            for key, value in flatten(values)
            if not key.startswith(f"{section}.") or key in named
        ]
    )


def _section(group: str) -> str:
    """Where Hydra puts a group's keys, unless its file says something else."""
    return group.replace("/", ".")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").strip()


def _text(option: Any) -> str:
    return f"[{','.join(option)}]" if isinstance(option, list) else str(option)
