"""Does the best learning rate grow with the batch size? Plain SGD with momentum, equal epochs."""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.bind_({"trainer.max_epochs": 10})
    for batch_size in [16, 64, 256]:
        for lr in [0.01, 0.03, 0.1, 0.3, 1.0]:
            for seed in range(5):
                launcher({"data.batch_size": batch_size, "optim.lr": lr, "seed": seed})
