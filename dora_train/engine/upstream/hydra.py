"""Private parts of Hydra: the files of a configuration, and the column where its parser stopped."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConfigFile:
    """A file of the configuration that Hydra takes in."""

    name: str  # below the configuration's folder, without .yaml: "experiment/paper/t2"
    package: str  # where its keys land: "data"; empty: beside those of config.yaml
    parent: str  # the file whose defaults name it


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


def column_of(error: Exception) -> int | None:
    """Where in an override Hydra's parser stopped, from 0. None if it is not known.

    hydra-core 1.3.8's listener is told the column, and drops it. It is still in the frame that
    raised the error.
    """
    column = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        column = frame.f_locals.get("column")
    return column if isinstance(column, int) else None
