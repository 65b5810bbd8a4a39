"""Does the best learning rate move with the batch size?"""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.slurm_(cpus_per_task=2)
    for batch_size in [32, 128]:
        sub = launcher.bind({"data.batch_size": batch_size})
        for lr in [0.02, 0.05, 0.1]:
            sub({"optim.lr": lr})
