"""The pipeline with Lightning and Hydra:

`python -m pl_hydra.train optim.lr=0.1 model=mobilenet_v2`.

Hydra composes the configuration, names the folder and sweeps (`-m optim.lr=0.05,0.1`); Lightning
loops, checkpoints and logs. Data, model and module are `dora_train`'s; callbacks.py has what it
takes to resume exactly. What Dora adds on top (signatures, grids, jobs that are never doubled) is
in `dora_train/`.

Hydra's Optuna sweeper works (`pip install --no-deps hydra-optuna-sweeper`, 1.3.0; `-m
hydra/sweeper=optuna 'optim.lr=interval(0.01,0.1)'`); its Nevergrad sweeper (1.2.0) wants numpy
below 1.20 and Python below 3.11.
"""

import json
import logging
import signal
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hydra
import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from dora_train.counters import seed_all
from dora_train.data import check_data, load_data
from dora_train.data.image_list import OLDEST_RULES
from dora_train.data_error import DataError
from dora_train.model import build_model, check_model, prepare_model
from dora_train.module import Classifier
from dora_train.optim import check_training
from pl_hydra.callbacks import (
    Epochs,
    History,
    SeedEachBatch,
    WholeFiles,
    best_of,
    checkpoints,
    shown,
    write_json,
)

log = logging.getLogger("pl_hydra")


def run_name(*, _root_: Any) -> str:
    """`model=resnet18,optim.lr=0.1`: the overrides, sorted, less the keys that cannot change a
    result.

    Hydra's own `hydra.job.override_dirname` does nearly that; it breaks on values with a slash, and
    is empty for none.
    """
    overrides = {}
    for text in _root_.hydra.overrides.task:
        key, equals, value = text.partition("=")
        key = key.lstrip("+")
        if not is_excluded(key.lstrip("~"), _root_):
            overrides[key] = quote(key, safe="@~") + equals + quote(value, safe="[]{}: ")
    name = ",".join(overrides[key] for key in sorted(overrides)) or "default"
    return name if len(name) <= 200 else f"{name[:190]}~{zlib.crc32(name.encode()):08x}"


def is_excluded(key: str, cfg: Any) -> bool:
    return any(fnmatch(key, pattern) for pattern in [*cfg.dora.exclude, "dora.*", "slurm.*"])


OmegaConf.register_new_resolver("run_name", run_name, replace=True)


