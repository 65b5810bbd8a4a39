"""Ask and tell: how a search gets its trials, which are ordinary experiments.

Only grid files import it.

    space.py        what is searched: log, uniform, integer, choice
    optimizers.py   Nevergrad, Optuna and a random search, behind one small interface
    outcomes.py     the outcome of a trial, from its history, and the medians that stop later trials
    replay.py       the search as a pure function: (seed, trials, outcomes) -> the next trial
    names.py        the experiments of values, and the values of experiments
"""
