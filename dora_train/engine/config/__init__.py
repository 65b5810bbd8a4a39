"""Overrides become values, and what differs from the defaults makes the signature.

compose.py     overrides -> configuration -> what differs from the defaults
bases.py       the configuration of each combination of groups, as Hydra composes it
leaves.py      puts single values into a copy of one, in plain Python
apply.py       puts the values of overrides into a configuration
overrides.py   overrides as Hydra's parser reads them
keys.py        the rules for a key and its value
recipes.py     the files of conf/experiment and conf/debug: the same rules apply to them
limits.py      the values that the engine's own keys take
refused.py     settings that are not supported here
direction.py   whether more or less of best.metric is better
defaults.py    the engine's own keys, if a configuration lacks them
values.py      a configuration as plain dicts
quoting.py     a grid's values as overrides
gridfile.py    the text of a grid file, for `dora_train.sweep` and the report
"""
