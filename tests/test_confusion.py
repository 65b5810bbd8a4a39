"""The confusion matrix of the test set: it agrees with the accuracy, and with any number of
ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from project import Project

from dora_train.confusion import Confusion
from dora_train.engine.experiment.folder import Experiment

RUN = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "threads=1",
    "trainer.limit_train_batches=5",
]


@pytest.mark.slow
def test_it_agrees_with_the_accuracy_whatever_the_ranks(tmp_path):
    one, two = Project(tmp_path / "one"), Project(tmp_path / "two")
    one.dora("run", *RUN)
    two.dora("run", "-d", "--ddp_workers", "2", *RUN)
    for project in (one, two):
        matrix, result = project.xp.confusion(), project.xp.result()
        total = sum(map(sum, matrix))
        assert len(matrix) == len(project.xp.inputs()["classes"]) == 10 and total == 299
        assert sum(matrix[at][at] for at in range(10)) / total == pytest.approx(
            result["test"]["acc"]
        )
    mine, theirs = one.xp.confusion(), two.xp.confusion()
    assert list(map(sum, mine)) == list(map(sum, theirs)), (
        "every sample once, in the row of its class"
    )
    moved = sum(abs(a - b) for rows in zip(mine, theirs) for a, b in zip(*rows)) / 2
    assert moved <= 3, (
        "two ranks round otherwise, which a doubtful image may be taken for another class by"
    )


def counted(outputs: torch.Tensor, labels: torch.Tensor, folder: Path) -> Any:
    confusion = Confusion()
    confusion.add(outputs[:1], labels[:1])
    confusion.add(outputs[1:], labels[1:])
    confusion.write(folder / "confusion.json")
    return Experiment(folder).confusion()


def test_rows_are_the_truth(tmp_path: Path):
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    labels = torch.tensor([0, 1, 2])
    assert counted(logits, labels, tmp_path) == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_very_many_classes_have_no_matrix(tmp_path: Path):
    labels = torch.zeros(2, dtype=torch.int64)
    assert counted(torch.zeros(2, 201), labels, tmp_path) is None
    assert counted(torch.zeros(2, 200), labels, tmp_path)[0][0] == 2
