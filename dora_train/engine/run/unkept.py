"""Says at the start which objects of the researcher hold state that no checkpoint will hold.

It sees what can be known before the first step. `python -m dora_train.check` finds the rest.
"""

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.optim import Optimizer
from torchmetrics import Metric

from ..errors import shortened
from .suspects import GENERATORS


class SayUnkept(pl.Callback):
    """Names generators, optimizers and torchmetrics objects that a resume would make anew.

    An object that says itself what a checkpoint holds of it is believed.

    Args:
        say: called with the line.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        names = [*_of_module(trainer, module), *_of_data(trainer), *_of_callbacks(trainer)]
        if names:
            self.say(
                f"warning: no checkpoint holds {shortened(names, 3)}: a run that resumes may end "
                "with other numbers; see docs/exactness.md"
            )


def _of_module(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[str]:
    if is_overridden("on_save_checkpoint", module):
        return
    known = set(map(id, trainer.optimizers))
    for name, value in _attributes(module):
        if isinstance(value, GENERATORS):
            yield f"the generator {name}"
        elif isinstance(value, Optimizer) and id(value) not in known:
            yield f"the optimizer {name}, which configure_optimizers does not return"


def _of_data(trainer: pl.Trainer) -> Iterator[str]:
    data = getattr(trainer, "datamodule", None)
    if data is None or is_overridden("state_dict", data, pl.LightningDataModule):
        return
    for name, value in _attributes(data):
        if isinstance(value, GENERATORS):
            yield f"the generator {name}"


def _of_callbacks(trainer: pl.Trainer) -> Iterator[str]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it later
        if is_overridden("state_dict", callback, pl.Callback):
            continue
        if is_overridden("on_save_checkpoint", callback, pl.Callback):
            continue
        for name, value in _attributes(callback):
            if isinstance(value, GENERATORS):
                yield f"the generator {name}"
            elif isinstance(value, Metric):
                yield f"the metric {name}"


def _attributes(one: object) -> Iterator[tuple[str, object]]:
    for name, value in list(vars(one).items()):
        yield f"{type(one).__name__}.{name}", value
