"""Where Dora meets this project.

main.py    the decorator: an experiment from overrides, from a signature, from a job
verbs.py   what each of Dora's verbs does here
"""
