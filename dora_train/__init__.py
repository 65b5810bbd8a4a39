"""Deep learning experiments that know which run is which, whether it finished, and whether its
number can be trusted.

Reading order: train.py, data.py, model.py, module.py, counters.py (the researcher's rooms),
predict.py, then engine/. Nothing is imported here, so that reading a result costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predict import Trained


def load(sig: str) -> "Trained":
    """What an experiment has learned: its network with the best weights, its configuration, the
    names of its classes.

    For notebooks: `trained = dora_train.load("5f3a")`, then `trained.network(images)`,
        `trained.classes`,
    `trained.config["optim"]["lr"]`, `trained.classify(["digit.png"])`. See predict.py, also for
    what it raises.
    """
    from .predict import load as load_trained

    return load_trained(sig)
