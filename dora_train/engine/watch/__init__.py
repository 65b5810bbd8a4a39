"""Looks at experiments, and never acts.

status.py    the state of an experiment, from its folder and its executor
facts.py     gathers the facts that it decides by
info.py      `dora info`: one experiment on a dozen lines
board.py     a table on a terminal
columns.py   the columns and lines of a table
layout.py    which columns fit into a width
live.py      draws a table again and again, until all experiments are done
best.py      which value of a metric is the best
progress.py  how far a run is, and times as text
logs.py      the last lines of a log
"""
