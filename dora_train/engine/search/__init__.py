"""Ask and tell: how a search comes by its trials, which are experiments like all others.

Imported by grid files only.

    space.py        what is searched: log, uniform, integer, choice
    optimizers.py   Nevergrad, Optuna, and a plain random one, behind one small interface; imported when asked for
    outcomes.py     what came of a trial, from its history, and which of the later ones are hopeless beside it
    replay.py       the search as a pure function: (seed, what was asked, what came of it) -> what to ask next
"""
