"""One experiment, as a story: data, model, module, fit.

Run it with `dora run`, sweep it with `dora grid`.

What comes before `main` (signature, folder, claim) and behind `train` (devices, callbacks,
checkpoints) is in `engine/`. Torch and Lightning are imported inside `main`: every verb of Dora
imports this file.
"""

from .data.image_list import with_rules
from .engine.dora.main import hydra_main

# Asked before anything is on disk, with the configuration's values of these names, once for each
# that differ. A ValueError's message is shown to the user.


def data_exists(data):
    from .data import check_data

    check_data(**data)


def model_exists(model, model_args):
    from .model import check_model

    check_model(model, **(model_args or {}))


def training_is_sound(optim, schedule, trainer, loss):
    from .optim import check_training

    check_training(optim, schedule, trainer, loss)


def as_stored(config):
    """The configuration of an older experiment, with today's keys as they would have been set."""
    data = config.get("data")
    return {**config, "data": with_rules(data)} if data else config


def files_of_data(data):
    """{file: [part, size, None]}: what a resume compares before it reads the files."""
    from .data import listed_contents

    return listed_contents(**data)


@hydra_main(
    config_name="config",
    config_path="../conf",
    version_base="1.3",
    checks=[data_exists, model_exists, training_is_sound],
    as_stored=as_stored,
    files_of_data=files_of_data,
)
def main(cfg):
    from .counters import seed_all
    from .data import load_data
    from .engine.run.trainer import train
    from .model import build_model
    from .module import Classifier

    seed_all("weights", cfg.seed)
    data = load_data(**cfg.data, seed=cfg.seed)
    model = build_model(cfg.model, data.num_classes, data.image_size, **(cfg.model_args or {}))
    module = Classifier(model, cfg.optim, cfg.schedule, cfg.loss)
    return train(module, data, cfg)  # resumes where the last attempt stopped


if __name__ == "__main__":
    main()
