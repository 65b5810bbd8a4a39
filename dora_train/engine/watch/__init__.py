"""Looks at experiments, and never acts.

status.py    the state of an experiment, from its folder and its executor
facts.py     gathers the facts that it decides by
info.py      `dora info`: one experiment on a dozen lines
board.py     a table on a terminal
columns.py   the columns, the lines and the parts of a table
layout.py    which columns fit into a width
drawing.py   the rows of a table, folded and with headings
live.py      draws a table again and again, until all experiments are done
best.py      which value of a metric is the best
progress.py  how far a run is, and times as text
usage.py     what an experiment has used
times.py     when an experiment ran, and for how long
curves.py    the command that shows its curves
logs.py      the last lines of a log
"""
