"""A configuration without the engine's keys: an old one after an upgrade, or one that was tidied."""

from __future__ import annotations

import re

import pytest
import yaml
from forked import Run
from project import ROOT, Project

from dora_train.engine.config.defaults import DEFAULTS, with_defaults

CONFIG = (ROOT / "conf/engine.yaml").read_text()
ELSEWHERE = {"best", "threads", "data", "slurm"}  # see defaults.py


def test_the_defaults_are_those_of_the_configuration():
    config = yaml.safe_load(CONFIG) | yaml.safe_load((ROOT / "conf/config.yaml").read_text())
    for key, default in DEFAULTS.items():
        if key not in ELSEWHERE:
            named = (
                {name: config[key][name] for name in default}
                if isinstance(default, dict)
                else config[key]
            )
            assert named == default, key


def test_what_is_there_stays():
    values = {"ema": {"decay": 0.9}, "trainer": {"max_epochs": 3}, "logger": [], "mine": 1}
    filled = with_defaults(values)
    assert filled["ema"] == {"decay": 0.9} and filled["logger"] == [] and filled["mine"] == 1
    assert filled["trainer"] == {"accelerator": "auto", "max_epochs": 3}
    assert filled["best"] == {"metric": "valid.loss", "mode": "min"}
    assert with_defaults({"job": None})["job"] is None, "a blank key is a value"


def without(*keys: str) -> str:
    """The configuration without some sections."""
    kept, drops = [], False
    for line in CONFIG.splitlines():
        section = re.match(r"([a-z_]+):", line)
        if section:
            drops = section[1] in keys
        if not drops:
            kept.append(line)
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize(
    "keys",
    [
        ["ema", "early_stopping", "stop_on_nan", "callbacks", "compile", "channels_last"],
        ["checkpoint", "logger", "profile", "code", "continue_from"],
        ["slurm", "job", "sbatch", "local", "cluster"],
        ["trainer"],
    ],
)
def test_a_run_without_keys(keys: list[str], copy: Project):
    (copy.root / "conf/engine.yaml").write_text(without(*keys))
    epochs = "+trainer.max_epochs=1" if keys == ["trainer"] else "trainer.max_epochs=1"
    run = Run(copy, "run", epochs, "threads=1")
    assert run.wait() == 0 and "finished" in run.text, run.text
    assert copy.xp.result()["best"]["value"] > 0


def test_one_file_of_before(copy: Project):
    """All keys in conf/config.yaml, as it was before there were tasks."""
    config = yaml.safe_load((copy.root / "conf/config.yaml").read_text())
    del config["defaults"]
    for name in ("engine", "task/images"):
        config = yaml.safe_load((copy.root / f"conf/{name}.yaml").read_text()) | config
    del config["task"]
    defaults = [{"data": "digits"}, "_self_", {"experiment": None}, {"debug": None}]
    text = yaml.safe_dump({"defaults": defaults, **config}, sort_keys=False)
    (copy.root / "conf/config.yaml").write_text(text)
    for name in ("engine.yaml", "task/images.yaml"):
        (copy.root / "conf" / name).unlink()
    run = Run(copy, "run", "debug=fast", "optim.lr=0.1", "threads=1")
    assert run.wait() == 0 and copy.xp.birth().delta == [["debug", "fast"], ["optim.lr", 0.1]], (
        run.text
    )


@pytest.mark.slow
def test_a_job_without_keys(copy: Project):
    keys = [key for key in DEFAULTS if key not in ("trainer", "data", "threads")]
    (copy.root / "conf/engine.yaml").write_text(without(*keys))
    copy.env["DORA_CLUSTER"] = "local"
    copy.dora("launch", "trainer.max_epochs=1", "threads=1", "-a")
    assert copy.xp.result()["epochs"] == 1
