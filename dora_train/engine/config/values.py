"""A configuration as plain nested dicts: dotted keys, values that count in a signature, values that
fit a default, differences.

It needs the standard library alone. `compose.py` makes such dicts. Loggers, the grid and the report
read them.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from typing import Any, TypeGuard

from ..errors import UserError

Delta = list[tuple[str, Any]]

# What a key takes besides true and false, though its default is one of them.
WORDS = {"data.flip": ("alternate",)}


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys with their values. Lists and empty dicts are values.

    >>> list(flatten({"a": {"b": 1, "c": {}}}))
    [('a.b', 1), ('a.c', {})]
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dotted_keys(config: Mapping[str, Any]) -> list[str]:
    """The keys that `flatten` gives."""
    return [key for key, _ in flatten(config)]


def unflatten(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    config: dict[str, Any] = {}
    for key, value in pairs:
        *parents, leaf = key.split(".")
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = value
    return config


def key_of(override: str) -> str:
    """The dotted key, or the group, of an override.

    >>> key_of("+a.b=1")
    'a.b'
    """
    return override.partition("=")[0].lstrip("+~").strip()


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A new dict with the keys of both. Where both have a value, that of `above` wins.

    An empty dict is a value: it leaves no key of `below`.
    """
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        if value and isinstance(value, Mapping) and isinstance(inner, Mapping):
            result[key] = merged(inner, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def split(
    config: Mapping[str, Any], exclude: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part of `config` that counts in the signature, and the rest.

    Args:
        exclude: patterns of the keys that do not count, as in `dora.exclude`.
    """
    return _split(config, tuple(exclude), "")


def _split(
    config: Mapping[str, Any], exclude: tuple[str, ...], prefix: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    counted: dict[str, Any] = {}
    excluded: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            inner, rest = _split(value, exclude, f"{prefix}{key}.")
            if inner:
                counted[key] = inner
            if rest:
                excluded[key] = rest
        elif _matches(f"{prefix}{key}", exclude):
            excluded[key] = value
        else:
            counted[key] = value
    return counted, excluded


def is_excluded(key: str, exclude: Sequence[str]) -> bool:
    """Whether one of the patterns of `dora.exclude` takes this dotted key out of the signature."""
    return _matches(key, tuple(exclude))


def never_counts(key: str, exclude: Sequence[str]) -> bool:
    """Whether an override of this key cannot count: `slurm={gpus: 1}` is all of `slurm.*`."""
    return is_excluded(key, exclude) or is_excluded(f"{key}.*", exclude)


@lru_cache(maxsize=10_000)
def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    """Cached: a grid asks a thousand times for the same seventy keys."""
    return any(fnmatch(key, pattern) for pattern in patterns)


def coerced(key: str, value: object, default: object, text: str) -> object:
    """`value` as the type of the key's default, if nothing is lost by it.

    A key whose default is null takes any value.

    Args:
        text: the value as the user wrote it, for a key that holds text.

    Raises:
        UserError: the value does not fit.
    """
    if default is None or is_interpolation(value) or is_interpolation(default) or value == "???":
        return value
    if isinstance(default, bool):
        fits = isinstance(value, bool) or value in WORDS.get(key, ())
    elif isinstance(default, int):
        fits = is_number(value) and float(value).is_integer()
    elif isinstance(default, float):
        fits = is_number(value)
    elif isinstance(default, str):
        fits = value is None or isinstance(value, (str, int, float))
    elif isinstance(default, dict):
        fits = value is None or isinstance(value, dict)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        remark = f" (default: {_shown(default)})."
        if isinstance(default, dict) and "name" in default:
            remark = f". Did you mean {key}.name={text}?"
        raise UserError(f"{key}={text}: it takes {_kind(key, default)}{remark}")
    return _converted(value, default, text)


def _converted(value: object, default: object, text: str) -> object:
    """A value that fits a default, as its type."""
    if is_number(value) and not isinstance(default, bool):
        if isinstance(default, int):
            return int(value)
        if isinstance(default, float):
            return float(value)
    if isinstance(default, str) and value is not None and not isinstance(value, str):
        return text
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a number. True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_interpolation(value: object) -> bool:
    return isinstance(value, str) and "${" in value


def _kind(key: str, default: object) -> str:
    if key in WORDS:
        return f"true, false or {' or '.join(WORDS[key])}"
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list: [a,b]",
        dict: "a dict: {key: value}",
    }
    return kinds.get(type(default), type(default).__name__)


def _shown(value: object) -> str:
    """A value in a message, with true and false as YAML writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def differences(base: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> Delta:
    """The dotted keys of `other` whose value is not that of `base`, as stock Dora lists them.

    A key that is gone is listed as `~key`.
    """
    delta: Delta = []
    for key in [*base, *(key for key in other if key not in base)]:
        path = f"{prefix}{key}"
        if key not in other:
            delta.append((f"~{path}", None))
        elif key in base and isinstance(base[key], Mapping) and isinstance(other[key], Mapping):
            delta += differences(base[key], other[key], f"{path}.")
        elif key not in base or not _equal(base[key], other[key]):
            delta.append((path, other[key]))
    return delta


def same(one: object, other: object) -> bool:
    """Whether two values are equal. A NaN equals a NaN."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


def _equal(one: object, other: object) -> bool:
    """Whether two values are equal and of one type. All numbers are of one type."""
    same_type = type(one) is type(other) or (is_number(one) and is_number(other))
    return same_type and one == other
