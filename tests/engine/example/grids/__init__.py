"""Grids: one file, one question.

`dora grid NAME` keeps the jobs in step with the file grids/NAME.py.
"""
