"""Where Dora meets this project: the decorator on `main`, and what each verb does.

main.py    the decorator: an experiment from overrides, from a signature, from a job
verbs.py   what each of Dora's verbs does here
"""
