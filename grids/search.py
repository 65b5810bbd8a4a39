"""Which learning rate, momentum, width and schedule suit the digits best, in five epochs?

Twenty trials.
"""

from dora_train.search import Search, choice, integer, log, uniform

from ._explorers import ClassifierExplorer


class Digits(Search, ClassifierExplorer):
    space = {
        "optim.lr": log(1e-3, 1.0),
        "optim.momentum": uniform(0.0, 0.99),
        "model_args.width": integer(8, 64),
        "schedule.name": choice("cosine", "onecycle"),
    }
    objective = "valid.acc"
    trials = 20
    at_once = 2
    # or optuna, or any of theirs: nevergrad:DE, optuna:GP; random needs neither
    optimizer = "nevergrad"
    # seed = 1          # other trials; the same seed: the same trials, however long each takes
    # prune = "median"  # stop what is below the median of earlier trials; any other grid finishes
    # it, bit for bit reuse = True      # begin with what other grids have run within the space


@Digits
def explorer(launcher):
    launcher.slurm_(cpus_per_task=2).bind_({"trainer.max_epochs": 5})