@hydra.main(config_name="pl_hydra", config_path="../conf", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """One experiment, once. Returns the best value of `best.metric`, for Hydra's sweepers."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check(cfg)
    except ValueError as error:
        sys.exit(str(error))
    try:
        # two processes that write the same files would ruin both
        with FileLock(folder / ".lock", timeout=0):
            freeze(cfg, folder / "config.json")
            result = read_json(folder / "result.json")
            if result:
                log.info("%s  finished · nothing to do · to run anew: remove the folder", folder)
            else:
                result = train(cfg, folder)
            return result["best"].get("value")
    except Timeout:
        sys.exit(f"{folder} is being trained by another process.")
    except DataError as error:  # files that are missing or broken: the message says what to do
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        log.exception("failed")  # Hydra would show it on the terminal alone
        sys.exit(1)


def check(cfg: DictConfig) -> None:
    """Raises: ValueError where the configuration asks for what is not there."""
    if cfg.task != "images":
        raise ValueError(f"task={cfg.task} is not to be had here: dora run takes it.")
    check_data(**cfg.data)
    check_training(cfg.optim, cfg.schedule, cfg.trainer, cfg.loss)
    check_model(cfg.model, **cfg.model_args)
    check_direction(cfg.best.metric, cfg.best.mode, HydraConfig.get().overrides.task)
    for key in ("ema.decay", "early_stopping.patience", "continue_from"):
        if OmegaConf.select(cfg, key) not in (None, ""):
            raise ValueError(f"{key} is not to be had here: dora run takes it.")


def check_direction(metric: str, mode: str, overrides: Sequence[str]) -> None:
    """Raises: ValueError if nobody said whether more of the metric is better, or said it
    wrongly."""
    keys = {text.partition("=")[0].lstrip("+") for text in overrides}
    if "best.metric" in keys and "best.mode" not in keys and metric != "valid.acc":
        raise ValueError(
            f"best.metric={metric} needs its direction: best.mode=max or best.mode=min."
        )
    if "loss" in metric and mode == "max":
        raise ValueError(
            f"best.mode=max: {metric} is a loss, and less of it is better: best.mode=min."
        )


def freeze(cfg: DictConfig, path: Path) -> None:
    """Keep what the run was made with: neither Hydra nor Lightning notices a default that was
    edited since."""
    given = dict(flattened(OmegaConf.to_container(cfg, resolve=True)))
    frozen = read_json(path)
    if frozen is None:
        write_json(path, given)
        return
    # its name does not tell the number of threads, but its last digits do
    cfg.threads = frozen["threads"]
    if "data.rules" in given and "data.rules" not in frozen:  # made before there was such a key
        frozen["data.rules"] = given["data.rules"] = cfg.data.rules = OLDEST_RULES
    changed = [
        key
        for key, value in given.items()
        if not is_excluded(key, cfg) and frozen.get(key) != value
    ]
    if changed:
        key = changed[0]
        sys.exit(
            f"{path.parent} was made with {key}={frozen.get(key)}; it is {given[key]} now: "
            "remove the folder, or give a tag=WORD"
        )


def flattened(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """{"optim": {"lr": 1}} as ("optim.lr", 1)."""
    if not isinstance(config, dict):
        yield key, config
        return
    for name, value in config.items():
        yield from flattened(value, f"{key}.{name}" if key else str(name))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def train(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Fit from last.ckpt where there is one; then measure best.ckpt on the test set, once."""
    quieten()
    torch.set_num_threads(cfg.threads)  # the order of a sum, hence its last bits, depends on it
    seed_all("weights", cfg.seed)
    data = load_data(**cfg.data, seed=cfg.seed)
    model = build_model(cfg.model, data.num_classes, data.image_size, **cfg.model_args)
    prepare_model(model, data.train)
    module = Classifier(model, cfg.optim, cfg.schedule, cfg.loss, cfg.test.mirror)
    data.train.check(model)
    if cfg.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if cfg.compile:
        module.compile()
    history = History(folder / "history.json", cfg.best.metric, cfg.best.mode, cfg.stop_on_nan)
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    log.info("%s  %s", folder, "resumes" if last.exists() else "new")

    metric, mode = cfg.best.metric.replace(".", "/"), cfg.best.mode
    trainer = pl.Trainer(
        **{key: value for key, value in cfg.trainer.items() if value is not None},
        devices=1,
        callbacks=[SeedEachBatch(cfg.seed), history, *checkpoints(folder, metric, mode)],
        plugins=[WholeFiles()],
        logger=loggers(cfg.logger or [], folder, last),
        default_root_dir=folder,
        use_distributed_sampler=False,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
    )
    leave_in_order(
        lambda: trainer.fit(
            module,
            Epochs(data.train, trainer),
            Epochs(data.valid),
            weights_only=True,
            ckpt_path=last if last.exists() else None,
        ),
        trainer,
    )
    epochs, steps = len(history.entries), trainer.global_step  # the test loads another checkpoint
    trainer.test(
        module,
        Epochs(data.test),
        ckpt_path=best if best.exists() else last,
        verbose=False,
        weights_only=True,
    )
    result: dict[str, Any] = {
        "best": best_of(history.entries, metric, mode),
        "test": history.test.metrics(),
        "epochs": epochs,
        "steps": steps,
        "reason": reason_of(trainer, epochs),
    }
    write_json(folder / "result.json", result)
    log.info("finished · best valid %s · test %s", shown(result["best"]), shown(result["test"]))
    return result


def loggers(names: Sequence[str], folder: Path, last: Path) -> list[Logger]:
    """TensorBoard is told from which step on a killed attempt's events are void; CSVLogger gets the
    past again."""
    step = (
        torch.load(last, map_location="cpu", weights_only=True)["global_step"] + 1
        if last.exists()
        else None
    )
    made = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="", version="", purge_step=step),
        "csv": lambda: CSVLogger(folder, name="", version=""),
    }
    return [made[name]() for name in names]


def leave_in_order(fit: Callable[[], None], trainer: pl.Trainer) -> None:
    """Lightning 2.6 ends with exit code 1 at Ctrl-C, and with 0, as if all were done, at
    SIGTERM."""
    try:
        fit()
    except SystemExit:
        sys.exit(128 + (signal.SIGTERM if trainer.received_sigterm else signal.SIGINT))


def reason_of(trainer: pl.Trainer, epochs: int) -> str:
    if epochs == trainer.max_epochs:
        return "max_epochs"
    return "max_steps" if trainer.global_step == trainer.max_steps else "stopped early"


def quieten() -> None:
    """Lightning's advertising, and its advice on what is on purpose here."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "does not have many workers",
        "smaller than the logging interval",
        "exists and is not empty",
        "available but not used",
        "LeafSpec",
        "command is available",
    ):
        warnings.filterwarnings("ignore", message=f".*{text}.*")


if __name__ == "__main__":
    # a terminal of another encoding shows ? for the letters that it lacks
    sys.stdout.reconfigure(errors="replace")
    # Which keywords a model has is not in the configuration, and Hydra wants a plus before what is
    # not.
    sys.argv[1:] = [f"++{arg}" if arg.startswith("model_args.") else arg for arg in sys.argv[1:]]
    main()
