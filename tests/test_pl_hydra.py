"""The pipeline with Lightning and Hydra: its folder's name, its files, its resume, its sweeps."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from project import ROOT, Project, stored, weights

from pl_hydra import callbacks, train

QUICK = ["debug=fast", "threads=1"]


def run(project: Project, *argv: str, code: int | None = 0) -> str:
    return project.run("python", "-m", "pl_hydra.train", *argv, code=code)


# --- configuration and names ---


def test_configuration_extends_conf_and_copies_none():
    own = yaml.safe_load((ROOT / "conf" / "pl_hydra.yaml").read_text())
    assert own.pop("defaults") == ["config", "_self_"]
    assert set(own) == {"hydra"}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = {
            name: OmegaConf.to_container(compose(name, ["optim.lr=0.3", "debug=overfit"]))
            for name in ("config", "pl_hydra")
        }
    assert composed["pl_hydra"] == composed["config"]


@pytest.mark.parametrize(
    "overrides, name",
    [
        ([], "default"),
        (["optim.lr=0.1", "model=mobilenet_v2"], "model=mobilenet_v2,optim.lr=0.1"),
        (["model=mobilenet_v2", "optim.lr=0.3", "optim.lr=0.1"], "model=mobilenet_v2,optim.lr=0.1"),
        (["threads=1", "logger=[]", "slurm.gpus=1", "job.nodes=2"], "default"),
        (["++model_args.width=64"], "model_args.width=64"),
        (["~experiment", "tag='../a,b'"], "tag=%27..%2Fa%2Cb%27,~experiment"),
        (["tag=" + 300 * "x"], "tag=" + 186 * "x" + "~3130a7b4"),
    ],
)
def test_name(overrides: list[str], name: str):
    cfg = OmegaConf.create(
        {
            "dora": yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())["dora"],
            "hydra": {"overrides": {"task": overrides}},
            "name": "${run_name:}",
        }
    )
    cfg.dora.dir = "outputs"
    assert cfg.name == name


# --- one experiment ---


@pytest.mark.slow
def test_a_run_leaves_the_files_that_all_pipelines_have(project: Project):
    run(project, *QUICK)
    folder = project.out / "pl_hydra" / "debug=fast"
    history, result = stored(folder / "history.json"), stored(folder / "result.json")
    assert [set(entry) for entry in history] == [{"train", "valid"}] * 2
    assert all(set(entry[split]) == {"loss", "acc"} for entry in history for split in entry)
    assert set(result) == {"best", "test", "epochs", "steps", "reason"}
    assert (result["epochs"], result["steps"], result["reason"]) == (2, 8, "max_epochs")
    assert weights(folder / "last.ckpt").keys() == weights(folder / "best.ckpt").keys()
    assert "finished" in (folder / "train.log").read_text()
    assert "epoch 2/2" in (folder / "train.log").read_text()
    assert list(folder.glob("events.out.tfevents.*"))
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp" or "-v1" in path.name]
    assert "nothing to do" in run(project, *QUICK)
    assert stored(folder / "result.json") == result


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_it_goes_on(project: Project, tmp_path: Path, signum: int):
    """Lightning alone would leave with 1 and, at SIGTERM, with 0: as if all were done."""
    argv = ["trainer.max_epochs=6", "model_args.width=48", "threads=1"]
    folder = project.out / "pl_hydra" / "model_args.width=48,trainer.max_epochs=6"
    process = project.start("python", "-m", "pl_hydra.train", *argv)
    while not (folder / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert not (folder / "result.json").exists()
    before = len(stored(folder / "history.json"))
    assert f"epoch {before}/6" not in run(project, *argv), "it began anew"

    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    history = stored(folder / "history.json")
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert [row["step"] for row in rows] == [str(19 * epoch - 1) for epoch in range(1, 7)]
    assert [float(row["valid/acc"]) for row in rows] == pytest.approx(
        [entry["valid"]["acc"] for entry in history]
    )


@pytest.mark.slow
def test_multirun_gives_each_point_the_folder_that_it_would_have_alone(project: Project):
    run(project, "-m", *QUICK, "optim.lr=0.05,0.1")
    folders = [project.out / "pl_hydra" / f"debug=fast,optim.lr={lr}" for lr in (0.05, 0.1)]
    assert all((folder / "result.json").exists() for folder in folders)
    swept = stored(folders[1] / "history.json")
    assert "nothing to do" in run(project, *QUICK, "optim.lr=0.1")
    assert run(project, "-m", *QUICK, "optim.lr=0.05,0.1").count("nothing to do") == 2
    (folders[1] / "result.json").unlink()
    (folders[1] / "last.ckpt").unlink()
    run(project, *QUICK, "optim.lr=0.1")
    assert stored(folders[1] / "history.json") == swept, (
        "the second point of a sweep is not what it is alone"
    )


@pytest.mark.slow
def test_hydras_optuna_sweeper_works(project: Project):
    pytest.importorskip(
        "hydra_plugins.hydra_optuna_sweeper", reason="pip install --no-deps hydra-optuna-sweeper"
    )
    output = run(
        project,
        "-m",
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=2",
        "hydra.sweeper.direction=maximize",
        "optim.lr=interval(0.01,0.1)",
        *QUICK,
    )
    results = [stored(path) for path in sorted((project.out / "pl_hydra").glob("*/result.json"))]
    assert (
        len(results) == 2
        and "Best value: " + str(max(one["best"]["value"] for one in results)) in output
    )


@pytest.mark.slow
def test_an_edited_default_is_not_mixed_into_an_old_run(project: Project):
    run(project, *QUICK)
    path = project.out / "pl_hydra" / "debug=fast" / "config.json"
    assert stored(path)["threads"] == 1
    callbacks.write_json(path, stored(path) | {"optim.momentum": 0.8})
    assert "made with optim.momentum=0.8; it is 0.9 now" in run(project, *QUICK, code=1)


@pytest.mark.parametrize(
    "override, message",
    [
        ("model=resnet1", 'unknown model "resnet1": did you mean resnet18'),
        ("optim.name=sdg", 'unknown optim.name "sdg"'),
        ("data.batch_size=1", "batch_size=1"),
    ],
)
def test_mistake_is_a_value_error_before_anything_is_built(override: str, message: str):
    """`main` prints its message alone; Hydra itself tells of keys that are not there."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("pl_hydra", [override])
    with pytest.raises(ValueError, match=message):
        train.check(cfg)


@pytest.mark.slow
def test_an_exception_is_in_the_log(project: Project):
    assert "Traceback" in run(project, "+trainer.profiler=7-wrong", code=1)
    [log] = project.out.glob("pl_hydra/*/train.log")
    assert "7-wrong" in log.read_text() and "Traceback" in log.read_text()


# --- the callbacks ---


def test_best_is_the_first_of_equals():
    entries = [
        {"train": {"acc": 1.0}, "valid": {"loss": loss, "acc": acc}}
        for loss, acc in [(3.0, 0.1), (1.0, 0.9), (2.0, 0.9)]
    ]
    best = {"epoch": 2, "loss": 1.0, "acc": 0.9}
    assert callbacks.best_of(entries, "valid/acc", "max") == best | {"value": 0.9}
    assert callbacks.best_of(entries, "valid/loss", "min") == best | {"value": 1.0}
    assert callbacks.best_of(entries, "valid/f1", "max") == {}


def test_a_kill_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "last.ckpt"
    callbacks.WholeFiles().save_checkpoint({"state_dict": {}}, path)

    def killed(checkpoint: Any, aside: Path) -> None:
        aside.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        callbacks.WholeFiles().save_checkpoint({}, path)
    assert weights(path) == {}
