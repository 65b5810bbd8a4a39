"""Which learning rate, momentum, width and schedule suit the digits best, in five epochs?

Twenty trials.
"""

from dora_train.explorers import MainMetrics
from dora_train.search import Search, choice, integer, log, uniform


class Digits(Search, MainMetrics):
    space = {
        "optim.lr": log(1e-3, 1.0),
        "optim.momentum": uniform(0.0, 0.99),
        "model_args.width": integer(8, 64),
        "schedule.name": choice("cosine", "onecycle"),
    }
    trials = 20
    at_once = 2
    # or optuna, or any of theirs: nevergrad:DE, optuna:GP; random needs neither
    optimizer = "nevergrad"
    # seed = 1          # other trials; the same seed: the same trials, however long each takes
    # objective = "valid.loss"  # blank: best.metric; of another metric give the mode too
    # stop what is below the median of earlier trials; any other grid finishes it, bit for bit:
    # prune = "median"
    # begin with what other grids have run within the space:
    # reuse = True


@Digits
def explorer(launcher):
    launcher.slurm_(cpus_per_task=2).bind_({"trainer.max_epochs": 5})
