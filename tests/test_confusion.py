"""The confusion matrix of the test set: it agrees with the accuracy, and with any number of
ranks."""

import pytest
import torch
from project import Project

from dora_train.engine.run.confusion import Confusion

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


class Net(torch.nn.Module):
    device = torch.device("cpu")

    def forward(self, outputs):
        return outputs


def counted(outputs, labels, classes=3):
    confusion, net = Confusion(classes, 1), Net()
    confusion.on_test_start(None, net)
    net(outputs)
    confusion.on_test_batch_end(None, net, {}, (outputs, labels), 0)
    confusion.on_test_end(None, net)
    net(outputs)  # the hook is gone: this counts no more
    return confusion.matrix()


def test_rows_are_the_truth():
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 9.0, 0]])
    assert counted(logits, torch.tensor([0, 1, 2])) == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    "outputs, labels",
    [
        (torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2)),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.int64)),
        ({"logits": torch.zeros(2, 3)}, torch.zeros(2)),
    ],
)
def test_other_tasks_have_none(outputs, labels):
    assert counted(outputs, labels) is None
