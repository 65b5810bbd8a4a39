"""Settings of Dora, and of Lightning's Trainer, that have no place here, and what does their work.

Light: a grid file that asks for one is told so, with its line, long before a job would import Lightning.
"""

from .errors import UserError

DORA = {
    "git_save": "a job runs a snapshot of the files as they are: code: snapshot, or live",
    "shared": "set DORA_DIR to a common folder, or use dora export and dora import",
    "local_code": "a job runs a snapshot of the files as they are: code: snapshot",
    "post_git_save_commands": "a snapshot needs no commands",
    "use_rendezvous": "ranks meet through a port",
}
TRAINER = {  # and where it comes from
    "devices": "the ranks: dora run -d --ddp_workers 2, torchrun, or slurm.gpus",
    "num_nodes": "the ranks: job.nodes",
    "strategy": "the ranks: one process, or DDP",
    "callbacks": "dora_train/engine/run/trainer.py",
    "logger": "logger=[tensorboard,csv]",
    "plugins": "the ranks",
    "default_root_dir": "DORA_DIR",
    "use_distributed_sampler": "dora_train/data.py: its batches are shared by the ranks already",
    "enable_checkpointing": "the run, which always keeps last.ckpt and best.ckpt",
    "enable_progress_bar": "the run: a bar on a terminal, lines elsewhere",
    "enable_model_summary": "the run, which says the number of parameters",
    "barebones": "logger=[] and checkpoint.every_epochs",
}


def refuse_trainer_key(key: str) -> None:
    """Raises: UserError where `key` is `trainer.` and a keyword that is not the user's."""
    section, _, name = key.partition(".")
    if section == "trainer" and name in TRAINER:
        raise UserError(f"trainer.{name} is not set here: it comes from {TRAINER[name]}.")
