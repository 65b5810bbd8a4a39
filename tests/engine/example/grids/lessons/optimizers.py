"""Which optimizer learns most in ten epochs, each with the best of four learning rates?"""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.bind_({"trainer.max_epochs": 10})
    for values, key, rates in [
        ({"optim.momentum": 0.0}, "optim.lr", [0.1, 0.3, 1.0, 3.0]),
        ({}, "optim.lr", [0.03, 0.1, 0.3, 1.0]),
        ({"optim.name": "adamw"}, "optim.lr", [1e-3, 3e-3, 1e-2, 3e-2]),
        ({"optim.name": "muon"}, "optim.matrix_lr", [0.01, 0.03, 0.1, 0.3]),
    ]:
        for rate in rates:
            for seed in range(5):
                launcher({**values, key: rate, "seed": seed})
