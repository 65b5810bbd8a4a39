"""The metrics of a trained network on its test set, measured once more: `measure(trained)`.

Called by predict.py. It runs the test step of module.py in the precision of the run. That imports
Lightning, which trained.py and predict.py do not need.
"""

import copy
import itertools
import json
import math
import sys
from dataclasses import asdict
from typing import Any

import torch

from .engine.errors import UserError
from .engine.experiment.contents import changes_that_do_no_harm
from .engine.experiment.folder import Experiment
from .trained import Trained, birth_of, data_of, load_experiment, mirrors


def measure(trained: Trained) -> dict[str, float]:
    """The metrics over the test set, computed as a run computes them.

    On the CPU in one rank, these are the numbers of `result.json`.

    Raises:
        DataError: the data set is not there, or cannot be read.
        UserError: its classes are others today, or its test set holds images that were trained on.
    """
    from .engine.run.history import Averages
    from .engine.run.precision import precision_on_cpu
    from .module import Classifier

    config = trained.config
    data = data_of(config)
    if data.classes != trained.classes:
        raise UserError(
            f"XP {trained.sig} knows {len(trained.classes)} classes, and {data} has "
            f"{len(data.classes)} others by now: it cannot be measured."
        )
    experiment = Experiment(trained.checkpoint.parent)
    warning = changes_that_do_no_harm(experiment, data.contents(), asdict(data.inputs))
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    # The mean and the std of the run's training set, which may have grown since.
    test = data.test.normalised_by(trained.inputs.mean, trained.inputs.std)
    batches = _limited(config["trainer"].get("limit_test_batches"), len(test))
    precision = precision_on_cpu(config["trainer"].get("precision"))
    loss = config.get("loss") or {"label_smoothing": 0.0}
    network = copy.deepcopy(trained.network)  # the precision may convert it
    classifier = Classifier(network, config["optim"], config["schedule"], loss)
    if mirrors(config):  # the Classifier of an older project has no such keyword
        classifier.mirror = True
    module: Any = precision.convert_module(classifier).eval()
    averages = Averages()
    for number, batch in enumerate(itertools.islice(test.epoch(), batches)):
        with torch.inference_mode(), precision.test_step_context():
            outputs = module.test_step(precision.convert_input(batch), number)
        averages.add(outputs, len(batch[1]))
    return averages.means(1)


def _limited(limit: int | float | None, batches: int) -> int:
    """As Lightning reads `limit_test_batches`: 10 is a number of batches, and 0.1 a share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def measured(experiment: Experiment) -> str:
    """The metrics as JSON. A warning says if those of the run differ.

    Raises:
        DataError: see `measure`.
        UserError: see `load` and `measure`.
    """
    torch.set_num_threads(birth_of(experiment).threads)  # another number would change sums
    trained = load_experiment(experiment)
    test = measure(trained)
    print(f"XP {experiment.sig}, {trained.checkpoint.name}, on the test set", file=sys.stderr)
    before = (experiment.result() or {}).get("test") or {}
    if not _agree(test, before):
        print(
            f"warning: the run had {json.dumps(before)}: another device, other data or other code",
            file=sys.stderr,
        )
    return json.dumps(test) + "\n"


def _agree(test: dict[str, float], before: dict[str, float]) -> bool:
    """Whether each metric of the run is measured again, with a difference below 0.1%."""
    for name, value in before.items():
        if not math.isclose(test.get(name, math.nan), value, rel_tol=1e-3):
            return False
    return True
