"""How much of a difference between two runs is noise? One setting, five seeds."""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.slurm_(cpus_per_task=2)
    for seed in range(5):
        launcher({"seed": seed})
