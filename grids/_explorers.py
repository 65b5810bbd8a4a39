"""Which columns the table of a grid shows. A grid file decorates its question with one of these."""

import treetable as tt
from dora import Explorer


class ClassifierExplorer(Explorer):
    """Losses and accuracies of the last epoch, and the best validation accuracy so far."""

    # Which value of a column gets a star. Of a loss it is the lowest.
    better = {"train.acc": "max", "valid.acc": "max", "valid.best": "max"}

    def get_grid_metrics(self):
        return [
            tt.group("train", [tt.leaf("loss", ".3f"), tt.leaf("acc", ".3f")]),
            tt.group(
                "valid", [tt.leaf("loss", ".3f"), tt.leaf("acc", ".3f"), tt.leaf("best", ".3f")]
            ),
        ]

    def process_history(self, history):
        # the last of each
        metrics = {split: dict(values) for entry in history for split, values in entry.items()}
        accuracies = [entry["valid"]["acc"] for entry in history if "acc" in entry.get("valid", {})]
        if accuracies:
            metrics["valid"]["best"] = max(accuracies)
        return metrics
