"""Looks at experiments, and never acts.

status.py   what state an experiment is in, from its folder and its executor; facts.py gathers
            what it looks at
info.py     `dora info`: one experiment on a dozen lines
board.py    lines of a table; best.py: which are the best; live.py draws one again and again
logs.py     the last lines of a log
"""
