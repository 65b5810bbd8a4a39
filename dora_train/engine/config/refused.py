"""Settings of Dora and of Lightning's Trainer that are not supported here, and what to use instead.

It imports nothing slow: a grid file that asks for one is refused, with its line, long before a job
would import Lightning.
"""

from collections.abc import Iterable

from ..errors import UserError

DORA = {
    "git_save": "a job runs a snapshot of the files as they are: code: snapshot, or live",
    "shared": "set DORA_DIR to a common folder, or use dora export and dora import",
    "local_code": "a job runs a snapshot of the files as they are: code: snapshot",
    "post_git_save_commands": "a snapshot needs no commands",
    "use_rendezvous": "ranks meet through a port",
}
TRAINER = {  # keyword -> what to use instead
    "devices": "the ranks decide: dora run -d --ddp_workers 2, torchrun, or slurm.gpus",
    "num_nodes": "the ranks decide: job.nodes",
    "strategy": "the ranks decide: one process, or DDP",
    "plugins": "the ranks decide",
    "callbacks": "add yours to Classifier.configure_callbacks in dora_train/module.py",
    "logger": "logger=[tensorboard,csv]",
    "default_root_dir": "DORA_DIR=folder",
    "use_distributed_sampler": "the batches of dora_train/data/load.py are shared by the ranks already",
    "reload_dataloaders_every_n_epochs": "each epoch draws its batches anew already",
    "limit_predict_batches": "python -m dora_train.predict SIG PATH takes all images",
    "fast_dev_run": "debug=fast",
    "profiler": "profile=true, or debug=profile",
    "model_registry": "last.ckpt and best.ckpt lie in the experiment's folder",
    "enable_checkpointing": "a run always keeps last.ckpt and best.ckpt: checkpoint.keep=best keeps the least",
    "enable_progress_bar": "a terminal has a bar, a log has lines",
    "enable_model_summary": "the second line of a run says the number of parameters",
    "barebones": "logger=[] and checkpoint.every_epochs",
}


def refuse_trainer_key(key: str) -> None:
    """Refuse a keyword of the Trainer that the user does not set here.

    Args:
        key: a dotted key. All but `trainer.NAME` pass.

    Raises:
        UserError: it says what to use instead.
    """
    section, _, name = key.partition(".")
    if section == "trainer" and name in TRAINER:
        raise UserError(f"trainer.{name} is not set here: {TRAINER[name]}.")


def refuse_reserved(overrides: Iterable[str]) -> None:
    """Refuse overrides of keys that are not the user's: `dora.*`, and keywords of the Trainer.

    Raises:
        UserError: it says what to use instead.
    """
    for text in overrides:
        if text.lstrip("+~").startswith("dora."):
            raise UserError(
                f'"{text}": dora.* is read before any override.',
                "where things land: DORA_DIR=folder; the rest: conf/config.yaml",
            )
        refuse_trainer_key(text.partition("=")[0].lstrip("+").strip())
