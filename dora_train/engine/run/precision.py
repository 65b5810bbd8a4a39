"""The effect of `trainer.precision` on a network and its input, for predict.py.

That command measures a network without a training.
"""

import logging

import pytorch_lightning as pl
from pytorch_lightning.plugins import Precision
from pytorch_lightning.plugins.environments import LightningEnvironment


def precision_on_cpu(precision: str | None) -> Precision:
    """Return Lightning's plugin, with `convert_module`, `convert_input` and `test_step_context`."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)  # the trainer lists the devices that it does not use
    try:
        # Lightning chooses the plugin itself, by rules of its own, when it builds a trainer.
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            plugins=[LightningEnvironment()],
            logger=False,
            enable_checkpointing=False,
        )
    finally:
        logger.setLevel(level)
    return trainer.precision_plugin
