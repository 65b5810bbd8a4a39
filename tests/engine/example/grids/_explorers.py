"""Which columns the table of a grid shows: a class for each kind of question that you ask.

`dora_train.explorers` has the one that knows any task. To show more, override `get_grid_metrics` and
`process_history`, as Dora's documentation says.
"""

from dora_train.explorers import MainMetrics


class ClassifierExplorer(MainMetrics):
    """The name that grid files of before know it by."""
