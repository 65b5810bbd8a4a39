"""One experiment, as a story: data, model, module, fit. Run it with `dora run`, sweep it with `dora grid`.

What comes before `main` (signature, folder, claim) and behind `train` (devices, callbacks, checkpoints) is in
`engine/`. Torch and Lightning are imported inside `main`: every verb of Dora imports this file.
"""

from .engine.main import hydra_main


def check(cfg):
    """Whether there is such a model, such data and such an optimizer: asked before anything is on disk.

    Raises:
        ValueError: its message is shown to the user.
    """
    from .data import check_data
    from .model import check_model
    from .optim import check_training

    check_data(**cfg.data)
    check_training(cfg.optim, cfg.schedule, cfg.trainer, cfg.loss)
    check_model(cfg.model, **(cfg.model_args or {}))


@hydra_main(config_name="config", config_path="../conf", version_base="1.3", check=check)
def main(cfg):
    from .counters import seed_all
    from .data import load_data
    from .engine.run.trainer import train
    from .model import build_model
    from .module import Classifier

    seed_all("weights", cfg.seed)
    data = load_data(**cfg.data, seed=cfg.seed)
    model = build_model(cfg.model, data.num_classes, data.image_size, **(cfg.model_args or {}))
    module = Classifier(model, cfg.optim, cfg.schedule, cfg.loss, steps_per_epoch=len(data.train))
    return train(module, data, cfg)  # resumes where the last attempt stopped


if __name__ == "__main__":
    main()
