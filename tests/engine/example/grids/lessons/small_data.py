"""What do augmentation and label smoothing bring as the data shrink? Equal steps, not epochs."""

from dora_train.explorers import MainMetrics


@MainMetrics
def explorer(launcher):
    # 380 steps are 20 epochs of all the data. A validation every 38 of them, whatever an epoch has.
    launcher.bind_({"trainer.max_epochs": -1, "trainer.max_steps": 380})
    launcher.bind_({"trainer.check_val_every_n_epoch": None, "+trainer.val_check_interval": 38})
    launcher.bind_({"checkpoint.every_epochs": 100, "optim.lr": 0.1})
    for share in [0.01, 0.1, 1.0]:
        for augment in [False, True]:
            for smoothing in [0.0, 0.1]:
                values = {"data.share": share, "data.augment": augment}
                for seed in range(5):
                    launcher({**values, "loss.label_smoothing": smoothing, "seed": seed})
