"""Deep learning experiments with known identity, state and result.

Each run knows its signature, whether it is finished, and whether its numbers can be trusted.

Reading order: train.py, data/, model.py, module.py, counters.py (the researcher's files), then
predict.py, then engine/. Nothing is imported here, so that a command which reads a result starts
fast.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trained import Trained


def load(sig: str) -> "Trained":
    """The network of an experiment with its best weights, its configuration and its classes.

    For notebooks: `trained = dora_train.load("5f3a")`. Then use `trained.network(images)`,
    `trained.classes`, `trained.config["optim"]["lr"]` or `trained.classify(["digit.png"])`.

    Args:
        sig: any unambiguous beginning of its signature.

    Raises:
        UserError, DataError: see trained.py.
    """
    from .trained import load as load_trained

    return load_trained(sig)
