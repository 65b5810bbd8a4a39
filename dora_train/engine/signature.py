"""From overrides to a configuration and what differs in it from the defaults: the rule behind a signature.

The rule is stock Dora's for each value coerced to its default's type. Where stock fails or lies, this one is right:

| what one writes or does | stock dora-search 0.1.13 | here |
| --- | --- | --- |
| `optim.lr=1`, `=1.0`, `=1e0`; `seed=1e2` | another experiment each | one: the default's type; null takes any |
| `optim.lr=abc`, `seed=true` | taken | refused |
| `debug=fast optim.lr=1` in another order | the argv's order is stored and sent | no difference |
| `data=digits`, the group's default | another experiment than without it | the default |
| `w: ${optim.lr}` added to config.yaml | `optim.lr=1` gets another signature | an alias is no difference of its own |
| `~tag`, `tag=???`, `model_args=null` | a crash | `~tag`, `???` and null are differences |
| `tag=${hydra:runtime.choices.debug}` | a crash | its value |
| an override that fails, in a long-lived process | every later signature may change | nothing changes |
| unicode, tab, newline, `\\`, quotes, `${` in a grid | arrive changed | arrive as they are |
| numpy's scalars, `inf` in a grid | TypeError; the text `Infinity` | numbers |
| two experiments with the same 32 bits | one folder for both | refused, with both: `tag=WORD` |

Hydra composes once for each combination of groups; values are then applied with OmegaConf, which also gives errors
that name the key. `Composer` is used by `main.py`; it is the only place where a configuration is composed.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import UserError, did_you_mean, near, shortened
from .values import Delta, coerced, differences, flatten, is_interpolation

RULE = 1  # the version of this rule, stored at birth; raise it when any signature would change


@dataclass
class Composed:
    """A configuration as composed today, with what makes it differ from the defaults (excluded keys included)."""

    values: dict[str, Any]  # plain, interpolations resolved
    argv: list[str]
    delta: Delta
    choices: dict[str, Any]  # the option of each group


@dataclass
class _Base:
    """What Hydra makes of one combination of groups, before any value is overridden."""

    packed: bytes  # the DictConfig: a fresh one is out of it in 0.15 ms, `copy.deepcopy` takes 1.2
    raw: dict[str, Any]  # plain, interpolations as they are written
    hydra: DictConfig  # Hydra's own part, for `${hydra:...}`

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
        raise UserError(f"the configuration does not resolve: {str(error).splitlines()[0]}") from error


_MISSING = object()


def _at(config: Any, key: str) -> Any:
    """The value at a dotted key of plain dicts, or `_MISSING`."""
    for part in key.split("."):
        config = config.get(part, _MISSING) if isinstance(config, dict) else _MISSING
    return config


def _raw(cfg: DictConfig) -> dict[str, Any]:
    """Plain Python, interpolations as they are written."""
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


def _at_raw(cfg: Any, key: str) -> Any:
    """`_at(_raw(cfg), key)`, without making all of it plain."""
    for part in key.split("."):
        if not OmegaConf.is_dict(cfg) or part not in cfg.keys():  # `in cfg` says no to a value of ???
            return _MISSING
        cfg = dict(cfg.items_ex(resolve=False, keys=[part]))[part]
    return OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg


class Composer:
    """Composes `config_name` in `config_dir`, at first need, with the base of each combination of groups kept.

    A process that lives long must not see a half-edited configuration: whatever was composed first stays.
    """

    def __init__(self, config_dir: Path, config_name: str, version_base: str | None):
        self.config_dir, self.config_name, self.version_base = config_dir, config_name, version_base
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._groups: dict[str, list[str]] | None = None

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups of the configuration, and the options of each."""
        if self._groups is None:
            with self._hydra():
                hydra = GlobalHydra.instance().hydra
                assert hydra is not None
                self._groups = {group: list(hydra.config_loader.get_group_options(group))
                                for group in hydra.list_all_config_groups()
                                if not group.startswith("hydra")}  # Hydra's own launchers and logs have no part here
        return self._groups

    @property
    def choices(self) -> dict[str, Any]:
        """The default option of each group."""
        return {group: option for group, option in self._base(()).choices.items() if group in self.groups}

    def keys(self, groups: Sequence[str] = ()) -> list[str]:
        """Every dotted key of the configuration."""
        return [key for key, _ in flatten(self._base(tuple(groups)).raw)]

    def compose(self, overrides: Sequence[str]) -> Composed:
        """The configuration that `overrides` give today.

        Raises:
            UserError: an unknown key, group option, a value that does not fit, or a configuration that is broken.
        """
        parsed = self._parse(overrides)
        chosen = [override for override in parsed if override.key_or_group in self.groups]
        values = [override for override in parsed if override.key_or_group not in self.groups]
        for override in chosen:
            self._check_option(override.key_or_group, override.value())
        chosen = [override for override in chosen if override.value() is not None]  # Hydra has no way to say so
        base = self._base(tuple(sorted(str(override.input_line) for override in chosen)))
        cfg = base.cfg()
        for override in sorted(values, key=_set_before_delete):
            self._apply(cfg, override)
        raw = _raw(cfg)
        if "${hydra:" in str(raw):  # who asks for it pays for it: it takes as long as all the rest
            HydraConfig.instance().set_config(base.hydra)
        delta = self._group_delta(chosen) + [
            (key, self._plain(cfg, key, value)) for key, value in differences(base.raw, raw)]
        choices = {group: option for group, option in base.choices.items() if group in self.groups}
        return Composed(resolved(cfg), [str(override.input_line) for override in parsed], delta, choices)

    def _hydra(self):
        if not self.config_dir.is_dir():
            raise UserError(f"there is no configuration folder {self.config_dir}.")
        return initialize_config_dir(str(self.config_dir), job_name="train", version_base=self.version_base)

    def _base(self, chosen: tuple[str, ...]) -> _Base:
        if chosen not in self._bases:
            try:
                with self._hydra():
                    cfg = compose(self.config_name, list(chosen), return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise _broken(error, self.config_dir) from error
            except Exception as error:  # PyYAML's own errors: Hydra does not wrap them
                if type(error).__module__.startswith("yaml"):
                    raise _broken(error, self.config_dir) from error
                raise
            hydra = OmegaConf.create({"hydra": cfg.hydra})
            OmegaConf.set_struct(cfg, False)
            del cfg["hydra"]
            self._bases[chosen] = _Base(pickle.dumps(cfg), _raw(cfg), hydra)
        return self._bases[chosen]

    def _parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parsed, each key once: the last one counts."""
        last: dict[str, Override] = {}
        for text in overrides:
            override = self._parse_one(text)
            last.pop(override.key_or_group, None)
            last[override.key_or_group] = override
        return list(last.values())

    def _parse_one(self, text: str) -> Override:
        if "=" not in text and not text.startswith("~"):
            known = [*self.keys(), *self.groups]
            hint = "" if text in known else did_you_mean(text, known)[1:]
            raise UserError(f'"{text}" has no value: write {text or "KEY"}=VALUE.{hint}')
        try:
            override = _override(_quoted_if_foreign(text))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f'cannot read "{text}": {reason}',
                            "quote special letters, e.g. 'tag=\"a, b\"'") from error
        if override.is_sweep_override():
            raise UserError(f'"{text}" names several values; one run takes one.',
                            "a list is written [a,b]; to run several, write a grid (grids/mysweep.py)")
        return override

    def _group_delta(self, chosen: Sequence[Override]) -> Delta:
        """The choices that are not the defaults' own."""
        defaults = self._base(()).choices
        delta: Delta = []
        for override in chosen:
            option = override.value()
            if option != defaults.get(override.key_or_group):
                delta.append((override.key_or_group, option if option is not None else "null"))
        return delta

    def _check_option(self, group: str, option: Any) -> None:
        options = self.groups[group]
        if option is None and self._base(()).choices.get(group) is not None:
            raise UserError(f"{group}=null: one is needed.", f"{group} has: {', '.join(options)}.")
        for name in option if isinstance(option, list) else [option]:
            if name is not None and str(name) not in options:
                raise UserError(f'unknown {group} "{name}"{did_you_mean(str(name), options)}',
                                f"{group} has: {', '.join(options)}.")

    def _apply(self, cfg: DictConfig, override: Override) -> None:
        key = override.key_or_group
        default = _at_raw(cfg, key)
        if override.is_delete():
            if default is _MISSING:
                raise self._unknown(key, cfg)
            parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
            del parent[key.rpartition(".")[2]]
            return
        text = str(override.input_line).partition("=")[2]
        value = override.value()
        adds = override.is_add() or override.is_force_add()
        if default is _MISSING and not adds and not self._is_open(key):
            raise self._unknown(key, cfg)
        if default is not _MISSING:
            if override.is_add() and not isinstance(default, dict):
                raise UserError(f'"{override.input_line}": {key} is there already; leave out the "+".')
            own = _at(self._base(()).raw, key)  # what a recipe put here must not narrow what the key takes
            value = self._fitted(key, value, default if own is _MISSING or isinstance(own, dict) else own, text)
        OmegaConf.update(cfg, key, value, merge=True, force_add=True)

    def _fitted(self, key: str, value: Any, default: Any, text: str) -> Any:
        """`value` coerced, within dicts key by key."""
        if not (isinstance(default, dict) and isinstance(value, dict)):
            return coerced(key, value, default, text)
        if not default:
            return value
        unknown = [name for name in value if name not in default]
        if unknown:
            path = f"{key}.{unknown[0]}"
            raise UserError(f'unknown key "{path}"{did_you_mean(path, [f"{key}.{name}" for name in default])}')
        return {name: self._fitted(f"{key}.{name}", inner, default[name], str(inner))
                for name, inner in value.items()}

    def _is_open(self, key: str) -> bool:
        """Whether `key` lies below one whose default is `{}`: such a dict takes any keyword."""
        parts = key.split(".")
        return any(_at(self._base(()).raw, ".".join(parts[:end])) == {} for end in range(1, len(parts)))

    def _unknown(self, key: str, cfg: DictConfig) -> UserError:
        raw = _raw(cfg)
        known = [name for name, _ in flatten(raw)]
        hint = did_you_mean(key, [*known, *self.groups])
        where = key.rpartition(".")[0]
        section = _at(raw, where)
        has = f"{where} has: {shortened(section)}." if where and isinstance(section, dict) else (
            "" if near(key, known) else f"the keys are: {shortened(sorted({*raw, *self.groups}), 30)}.")
        return UserError(f'unknown key "{key}"{hint}', has)

    def _plain(self, cfg: DictConfig, key: str, raw: Any) -> Any:
        """The value of a difference: resolved where the override itself was an interpolation."""
        if key.startswith("~") or raw == "???" or not _holds_interpolation(raw):
            return raw
        try:
            value = OmegaConf.select(cfg, key)
            if OmegaConf.is_config(value):
                return OmegaConf.to_container(value, resolve=True)
            default = _at(self._base(()).raw, key)
            return value if default is _MISSING else coerced(key, value, default, str(value))
        except OmegaConfBaseException as error:
            raise UserError(f"{key}={raw} does not resolve: {str(error).splitlines()[0]}") from error


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=10_000)
def _override(text: str) -> Override:
    """As Hydra's parser reads it: 0.1 ms, and the experiments of a grid have most of their overrides in common.

    Raises:
        HydraException: it cannot be read.
    """
    return _parser().parse_override(text)


def _quoted_if_foreign(text: str) -> str:
    """`tag=é` as `tag='é'`: Hydra's grammar knows ASCII only outside quotes."""
    key, _, value = text.partition("=")
    if value.isascii() or any(letter in value for letter in "\"'[]{}\\"):
        return text
    return f"{key}='{value}'"


def _set_before_delete(override: Override) -> bool:
    """Values first: `~optim optim.lr=1` and its reverse are the same experiment."""
    return override.is_delete()


def _holds_interpolation(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_interpolation(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_holds_interpolation(inner) for inner in value)
    return is_interpolation(value)


def _broken(error: Exception, config_dir: Path) -> UserError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(f"the configuration in {config_dir.name}/ cannot be composed:", *lines[:3])
