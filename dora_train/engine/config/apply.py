"""Puts the values of overrides into a configuration, by the rules of the command line."""

from collections.abc import Collection, Mapping
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from .bases import as_written
from .keys import MISSING, at, fitted, has_no_room, is_open, refuse_names, unknown
from .limits import TAKES


def apply(
    cfg: DictConfig, override: Override, defaults: Mapping[str, Any], groups: Collection[str]
) -> None:
    """Put the value of one override into `cfg`, or remove its key (`~KEY`).

    Args:
        defaults: the configuration without overrides, as it is written.
        groups: the names of the configuration's groups, for a hint.

    Raises:
        UserError: the key is unknown, or the value does not fit.
    """
    key = override.key_or_group
    current = _at_as_written(cfg, key)
    if override.is_delete():
        if current is MISSING:
            raise unknown(key, as_written(cfg), groups)
        section, _, name = key.rpartition(".")
        parent = OmegaConf.select(cfg, section) if section else cfg
        del parent[name]
        return
    text = str(override.input_line).partition("=")[2]
    value: object = override.value()
    refuse_names(key, value, text)
    if current is MISSING:
        _refuse_unknown(cfg, override, text, defaults, groups)
    elif override.is_add() and not isinstance(current, dict):
        raise UserError(f'"{override.input_line}": {key} is there already; leave out the "+".')
    else:
        # A key takes what its default takes, also if a recipe has put a value of another type here.
        default = at(defaults, key)
        if default is MISSING or isinstance(default, dict):
            default = current
        value = fitted(key, value, default, text)
    OmegaConf.update(cfg, key, value, merge=True, force_add=True)


def _refuse_unknown(
    cfg: DictConfig,
    override: Override,
    text: str,
    defaults: Mapping[str, Any],
    groups: Collection[str],
) -> None:
    """Refuse a key that is not in `cfg`, unless the override adds it.

    Raises:
        UserError: the key is unknown, or would replace a value.
    """
    key, config = override.key_or_group, as_written(cfg)
    adds = override.is_add() or override.is_force_add() or is_open(defaults, key)
    if adds and not has_no_room(config, key):
        return
    if key in TAKES:  # Lightning knows it, or a project has deleted it from its configuration
        raise UserError(f"{key} is not listed in conf/: write +{key}={text}.")
    raise unknown(key, config, groups)


def _at_as_written(cfg: DictConfig, key: str) -> object:
    """`at(as_written(cfg), key)`, without making all of `cfg` plain."""
    value: Any = cfg
    for part in key.split("."):
        # `in value` is False for a value of ???
        if not OmegaConf.is_dict(value) or part not in value.keys():
            return MISSING
        value = dict(value.items_ex(resolve=False, keys=[part]))[part]
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=False)
    return value
