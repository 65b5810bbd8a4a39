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

Hydra composes once for each combination of groups; values are then applied with OmegaConf, which
also gives errors that name the key. `Composer` is used by `experiments.py`; it is the only place where a
configuration is composed.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError, did_you_mean, shortened
from ..upstream.hydra import ConfigFile, files_of
from . import recipes
from .keys import (
    MISSING,
    at,
    fitted,
    has_no_room,
    holds_interpolation,
    is_open,
    refuse_names,
    unknown,
)
from .limits import TAKES
from .overrides import option, parse, set_before_delete
from .values import Delta, coerced, differences, flatten

RULE = 2  # the version of this rule, stored at birth; raise it when any signature would change
# the group whose files stand for the values in them; rule 1 counted their names
PRESET = "experiment"
LEADING = ("debug", "task")  # groups whose files choose those of other groups, too


@dataclass
class Composed:
    """A configuration as composed today, with what makes it differ from the defaults (excluded keys
    included)."""

    values: dict[str, Any]  # plain, interpolations resolved
    argv: list[str]
    delta: Delta
    choices: dict[str, Any]  # the option of each group
    former: Delta | None = None  # the delta by rule 1; None: it is the same


@dataclass
class _Base:
    """What Hydra makes of one combination of groups, before any value is overridden."""

    packed: bytes  # the DictConfig: a fresh one is out of it in 0.15 ms, `copy.deepcopy` takes 1.2
    raw: dict[str, Any]  # plain, interpolations as they are written
    hydra: DictConfig  # Hydra's own part, for `${hydra:...}`
    files: list[ConfigFile]

    def cfg(self) -> DictConfig:
        """A copy of its own, to put values into."""
        return pickle.loads(self.packed)

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The option of each group."""
        return OmegaConf.to_container(self.hydra.hydra.runtime.choices)  # type: ignore[return-value]


def resolved(cfg: DictConfig) -> dict[str, Any]:
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


def _raw(cfg: DictConfig) -> dict[str, Any]:
    """Plain Python, interpolations as they are written."""
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


def _at_raw(cfg: Any, key: str) -> Any:
    """`at(_raw(cfg), key)`, without making all of it plain."""
    for part in key.split("."):
        # `in cfg` says no to a value of ???
        if not OmegaConf.is_dict(cfg) or part not in cfg.keys():
            return MISSING
        cfg = dict(cfg.items_ex(resolve=False, keys=[part]))[part]
    return OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg


class Composer:
    """Composes `config_name` in `config_dir`, at first need, with the base of each combination of
    groups kept.

    A process that lives long must not see a half-edited configuration: whatever was composed first
    stays.
    """

    def __init__(self, config_dir: Path, config_name: str, version_base: str | None):
        self.config_dir, self.config_name, self.version_base = config_dir, config_name, version_base
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._groups: dict[str, list[str]] | None = None
        self._files: dict[tuple[str, ...], list[dict[str, Any]]] = {}  # of `layers`

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups of the configuration, and the options of each."""
        if self._groups is None:
            with self._hydra():
                hydra = GlobalHydra.instance().hydra
                assert hydra is not None
                self._groups = {
                    group: list(hydra.config_loader.get_group_options(group))
                    for group in hydra.list_all_config_groups()
                    # Hydra's own launchers and logs have no part here
                    if not group.startswith("hydra") and group not in recipes.CHOSEN_BY_OTHERS
                }
        return self._groups

    @property
    def choices(self) -> dict[str, Any]:
        """The default option of each group."""
        return {
            group: option
            for group, option in self._base(()).choices.items()
            if group in self.groups
        }

    @property
    def defaults(self) -> dict[str, Any]:
        """The configuration without overrides, interpolations as they are written."""
        return self._base(()).raw

    def keys(self, groups: Sequence[str] = ()) -> list[str]:
        """Every dotted key of the configuration."""
        return [key for key, _ in flatten(self._base(tuple(groups)).raw)]

    def compose(self, overrides: Sequence[str]) -> Composed:
        """The configuration that `overrides` give today.

        Raises:
            UserError: an unknown key, group option, a value that does not fit, or a configuration
                that is broken.
        """
        parsed = parse(overrides, lambda: [*self.keys(), *self.groups])
        chosen = [override for override in parsed if override.key_or_group in self.groups]
        values = [override for override in parsed if override.key_or_group not in self.groups]
        for override in chosen:
            self._check_group(override)
            self._check_option(override.key_or_group, option(override))
        # Hydra cannot choose none
        chosen = [override for override in chosen if option(override) is not None]
        base = self._base(tuple(sorted(str(override.input_line) for override in chosen)))
        cfg = base.cfg()
        for override in sorted(values, key=set_before_delete):
            self._apply(cfg, override)
        raw = _raw(cfg)
        if "${hydra:" in str(raw):  # who asks for it pays for it: it takes as long as all the rest
            HydraConfig.instance().set_config(base.hydra)
        delta = [*self._group_delta(_options(chosen)), *self._value_delta(base, cfg, raw)]
        choices = {group: name for group, name in base.choices.items() if group in self.groups}
        composed = Composed(
            resolved(cfg), [str(override.input_line) for override in parsed], delta, choices
        )
        if choices.get(PRESET) is not None:
            groups = {
                group: name
                for group, name in (choices | _options(chosen)).items()
                if group.partition("/")[0] != PRESET
            }
            without = self._base(tuple(sorted(recipes.without(base.choices, base.files, [PRESET]))))
            composed.former = delta
            composed.delta = [*self._group_delta(groups), *self._value_delta(without, cfg, raw)]
        return composed

    def layers(self, overrides: Sequence[str]) -> list[dict[str, Any]]:
        """What the main file, each chosen file and the overrides set, by dotted key.

        A later layer wins.
        """
        parsed = parse(overrides, lambda: [*self.keys(), *self.groups])
        chosen = tuple(str(one.input_line) for one in parsed if one.key_or_group in self.groups)
        values = [one for one in parsed if one.key_or_group not in self.groups]
        if chosen not in self._files:
            self._files[chosen] = self._read_files(chosen)
        return [
            *self._files[chosen],
            dict(flatten({one.key_or_group: one.value() for one in values})),
        ]

    def _read_files(self, chosen: tuple[str, ...]) -> list[dict[str, Any]]:
        """Of the files that Hydra merges for these groups, but for those of one section
        (conf/data)."""
        with self._hydra():
            files = files_of(self.config_name, chosen)
        paths = [self.config_dir / f"{file.name}.yaml" for file in files if not file.package]
        loaded: list[Any] = [OmegaConf.load(path) for path in paths if path.exists()]
        return [dict(flatten(_raw(content))) for content in loaded]

    def _hydra(self):
        if not self.config_dir.is_dir():
            raise UserError(f"there is no configuration folder {self.config_dir}.")
        return initialize_config_dir(
            str(self.config_dir), job_name="train", version_base=self.version_base
        )

    def _base(self, chosen: tuple[str, ...]) -> _Base:
        if chosen not in self._bases:
            try:
                with self._hydra():
                    cfg = compose(self.config_name, list(chosen), return_hydra_config=True)
                    files = files_of(self.config_name, chosen)
            except (HydraException, OmegaConfBaseException) as error:
                raise _broken(error, self.config_dir) from error
            except Exception as error:  # PyYAML's own errors: Hydra does not wrap them
                if type(error).__module__.startswith("yaml"):
                    raise _broken(error, self.config_dir) from error
                raise
            hydra = OmegaConf.create({"hydra": cfg.hydra})
            OmegaConf.set_struct(cfg, False)
            del cfg["hydra"]
            base = _Base(pickle.dumps(cfg), _raw(cfg), hydra, files)
            self._bases[chosen] = self._with_recipes_fitted(base)
        return self._bases[chosen]

    def _with_recipes_fitted(self, base: _Base) -> _Base:
        """The same, with the values of recipes as the command line would take them: `lr: 1` is 1.0.

        Raises:
            UserError: a recipe says what the command line could not.
        """
        found = recipes.among(base.files, self.config_dir)
        if not found:
            return base
        without = self._base(tuple(sorted(recipes.without(base.choices, base.files)))).raw
        cfg = base.cfg()
        for recipe in found:
            written = dict(flatten(recipe.content))
            for key, value in recipes.fitting(recipe, without, self.groups):
                if at(base.raw, key) == written[key]:  # no later file has set another
                    OmegaConf.update(cfg, key, value)
        return _Base(pickle.dumps(cfg), _raw(cfg), base.hydra, base.files)

    def _group_delta(self, options: Mapping[str, Any]) -> Delta:
        """The choices that are neither the defaults' own, nor come with another choice."""
        defaults = self._base(()).choices
        others = {group: name for group, name in options.items() if name != defaults.get(group)}
        leading = [group for group in LEADING if others.get(group) is not None]
        implied = self._base(tuple(f"{group}={others[group]}" for group in leading)).choices
        return [
            (group, name)
            for group, name in others.items()
            if group in leading or name != implied.get(group)
        ]

    def _value_delta(self, base: _Base, cfg: DictConfig, raw: Mapping[str, Any]) -> Delta:
        """The values of `cfg`, which is `raw` too, that are not those of `base`."""
        return [(key, self._plain(cfg, key, value)) for key, value in differences(base.raw, raw)]

    def _check_group(self, override: Override) -> None:
        """Raises: UserError for a "+" too many, or a sub-folder: its files are options of its
        group."""
        whole, text = override.key_or_group, str(override.input_line)
        group, _, folder = whole.rpartition("/")
        if override.is_add() and whole in self.choices:
            raise UserError(f'"{text}": {whole} is there already; leave out the "+".')
        if group in self.choices and whole not in self.choices and not override.is_add():
            raise UserError(f'"{text}": write {group}={folder}/{option(override)}.')

    def _check_option(self, group: str, chosen: Any) -> None:
        options = self.options(group)
        if chosen is None and self._base(()).choices.get(group) is not None:
            raise UserError(f"{group}=null: one is needed.", f"{group} has: {shortened(options)}.")
        for name in chosen if isinstance(chosen, list) else [chosen]:
            if name is not None and str(name) not in options:
                file = str(name).removesuffix(".yaml").rpartition(f"{group}/")[2]
                raise UserError(
                    f'unknown {group} "{name}"{did_you_mean(file, options)}',
                    f"{group} has: {shortened(options)}.",
                )

    def options(self, group: str) -> list[str]:
        """The files of a group, those in its sub-folders included: `paper/t2`."""
        below = [
            f"{sub.removeprefix(group + '/')}/{name}"
            for sub, names in self.groups.items()
            if sub.startswith(group + "/")
            for name in names
        ]
        return [*self.groups[group], *below]

    def _apply(self, cfg: DictConfig, override: Override) -> None:
        key = override.key_or_group
        default = _at_raw(cfg, key)
        if override.is_delete():
            if default is MISSING:
                raise unknown(key, _raw(cfg), self.groups)
            parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
            del parent[key.rpartition(".")[2]]
            return
        text = str(override.input_line).partition("=")[2]
        value = override.value()
        refuse_names(key, value, text)
        adds = override.is_add() or override.is_force_add()
        if default is MISSING:
            if not (adds or is_open(self.defaults, key)) or has_no_room(_raw(cfg), key):
                if key in TAKES:  # Lightning knows it, or a port has deleted it
                    raise UserError(f"{key} is not listed in conf/: write +{key}={text}.")
                raise unknown(key, _raw(cfg), self.groups)
        else:
            if override.is_add() and not isinstance(default, dict):
                raise UserError(
                    f'"{override.input_line}": {key} is there already; leave out the "+".'
                )
            # what a recipe put here must not narrow what the key takes
            own = at(self.defaults, key)
            value = fitted(
                key, value, default if own is MISSING or isinstance(own, dict) else own, text
            )
        OmegaConf.update(cfg, key, value, merge=True, force_add=True)

    def _plain(self, cfg: DictConfig, key: str, raw: Any) -> Any:
        """The value of a difference: resolved where the override itself was an interpolation."""
        if key.startswith("~") or raw == "???" or not holds_interpolation(raw):
            return raw
        try:
            value = OmegaConf.select(cfg, key)
            if OmegaConf.is_config(value):
                return OmegaConf.to_container(value, resolve=True)
            default = at(self.defaults, key)
            return value if default is MISSING else coerced(key, value, default, str(value))
        except OmegaConfBaseException as error:
            raise UserError(
                f"{key}={raw} does not resolve: {str(error).splitlines()[0]}"
            ) from error


def _options(chosen: Sequence[Override]) -> dict[str, Any]:
    """The option of each group that was chosen by an override."""
    return {override.key_or_group: option(override) for override in chosen}


def _broken(error: Exception, config_dir: Path) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(f"the configuration in {config_dir.name}/ cannot be composed:", *lines[:3])
