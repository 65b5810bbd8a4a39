"""Is a wider or a deeper network worth its time?"""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.bind_({"trainer.max_epochs": 10, "optim.lr": 0.1})
    for width in [4, 8, 16, 32, 64]:
        for depth in [3, 5, 9]:
            for seed in range(5):
                launcher({"model_args.width": width, "model_args.depth": depth, "seed": seed})
