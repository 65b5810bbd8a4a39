"""Composes a configuration in plain Python, if the overrides replace only single values.

OmegaConf takes milliseconds to update and resolve a configuration. Most experiments of a grid do
not need it: each override replaces one number, text, boolean or blank, and no interpolation depends
on this value. The result is then Hydra's configuration of the same groups, with these values put
in. `compose.py` tries this module first. If the answer is None, it uses OmegaConf.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import environment
from ..upstream.hydra import replaceable_leaves
from .keys import MISSING, at, fitted
from .values import Delta, differences, is_interpolation

# The two interpolations that this module understands: an environment variable, and another key.
VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,[\w./-]*)?\}", re.ASCII)
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}", re.ASCII)
SINGLE = (int, float, bool, str, type(None))


@dataclass
class Replaced:
    """A configuration in which only single values were replaced."""

    values: dict[str, Any]  # with interpolations resolved
    leaves: dict[str, Any]  # the new values, by dotted key
    changed: Delta  # the new values that differ from the base, in the order of the base


class Leaves:
    """The single values of one combination of groups, which is the base for overrides.

    Args:
        cfg: returns a copy of the configuration, as Hydra composes it.
        written: the same configuration as plain dicts, with interpolations as they are written.
    """

    def __init__(self, cfg: Callable[[], DictConfig], written: Mapping[str, Any]):
        self._cfg, self._written = cfg, written
        self._places: dict[str, int] = {}  # the position of each value that can be replaced
        self._defaults: dict[str, Any] = {}  # the default of each key, which fixes its type
        # the resolved base, pickled, by the values of the environment variables that it names
        self._resolved: dict[tuple[str | None, ...], bytes] = {}
        texts = list(_interpolations(written))
        self._variables = _found(VARIABLE, texts)
        # An interpolation of any other kind may depend on any key: then nothing is replaced here.
        if len(texts) == len(self._variables) + len(references := _found(REFERENCE, texts)):
            leaves = replaceable_leaves(cfg())
            free = [key for key in leaves if not _is_referred_to(key, references)]
            self._places = {key: place for place, key in enumerate(free)}

    def replaced(
        self, overrides: Iterable[Override], defaults: Mapping[str, Any]
    ) -> Replaced | None:
        """The configuration with these overrides. None if it needs OmegaConf.

        Args:
            overrides: each key at most once.
            defaults: the configuration without overrides, as it is written.

        Raises:
            UserError: a value does not fit.
        """
        given = {override.key_or_group: override for override in overrides}
        if not all(map(self._takes, given.values())):
            return None
        values = self._resolved_today()
        if values is None:
            return None
        leaves = {}
        for key, override in given.items():
            leaves[key] = self._fitted(key, override, defaults)
            if is_interpolation(leaves[key]) or leaves[key] == "???":  # "???" is a missing value
                return None
            section, name = _section_of(values, key)
            section[name] = leaves[key]
        changed: Delta = []
        for key in sorted(given, key=self._places.__getitem__):
            changed += differences({key: at(self._written, key)}, {key: leaves[key]})
        return Replaced(values, leaves, changed)

    def written(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with these values. Its interpolations stay as they are written."""
        # a copy: the base must stay as it is
        written = pickle.loads(pickle.dumps(self._written))
        for key, value in leaves.items():
            section, name = _section_of(written, key)
            section[name] = value
        return written

    def _takes(self, override: Override) -> bool:
        """Whether an override only replaces a single value on which no interpolation depends."""
        is_plain = override.type is OverrideType.CHANGE and override.package is None
        if not is_plain or override.key_or_group not in self._places:
            return False
        return type(override.value()) in SINGLE

    def _fitted(self, key: str, override: Override, defaults: Mapping[str, Any]) -> Any:
        """The value of an override in the type of the key's default, by the rules of apply.py.

        Raises:
            UserError: it does not fit.
        """
        if key not in self._defaults:
            default = at(defaults, key)
            if default is MISSING or isinstance(default, dict):
                default = at(self._written, key)
            self._defaults[key] = default
        text = str(override.input_line).partition("=")[2]
        return fitted(key, override.value(), self._defaults[key], text)

    def _resolved_today(self) -> dict[str, Any] | None:
        """A new copy of the base with its interpolations resolved. None if they cannot be.

        They are resolved again if an environment variable has changed.
        """
        today = environment.values_of(self._variables)
        if today not in self._resolved:
            try:
                values = OmegaConf.to_container(self._cfg(), resolve=True)
            except OmegaConfBaseException:
                return None
            self._resolved[today] = pickle.dumps(values)
        return pickle.loads(self._resolved[today])


def _interpolations(value: object) -> Iterator[str]:
    """All texts with `${` in a configuration."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _interpolations(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _interpolations(inner)
    elif isinstance(value, str) and is_interpolation(value):
        yield value


def _found(pattern: re.Pattern, texts: Sequence[str]) -> list[str]:
    """The names in the texts that are one interpolation of this pattern, and nothing else."""
    return [match[1] for match in map(pattern.fullmatch, texts) if match]


def _is_referred_to(key: str, references: Iterable[str]) -> bool:
    """Whether a reference names the key, a section around it, or something below it."""
    for name in references:
        if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}."):
            return True
    return False


def _section_of(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The dict that contains a dotted key, and the key's name in this dict."""
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    return config, name
