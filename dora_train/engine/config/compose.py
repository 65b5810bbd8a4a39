"""From overrides to a configuration and what differs in it from the defaults: the rule behind a
signature.

The rule is stock Dora's for each value coerced to its default's type. Where stock fails or lies,
this one is right:

| what one writes or does | stock dora-search 0.1.13 | here |
| --- | --- | --- |
| `optim.lr=1`, `=1.0`, `=1e0`; `seed=1e2` | another experiment each | one: the default's type; null takes any |
| `optim.lr=abc`, `seed=true` | taken | refused |
| `debug=fast optim.lr=1` in another order | the argv's order is stored and sent | no difference |
| `data=digits`, the group's default | another experiment than without it | the default |
| `experiment=NAME`, and the same values typed by hand | two experiments | one (from rule 2 on) |
| `w: ${optim.lr}` added to config.yaml | `optim.lr=1` gets another signature | an alias is no difference of its own |
| `~tag`, `tag=???`, `model_args=null` | a crash | `~tag`, `???` and null are differences (a run refuses `~KEY`) |
| `tag=${hydra:runtime.choices.debug}` | a crash | its value |
| an override that fails, in a long-lived process | every later signature may change | nothing changes |
| unicode, tab, newline, `\\`, quotes, `${` in a grid | arrive changed | arrive as they are |
| numpy's scalars, `inf` in a grid | TypeError; the text `Infinity` | numbers |
| two experiments with the same 32 bits | one folder for both | refused, with both: `tag=WORD` |

Hydra composes once for each combination of groups (bases.py). Values are then put into a copy, with
errors that name the key: in plain Python if that is enough (leaves.py), else in OmegaConf
(apply.py). A configuration is composed here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean, shortened
from . import recipes
from .apply import apply
from .bases import Base, Bases, as_written
from .keys import MISSING, at, holds_interpolation
from .overrides import choice, choice_of, option, parse, set_before_delete
from .values import Delta, coerced, differences, dotted_keys, flatten

RULE = 2  # the version of this rule, stored at birth. Raise it when any signature would change
# The group whose files stand for the values in them. Rule 1 counted their names.
PRESET = "experiment"
LEADING = ("debug", "task")  # groups whose files choose those of other groups, too


@dataclass
class Composed:
    """A configuration as composed today, and what differs from the defaults in it.

    The differences include keys that do not count in the signature.
    """

    values: dict[str, Any]  # plain, interpolations resolved
    argv: list[str]
    delta: Delta
    choices: dict[str, Any]  # the option of each group
    former: Delta | None = None  # the delta by rule 1; None: it is the same


class Composer:
    """Composes the configuration of a project.

    Args:
        config_dir, config_name, version_base: as Hydra's.
    """

    def __init__(self, config_dir: Path, config_name: str, version_base: str | None):
        self._bases = Bases(config_dir, config_name, version_base)

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups of the configuration, and the options of each."""
        return self._bases.groups

    @property
    def choices(self) -> dict[str, Any]:
        """The default option of each group."""
        return self._choices(self._bases.of())

    @property
    def defaults(self) -> dict[str, Any]:
        """The configuration without overrides, interpolations as they are written."""
        return self._bases.of().raw

    def keys(self) -> list[str]:
        """Every dotted key of the configuration."""
        return dotted_keys(self.defaults)

    def options(self, group: str) -> list[str]:
        """The files of a group, those in its sub-folders included: `paper/t2`."""
        options = list(self.groups[group])
        for other, names in self.groups.items():
            if other.startswith(group + "/"):
                folder = other.removeprefix(group + "/")
                options += [f"{folder}/{name}" for name in names]
        return options

    def compose(self, overrides: Sequence[str]) -> Composed:
        """The configuration that `overrides` give today.

        Raises:
            UserError: an unknown key, group option, a value that does not fit, or a configuration
                that is broken.
        """
        parsed = self._parse(overrides)
        options, values, texts = {}, [], []
        for override in parsed:
            if override.key_or_group not in self.groups:
                values.append(override)
                continue
            self._check_group(override)
            name = option(override)
            self._check_option(override.key_or_group, name)
            if name is not None:  # Hydra cannot choose none
                options[override.key_or_group] = name
                texts.append(choice_of(override))
        base = self._bases.of(*sorted(texts))  # in any order they are the same experiment
        argv = [str(override.input_line) for override in parsed]
        return self._of_leaves(base, values, options, argv) or self._of_any(
            base, values, options, argv
        )

    def _of_leaves(
        self, base: Base, overrides: list[Override], options: dict[str, Any], argv: list[str]
    ) -> Composed | None:
        """As `_of_any`, if all overrides replace single values. None: not all do."""
        found = base.leaves.replaced(overrides, self.defaults)
        if found is None:
            return None
        delta = [*self._group_delta(options), *found.changed]
        composed = Composed(found.values, argv, delta, self._choices(base))
        if composed.choices.get(PRESET) is not None:
            raw = base.leaves.written(found.leaves)
            without = differences(self._without_preset(base).raw, raw)
            if holds_interpolation(dict(without)):
                return None
            composed.former = delta
            composed.delta = [*self._group_delta_without_preset(base, options), *without]
        return composed

    def _of_any(
        self, base: Base, overrides: list[Override], options: dict[str, Any], argv: list[str]
    ) -> Composed:
        """The configuration of the chosen groups, with overrides of values.

        Args:
            options: the options that overrides have chosen, by group.
            argv: all overrides.

        Raises:
            UserError: a value does not fit, or the configuration does not resolve.
        """
        cfg = base.cfg()
        for override in sorted(overrides, key=set_before_delete):
            apply(cfg, override, self.defaults, self.groups)
        raw = as_written(cfg)
        if "${hydra:" in str(raw):  # only then, as it takes as long as all the rest
            HydraConfig.instance().set_config(base.hydra)
        delta = [*self._group_delta(options), *self._value_delta(base, cfg, raw)]
        composed = Composed(_resolved(cfg), argv, delta, self._choices(base))
        if composed.choices.get(PRESET) is not None:
            composed.former = delta
            without = self._value_delta(self._without_preset(base), cfg, raw)
            composed.delta = [*self._group_delta_without_preset(base, options), *without]
        return composed

    def layers(self, overrides: Sequence[str]) -> list[dict[str, Any]]:
        """The values that the main file, each chosen file and the overrides set, by dotted key.

        A later layer wins.
        """
        chosen: list[str] = []
        values = {}
        for override in self._parse(overrides):
            if override.key_or_group not in self.groups:
                values[override.key_or_group] = override.value()
            elif option(override) is not None:  # Hydra cannot choose none
                chosen.append(choice_of(override))
        return [*self._bases.layers(*chosen), dict(flatten(values))]

    def _parse(self, overrides: Sequence[str]) -> list[Override]:
        # Only the hint of an error needs the keys, and to have them takes a composition.
        return parse(overrides, lambda: [*self.keys(), *self.groups])

    def _choices(self, base: Base) -> dict[str, Any]:
        """The option of each group, without Hydra's own groups."""
        return {group: name for group, name in base.choices.items() if group in self.groups}

    def _group_delta_without_preset(self, base: Base, options: Mapping[str, Any]) -> Delta:
        """The choices of a delta in which the file of `experiment=NAME` counts by its values."""
        groups = {}
        for group, name in (self._choices(base) | dict(options)).items():
            if group.partition("/")[0] != PRESET:
                groups[group] = name
        return self._group_delta(groups)

    def _without_preset(self, base: Base) -> Base:
        """The configuration of the same groups without `experiment=NAME`."""
        return self._bases.of(*sorted(recipes.without(base.choices, base.files, [PRESET])))

    def _group_delta(self, options: Mapping[str, Any]) -> Delta:
        """The choices that are neither the defaults' own, nor come with another choice."""
        defaults = self._bases.of().choices
        others = {group: name for group, name in options.items() if name != defaults.get(group)}
        leading = {group: others[group] for group in LEADING if others.get(group) is not None}
        implied = self._bases.of(*map(choice, leading, leading.values())).choices
        delta = []
        for group, name in options.items():
            # The file of a leading group may have chosen another option than the default. Then
            # naming the default makes another experiment.
            if group in leading or name != implied.get(group):
                delta.append((group, name))
        return delta

    def _value_delta(self, base: Base, cfg: DictConfig, raw: Mapping[str, Any]) -> Delta:
        """The values of `cfg` that are not those of `base`.

        Args:
            raw: the values of `cfg` as they are written.
        """
        delta = []
        for key, written in differences(base.raw, raw):
            delta.append((key, _plain(cfg, key, written, self.defaults)))
        return delta

    def _check_group(self, override: Override) -> None:
        """Check the group of an override.

        Raises:
            UserError: it has a "+" too many, or names a sub-folder. The files of that are options
                of its group.
        """
        whole, text = override.key_or_group, str(override.input_line)
        group, _, folder = whole.rpartition("/")
        if override.is_add() and whole in self.choices:
            raise UserError(f'"{text}": {whole} is there already; leave out the "+".')
        if group in self.choices and whole not in self.choices and not override.is_add():
            raise UserError(f'"{text}": write {group}={folder}/{option(override)}.')

    def _check_option(self, group: str, chosen: object) -> None:
        """Check that a group has the chosen option, or all of a list of them.

        Raises:
            UserError: it has no such option, or needs one.
        """
        options = self.options(group)
        if chosen is None and self._bases.of().choices.get(group) is not None:
            raise UserError(f"{group}=null: one is needed.", f"{group} has: {shortened(options)}.")
        names = chosen if isinstance(chosen, list) else [chosen]
        for name in names:
            if name is not None and str(name) not in options:
                file = str(name).removesuffix(".yaml").rpartition(f"{group}/")[2]
                raise UserError(
                    f'unknown {group} "{name}"{did_you_mean(file, options)}',
                    f"{group} has: {shortened(options)}.",
                )


def _plain(cfg: DictConfig, key: str, written: object, defaults: Mapping[str, Any]) -> object:
    """The value of a difference: resolved if the override itself was an interpolation.

    Raises:
        UserError: it does not resolve.
    """
    if key.startswith("~") or written == "???" or not holds_interpolation(written):
        return written
    try:
        value = OmegaConf.select(cfg, key)
        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(
            f"{key}={written} does not resolve: {str(error).splitlines()[0]}"
        ) from error
    default = at(defaults, key)
    if default is MISSING:
        return value
    return coerced(key, value, default, str(value))


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain Python, interpolations resolved.

    Raises:
        UserError: an interpolation that leads nowhere.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(
            f"the configuration does not resolve: {str(error).splitlines()[0]}"
        ) from error
