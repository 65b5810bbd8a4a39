"""Every private name of Dora, Hydra, submitit, Lightning and Python that we touch, as public ones of ours.

No other folder may touch one. Each use says which version needs it. `tests/engine/test_upstream.py` fails
the day upstream changes what is assumed here.
"""
