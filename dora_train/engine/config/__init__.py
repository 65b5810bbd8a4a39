"""Overrides become values, and what differs from the defaults makes the signature.

compose.py       overrides -> configuration -> what differs from the defaults
overrides.py   overrides as Hydra's parser reads them; keys.py: what a key takes
recipes.py     the files of conf/experiment and conf/debug: held to the rules of the command line
limits.py      what the engine's own keys take; refused.py: settings that are not supported here
direction.py   whether more or less of best.metric is better: said, never guessed
values.py      a configuration as plain dicts; quoting.py: a grid's values as overrides
gridfile.py    the text of a grid file, for `dora_train.sweep` and the report
"""
