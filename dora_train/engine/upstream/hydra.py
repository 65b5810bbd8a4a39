"""Private parts of Hydra and OmegaConf: the files of a configuration, its untyped values, and the
column where the parser stopped."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import AnyNode, DictConfig, OmegaConf


@dataclass(frozen=True)
class ConfigFile:
    """A file of the configuration that Hydra takes in."""

    name: str  # below the configuration's folder, without .yaml: "experiment/paper/t2"
    package: str  # where its keys land: "data"; empty: beside those of config.yaml
    parent: str  # the file whose defaults name it


class ReadOnce:
    """The files of a configuration, each read once.

    hydra-core 1.3.8 makes a copy of its repository for each question, and forgets it. So it reads
    about 20 files to list them (`files_of`), and again to compose them, which takes 80 ms.

    Args:
        repository: Hydra's.
    """

    def __init__(self, repository: Any):
        self._repository = repository
        self._read: dict[str, Any] = {}

    def __deepcopy__(self, memo: object) -> "ReadOnce":
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def load_config(self, config_path: str) -> Any:
        if config_path not in self._read:
            self._read[config_path] = self._repository.load_config(config_path)
        return self._read[config_path]


def read_files_once() -> None:
    """Let Hydra read each file once, until the end of `initialize_config_dir`."""
    from hydra.core.global_hydra import GlobalHydra

    loader: Any = GlobalHydra.instance().config_loader()
    loader.repository = ReadOnce(loader.repository)


def files_of(config_name: str, overrides: Sequence[str]) -> list[ConfigFile]:
    """The files that a configuration is made of, within `initialize_config_dir`.

    hydra-core 1.3.8 keeps this list to itself when it composes.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    loader = GlobalHydra.instance().config_loader()
    found = loader.compute_defaults_list(config_name, list(overrides), RunMode.RUN).defaults
    return [
        ConfigFile(one.config_path, one.package or "", one.parent or "")
        for one in found
        if one.config_path
    ]


def groups_of() -> dict[str, list[str]]:
    """The groups of a configuration, and the options of each, within `initialize_config_dir`.

    Hydra's own groups, such as its launchers, are left out. The public methods of hydra-core 1.3.8
    copy Hydra's repository for each question: 178 ms for this project, where 5 are enough.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    loader: Any = GlobalHydra.instance().config_loader()
    options = loader.repository.get_group_options
    found = {}
    folders = [name for name in options("", ObjectType.GROUP) if name != "hydra"]
    while folders:
        folder = folders.pop()
        names = options(folder, ObjectType.CONFIG)
        if names:
            found[folder] = list(names)
        for name in options(folder, ObjectType.GROUP):
            folders.append(f"{folder}/{name}")
    return dict(sorted(found.items()))


def replaceable_leaves(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of single values without a type, which take any other single value.

    A value of a structured configuration has a type, and OmegaConf converts what is put there.
    Interpolations and missing values are left out.
    """
    if OmegaConf.is_readonly(cfg):
        return
    for name in cfg:
        node = cfg._get_node(name)  # omegaconf 2.3: reading the value would hide its type
        if not isinstance(name, str) or "." in name:
            continue
        if type(node) is DictConfig and not (node._is_none() or node._is_interpolation()):
            if not node._is_missing():
                yield from replaceable_leaves(node, f"{prefix}{name}.")
        elif type(node) is AnyNode and not (node._is_interpolation() or node._is_missing()):
            yield f"{prefix}{name}"


def column_of(error: Exception) -> int | None:
    """Where in an override Hydra's parser stopped, from 0. None if it is not known.

    hydra-core 1.3.8's listener is told the column, and drops it. It is still in the frame that
    raised the error.
    """
    column = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        column = frame.f_locals.get("column")
    return column if isinstance(column, int) else None
