"""One experiment, as a story: data, model, module, fit.

Run it with `dora run`, sweep it with `dora grid`.

The steps before `main` (signature, folder, claim) and inside `train` (devices, callbacks,
checkpoints) are in `engine/`. Torch and Lightning are imported inside the functions, because every
verb of Dora imports this file.
"""

from .data.image_list import with_rules
from .engine.dora.main import hydra_main

# The task that is built below. Experiments from before there were tasks have none.
IMAGES = ("images", None)

# Checks run before anything is written. Each receives the config values named by its parameters,
# once per distinct combination. The message of a ValueError is shown to the user.


def task_exists(task, data):
    from .tasks import check_task

    if task not in IMAGES:
        check_task(task, data)


def data_exists(task, data):
    from .data import check_data

    if task in IMAGES:
        check_data(**data)


def model_exists(task, model, model_args):
    from .model import check_model

    if task in IMAGES:
        check_model(model, **(model_args or {}))


def training_is_sound(task, optim, schedule, trainer, loss):
    from .optim import check_training

    if task in IMAGES:
        check_training(optim, schedule, trainer, loss)


def as_stored(config):
    """The configuration of an older experiment, with the values that today's new keys had then."""
    config = {"task": "images", **config}
    if config["task"] != "images":
        return config
    config = {"test": {"mirror": False}, **config}
    if config.get("data"):
        config["data"] = {"share": 1.0, **with_rules(config["data"])}
    if config.get("optim"):
        config["optim"] = {"matrix_lr": 0.02, **config["optim"]}
    return config


def files_of_data(data):
    """{file: [part, size, None]} of the data set. A resume compares it with that of the start."""
    from .data import DATASETS, listed_contents

    if data.get("name") not in DATASETS:
        return {}
    return listed_contents(**data)


@hydra_main(
    config_name="config",
    config_path="../conf",
    version_base="1.3",
    checks=[task_exists, data_exists, model_exists, training_is_sound],
    as_stored=as_stored,
    files_of_data=files_of_data,
)
def main(cfg):
    from .counters import seed_all
    from .data import load_data
    from .engine.run.trainer import train
    from .model import build_model, prepare_model
    from .module import Classifier
    from .tasks import load_task

    seed_all("weights", cfg.seed)
    if cfg.get("task") in IMAGES:
        data = load_data(**cfg.data, seed=cfg.seed)
        model = build_model(cfg.model, data.num_classes, data.image_size, **(cfg.model_args or {}))
        prepare_model(model, data.train)
        module = Classifier(model, cfg.optim, cfg.schedule, cfg.loss, cfg.test.mirror)
    else:
        module, data = load_task(cfg.task).parts(cfg)  # a file of tasks/
    return train(module, data, cfg)  # resumes where the last attempt stopped


if __name__ == "__main__":
    main()
