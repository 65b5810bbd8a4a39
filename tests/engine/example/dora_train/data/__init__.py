"""The data that a run learns from: `load_data(**cfg.data, seed=cfg.seed)`. Plain PyTorch.

    load.py          from the configuration's `data` to train, validation and test batches
    datasets.py      the data sets: a function each, its keywords are the keys in conf/data
    published.py     finds and downloads published data sets
    cache.py         the folder where they are kept
    image_folder.py  your own images
    image_list.py    finds them
    decoding.py      from a file to pixels
    packed.py        decodes all images once, into one file
    image_files.py   images read from their files, batch by batch
    images.py        a whole data set, and its parts
    batches.py       the batches of any epoch, from any place
    augment.py       crop, flip and cutout
    inputs.py        how an image becomes an input: stored with an experiment, for predict.py

The names below are imported when they are first used: every verb imports train.py, and torch takes
seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data_error import DataError
    from .batches import Batches
    from .load import DATASETS, Data, check_data, listed_contents, load_data

__all__ = ["DATASETS", "Batches", "Data", "DataError", "check_data", "listed_contents", "load_data"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import load

    return getattr(load, name)
