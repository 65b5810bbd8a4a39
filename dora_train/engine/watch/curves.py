"""The command that shows the curves of an experiment, for its last lines and for `dora info`."""

import shlex

from ..experiment.folder import Experiment
from ..shell import typed
from ..words import shown_path


def command(experiment: Experiment, siblings: bool = False) -> str:
    """TensorBoard if the experiment has events for it, else the page of the report.

    Args:
        siblings: whether TensorBoard is to show all experiments beside it, too.
    """
    sig, folder = experiment.sig, experiment.folder
    if not any(folder.glob("events.out.tfevents.*")):
        return f"{typed('python')} -m dora_train.report {sig} --html {sig}.html"
    shown = folder.parent if siblings else folder
    return f"{typed('tensorboard')} --logdir {shlex.quote(shown_path(shown))}"
