"""What `trainer.precision` does to a network and to its input, for predict.py.

It measures a network without a training.
"""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment


def precision_on_cpu(precision: str | None) -> Any:
    """Lightning's plugin, with `convert_module`, `convert_input` and `test_step_context`."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)  # the trainer lists the devices that it does not use
    try:
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
