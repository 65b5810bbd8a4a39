"""The rules for a key of the configuration: whether it is there, and whether a value fits it.

The same rules apply to overrides (compose.py) and to recipes (recipes.py). A configuration is a
plain nested dict here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError, did_you_mean, near, shortened
from .values import coerced, dotted_keys, is_interpolation

MISSING = object()


def at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or `MISSING`."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping):
            return MISSING
        value = value.get(part, MISSING)
    return value


def is_open(defaults: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one whose default is `{}`. Such a dict takes any keyword."""
    return {} in _values_above(defaults, key)


def has_no_room(config: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one that holds a value. A dict would replace that value."""
    for value in _values_above(config, key):
        if value is not None and value is not MISSING and not isinstance(value, Mapping):
            return True
    return False


def takes_a_dict(defaults: Mapping[str, Any], key: str) -> bool:
    """Whether `key` lies below one whose default is blank. That takes a dict as well as a value."""
    return None in _values_above(defaults, key)


def _values_above(config: Mapping[str, Any], key: str) -> list[Any]:
    """The values at `a` and `a.b` for `a.b.c`, or `MISSING`."""
    parts = key.split(".")
    return [at(config, ".".join(parts[:end])) for end in range(1, len(parts))]


def unknown(key: str, config: Mapping[str, Any], groups: Iterable[str] = ()) -> UserError:
    """The error for a key that `config` does not have.

    Args:
        groups: of the configuration. Their names can be overridden like keys.
    """
    known = dotted_keys(config)
    section = key.rpartition(".")[0]
    has = at(config, section)
    valid = ""
    if section and isinstance(has, Mapping):
        valid = f"{section} has: {shortened(has)}."
    elif not near(key, known):
        top_level = {group for group in groups if "/" not in group}
        valid = f"the keys are: {shortened(sorted({*config, *top_level}), 30)}."
    return UserError(f'unknown key "{key}"{did_you_mean(key, [*known, *groups])}', valid)


# Keys whose null means something, though their default is a number. With this one null,
# val_check_interval counts batches across epochs.
MAY_BE_NULL = ("trainer.check_val_every_n_epoch",)


def fitted(key: str, value: object, default: object, text: str) -> object:
    """`value` as the type of the key's default. In a dict, each value gets the type of its key.

    Args:
        text: the value as the user wrote it.

    Raises:
        UserError: it does not fit, or a dict has a key that the default lacks.
    """
    if value is None and key in MAY_BE_NULL:
        return None
    if not (isinstance(default, dict) and isinstance(value, dict)):
        return coerced(key, value, default, text)
    if not default:
        return value
    known = [f"{key}.{name}" for name in default]
    for name in value:
        path = f"{key}.{name}"
        if name not in default:
            raise UserError(f'unknown key "{path}"{did_you_mean(path, known)}')
    result = {}
    for name, inner in value.items():
        result[name] = fitted(f"{key}.{name}", inner, default[name], str(inner))
    return result


def refuse_names(key: str, value: object, text: str) -> None:
    """Refuse a dict with a key that JSON would give back as another one.

    Args:
        value: of the override. Dicts are looked for in it at any depth.
        text: the value as the user wrote it.

    Raises:
        UserError: a key is no text, or has a dot.
    """
    if isinstance(value, list):
        for inner in value:
            refuse_names(key, inner, text)
    if not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        if not isinstance(name, str) or "." in name:
            raise UserError(f"{key}={text}: the key {name!r} of a dict must be text without a dot.")
        refuse_names(key, inner, text)


def holds_interpolation(value: object) -> bool:
    """Whether `${...}` stands anywhere in `value`."""
    if isinstance(value, Mapping):
        return any(map(holds_interpolation, value.values()))
    if isinstance(value, list):
        return any(map(holds_interpolation, value))
    return is_interpolation(value)
