"""Recipes, the files of conf/experiment and conf/debug: the rules of the command line apply to them.

Hydra merges the keys of a chosen file without a check. A misspelt key would count in the signature,
and nothing would read it. `bases.py` asks here once for each combination of files.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig
from omegaconf import OmegaConf

from ..errors import UserError, near
from ..upstream.hydra import ConfigFile
from .keys import MISSING, at, fitted, is_open, takes_a_dict, unknown
from .limits import TRAINER_TAKES
from .overrides import choice
from .quoting import unquoted
from .refused import refuse_trainer_key
from .values import dotted_keys, flatten, unflatten

GROUPS = ("experiment", "debug")  # the folders of recipes
CHOSEN_BY_OTHERS = ("debug_of",)  # conf/config.yaml derives its file: it is no group for users
# Keys of a section that config.yaml need not name.
BEYOND = {"trainer": TRAINER_TAKES, "slurm": tuple(vars(SlurmConfig()))}


@dataclass(frozen=True)
class Recipe:
    """A file that was chosen by name."""

    file: str  # "conf/experiment/paper/t2.yaml"
    package: str  # the section that its keys belong to. Empty: none, as for config.yaml
    content: Mapping[str, Any]


def among(files: Iterable[ConfigFile], folder: Path) -> list[Recipe]:
    """The recipes among the files of a configuration."""
    return [_read(file, folder) for file in files if _group(file.name) in GROUPS]


def _group(name: str) -> str:
    return name.partition("/")[0]


def _read(file: ConfigFile, folder: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UserError: the file is empty.
    """
    content: Any = OmegaConf.to_container(
        OmegaConf.load(folder / f"{file.name}.yaml"), resolve=False
    )
    shown = f"{folder.name}/{file.name}.yaml"
    if not content:
        raise UserError(f"{shown} has no effect: it is empty.")
    content.pop("defaults", None)  # Hydra's list of further files: no key of the configuration
    if file.package and content:
        content = unflatten([(file.package, content)])
    return Recipe(shown, file.package, content)


def without(
    choices: Mapping[str, Any], files: Sequence[ConfigFile], left_out: Collection[str] = GROUPS
) -> Iterator[str]:
    """The overrides that choose all files but those of the groups `left_out`.

    Args:
        choices: the option of each group.
        files: of the configuration with these choices.
    """
    parents = {file.name: file.parent for file in files}
    for group, option in choices.items():
        if group in CHOSEN_BY_OTHERS:
            if "debug" in left_out:  # its file could not be derived without a choice of debug
                yield f"{group}=none"
        elif group in left_out:
            yield f"~{group}"
        elif option is not None and _group(group) not in (*left_out, "hydra"):
            # Hydra wants a "+" for a group that a recipe has added: config.yaml does not have it.
            is_added = _group(parents.get(f"{group}/{option}", "")) in GROUPS
            yield choice(f"+{group}" if is_added else group, option)


def fitting(
    recipe: Recipe, defaults: Mapping[str, Any], groups: Iterable[str]
) -> list[tuple[str, Any]]:
    """The dotted keys of `recipe`, each with its value in the type of the key's default.

    Args:
        defaults: the configuration without recipes, interpolations as they are written.
        groups: the names of the configuration's groups.

    Raises:
        UserError: an unknown key, a value that does not fit, or keys that nothing reads.
    """
    landing = recipe.package.partition(".")[0]
    if landing and landing not in defaults:
        raise UserError(
            f'{recipe.file} has no effect: its keys land under "{landing}:", which nothing reads.',
            "make this its first line: # @package _global_",
        )
    try:
        _check_names(recipe.content)
        keys = flatten(recipe.content)
        return [(key, _fitted(key, value, defaults, groups)) for key, value in keys]
    except UserError as error:
        raise UserError(f"{recipe.file}: {error}") from error


def _check_names(content: Mapping[Any, Any]) -> None:
    """Refuse `optim.lr: 0.1`, which is a path in an override only, and `1: 2`.

    Raises:
        UserError: a key is no text, or has a dot.
    """
    for name, value in content.items():
        if not isinstance(name, str):
            raise UserError(f"the key {name!r} is no text: write it in quotes.")
        if "." in name:
            first, _, rest = name.partition(".")
            raise UserError(
                f'"{name}:" is one key with a dot in it.',
                f'write "{first}:", and "{rest}:" indented below it',
            )
        if isinstance(value, Mapping):
            _check_names(value)


def _fitted(key: str, value: object, defaults: Mapping[str, Any], groups: Iterable[str]) -> object:
    """The value of a recipe's key in the type of its default.

    Raises:
        UserError: nothing reads the key, or the value does not fit.
    """
    section, _, name = key.partition(".")
    if section == "hydra":
        return value
    if section == "dora":
        raise UserError(f"{key}: dora.* is read before any recipe: write it in conf/config.yaml.")
    if key in groups and isinstance(value, str):
        raise UserError(
            f"{key}: {value} chooses a file, which is no value.",
            f'write it below "defaults:", as "- override /{key}: {value}"',
        )
    default = at(defaults, key)
    if default is MISSING:
        refuse_trainer_key(key)
        if name in BEYOND.get(section, ()) or is_open(defaults, key) or takes_a_dict(defaults, key):
            return value
        hint = ""
        if section not in defaults and not near(key, dotted_keys(defaults)):
            hint = "a key of your own: write it into conf/config.yaml as well"
        raise UserError(str(unknown(key, defaults, groups)), hint)
    if value is None and isinstance(default, Mapping) and default:
        raise UserError(f"{key} is blank: give it keys, or leave it out.")
    return fitted(key, value, default, unquoted(value))
