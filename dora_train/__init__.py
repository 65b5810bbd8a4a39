"""Deep learning experiments that know which run is which, whether it finished, and whether its number can be trusted.

Reading order: train.py, data.py, model.py, module.py, counters.py (the researcher's rooms), then engine/.
Nothing is imported here, so that reading a result costs nothing.
"""
