"""Experiments that were made before `data.rules` keep their images, pixels and split."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import basic.train
import pl_hydra.train
from dora_train.data import load_data
from dora_train.engine.config.compose import RULE
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Birth, Job
from dora_train.engine.run import session
from dora_train.engine.run.signals import Signals
from dora_train.train import main


def write_old(root: Path) -> None:
    """Images with what the older rules pass over: transparency, folders in a class, and .webp."""
    draw = np.random.default_rng(0)
    for name, count in (("cat", 40), ("dog", 31), ("emu", 25)):
        folder = root / "train" / name
        (folder / "more").mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (12, 10, 4), dtype=np.uint8)
            Image.fromarray(pixels if number % 5 == 0 else pixels[..., :3]).save(
                folder / f"{number:04}.png"
            )
        for path in (folder / "more" / "x.png", folder / "x.webp"):
            Image.new("RGB", (9, 9)).save(path)


def test_the_numbers_of_older_experiments_are_what_they_were(tmp_path: Path):
    """As of November 2026, before rules had numbers: same images, pixels, split and batches."""
    write_old(tmp_path / "images")
    data = load_data(
        "image_folder",
        16,
        root=str(tmp_path / "images"),
        folder=str(tmp_path / "cache"),
        image_size=8,
        crop=1,
        flip=True,
        num_workers=0,
        seed=3,
        rules=1,
    )
    digest = hashlib.sha256()
    for batches in (data.train.epoch(1), data.valid.epoch(), data.test.epoch()):
        for images, labels in batches:
            digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    assert str(data) == "image_folder (78 train, 9 valid, 9 test)"
    assert digest.hexdigest() == "be648d134910decfc67f7048e4e9c34782b084535c2ba44814f9a547c5c0593e"


def test_rules_that_there_are_not(tmp_path: Path):
    write_old(tmp_path)
    with pytest.raises(ValueError, match=r"data\.rules=3: it takes 1 or 2\."):
        load_data("image_folder", 16, root=str(tmp_path), rules=3)


def test_both_rules_have_their_own_packed_file(tmp_path: Path):
    """They see other pixels in the same files."""
    write_old(tmp_path / "images")
    for name in ("cat", "dog", "emu"):
        shutil.rmtree(tmp_path / "images" / "train" / name / "more")
        (tmp_path / "images" / "train" / name / "x.webp").unlink()
    old, new = (
        load_data(
            "image_folder",
            16,
            root=str(tmp_path / "images"),
            folder=str(tmp_path / "cache"),
            image_size=8,
            rules=rules,
        )
        for rules in (1, 2)
    )
    assert len(list((tmp_path / "cache" / "packed").glob("*[!k]"))) == 2
    one, other = (data.train.source.pixels for data in (old, new))  # type: ignore[attr-defined]
    assert not torch.equal(one, other)
    assert old.inputs.on_white is False and new.inputs.on_white is True


# --- who asks for them ---


def test_a_job_and_a_notebook_take_the_rules_of_an_older_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A job that was submitted before rules had numbers knows nothing of them."""
    taken: list[Any] = []
    monkeypatch.setattr(main.dora, "dir", tmp_path)
    monkeypatch.setattr(session, "run", lambda main, xp, *args: taken.append(xp.cfg.data))
    for name, rules in (("image_folder", 1), ("digits", None)):
        old = Experiment(tmp_path / "xps" / f"{name:.4}0000".encode().hex()[:8])
        old.write_birth(
            Birth(
                sig=old.sig,
                argv=[f"data={name}"],
                delta=[["data", name]],
                config={"data": {"name": name}},
                rule=RULE,
                threads=1,
                code={},
                versions={},
                born=0.0,
                host="",
                user="",
                origin={},
            )
        )
        assert main.get_xp_from_sig(old.sig).cfg.data.get("rules") == rules
        old.intend_job(Job("token", "local", 1.0, number=1))
        main.run_job(old, "token", Signals())
        assert taken.pop().get("rules") == rules


def test_basic_keeps_the_rules_that_it_began_with(tmp_path: Path):
    def frozen(folder: Path) -> Any:
        args = basic.train.experiment_parser().parse_args(["--data=image_folder"])
        basic.train.freeze(args, folder / "args.json")
        return args.data_args.get("rules")

    for name, rules in (("old", 1), ("new", 2)):
        (tmp_path / name).mkdir()
        frozen(tmp_path / name)
        if name == "old":
            stored = basic.train.read_json(tmp_path / name / "args.json")
            del stored["data_args.rules"]
            basic.train.write_json(tmp_path / name / "args.json", stored)
        assert frozen(tmp_path / name) == rules


def test_pl_hydra_keeps_the_rules_that_it_began_with(tmp_path: Path):
    def frozen(**data: Any) -> Any:
        cfg = OmegaConf.create(
            {"data": {"name": "image_folder", **data}, "threads": 1, "dora": {"exclude": []}}
        )
        pl_hydra.train.freeze(cfg, tmp_path / "config.json")
        return cfg.data.rules

    old = {"data.name": "image_folder", "threads": 1, "dora.exclude": []}
    for stored, rules in ((old, 1), (old | {"data.rules": 2}, 2)):
        basic.train.write_json(tmp_path / "config.json", stored)
        assert frozen(rules=2) == rules
