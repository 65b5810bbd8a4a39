"""What do a schedule and a warm-up bring, at a moderate and at a high learning rate?"""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    launcher.bind_({"trainer.max_epochs": 10})
    for lr in [0.05, 0.5]:
        for name in ["none", "cosine", "onecycle"]:
            for warmup in [0.0, 1.0, 3.0]:
                values = {"optim.lr": lr, "schedule.name": name, "schedule.warmup_epochs": warmup}
                for seed in range(5):
                    launcher({**values, "seed": seed})
