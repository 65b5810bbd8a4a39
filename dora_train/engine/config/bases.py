"""The configuration of each combination of groups, as Hydra composes it, before any value is
overridden.

Hydra takes tens of milliseconds, and the experiments of a grid share few combinations. So each is
composed once and kept. `compose.py` puts values into copies.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError
from ..upstream.hydra import ConfigFile, files_of, groups_of, read_files_once
from . import recipes
from .keys import at
from .leaves import Leaves
from .values import flatten


@dataclass
class Base:
    """The configuration of one combination of groups."""

    packed: bytes  # the DictConfig: unpickled in 0.15 ms, while `copy.deepcopy` takes 1.2 ms
    raw: dict[str, Any]  # plain, interpolations as they are written
    hydra: DictConfig  # Hydra's own part, for `${hydra:...}`
    files: list[ConfigFile]

    def cfg(self) -> DictConfig:
        """A copy, to put values into."""
        return pickle.loads(self.packed)

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The option of each group, also of Hydra's own groups."""
        return OmegaConf.to_container(self.hydra.hydra.runtime.choices)  # type: ignore[return-value]

    @cached_property
    def leaves(self) -> Leaves:
        """Its single values, which need no copy of the DictConfig to be replaced."""
        return Leaves(self.cfg, self.raw)


def as_written(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain Python, interpolations as they are written."""
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


class Bases:
    """Composes each combination of groups when it is first needed, and keeps it.

    A process that lives long must not see a half-edited configuration, so no file is read twice.

    Args:
        config_dir, config_name, version_base: as Hydra's.
    """

    def __init__(self, config_dir: Path, config_name: str, version_base: str | None):
        self.config_dir, self.config_name, self.version_base = config_dir, config_name, version_base
        self._composed: dict[tuple[str, ...], Base] = {}
        self._layers: dict[tuple[str, ...], list[dict[str, Any]]] = {}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The groups of the configuration, and the options of each."""
        with self._hydra():
            found = groups_of()
        return {group: found[group] for group in found if group not in recipes.CHOSEN_BY_OTHERS}

    def of(self, *chosen: str) -> Base:
        """The configuration for overrides of groups, e.g. `data=mnist`.

        Raises:
            UserError: a file of the configuration is broken.
        """
        if chosen not in self._composed:
            self._composed[chosen] = self._with_recipes_fitted(self._compose(chosen))
        return self._composed[chosen]

    def layers(self, *chosen: str) -> list[dict[str, Any]]:
        """The values that each file sets, by dotted key. A later file wins.

        Files whose keys land in a section (conf/data) are left out.

        Args:
            chosen: overrides of groups.
        """
        if chosen not in self._layers:
            with self._hydra():
                files = files_of(self.config_name, chosen)
            layers = []
            for file in files:
                path = self.config_dir / f"{file.name}.yaml"
                if not file.package and path.exists():
                    content: Any = OmegaConf.load(path)
                    layers.append(dict(flatten(as_written(content))))
            self._layers[chosen] = layers
        return self._layers[chosen]

    def _hydra(self):
        """Hydra's context in which it composes.

        Raises:
            UserError: the folder is not there.
        """
        if not self.config_dir.is_dir():
            raise UserError(f"there is no configuration folder {self.config_dir}.")
        return initialize_config_dir(
            str(self.config_dir), job_name="train", version_base=self.version_base
        )

    def _compose(self, chosen: tuple[str, ...]) -> Base:
        try:
            with self._hydra():
                read_files_once()
                files = files_of(self.config_name, chosen)
                cfg = compose(self.config_name, list(chosen), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise self._broken(error) from error
        except Exception as error:  # PyYAML's own errors: Hydra does not wrap them
            if type(error).__module__.startswith("yaml"):
                raise self._broken(error) from error
            raise
        hydra = OmegaConf.create({"hydra": cfg.hydra})
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        return Base(pickle.dumps(cfg), as_written(cfg), hydra, files)

    def _broken(self, error: Exception) -> UserError:
        lines = filter(None, map(str.strip, str(error).splitlines()))
        return UserError(
            f"the configuration in {self.config_dir.name}/ cannot be composed:", *list(lines)[:3]
        )

    def _with_recipes_fitted(self, base: Base) -> Base:
        """The same, with the values of recipes as the command line would take them: `lr: 1` is 1.0.

        Raises:
            UserError: a recipe sets something that the command line would refuse.
        """
        found = recipes.among(base.files, self.config_dir)
        if not found:
            return base
        without = self.of(*sorted(recipes.without(base.choices, base.files))).raw
        cfg = base.cfg()
        for recipe in found:
            written: Mapping[str, Any] = dict(flatten(recipe.content))
            for key, value in recipes.fitting(recipe, without, self.groups):
                if at(base.raw, key) == written[key]:  # no later file has set another
                    OmegaConf.update(cfg, key, value)
        return Base(pickle.dumps(cfg), as_written(cfg), base.hydra, base.files)
