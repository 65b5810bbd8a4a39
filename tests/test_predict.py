"""A trained experiment put to use: loaded, measured once more, asked about images.

The everyday part trains nothing.

What it asks are experiments made by hand, with the store's own writing and fresh weights.
"""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import write_image_folder
from PIL import Image
from project import QUICK, ROOT, Project, stored
from torch.nn import functional

import dora_train
from dora_train.data import Data, load_data
from dora_train.data.image_list import images_at
from dora_train.data.inputs import Inputs
from dora_train.data_error import DataError
from dora_train.engine.errors import UserError
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import Birth
from dora_train.model import build_model, build_untrained
from dora_train.predict import main, measure

DIGITS = {"name": "digits", "batch_size": 64}


def make(
    out: Path, sig: str = "5f3a91c2", data: dict[str, Any] = DIGITS, **config: Any
) -> Experiment:
    """An experiment as a run leaves it, with fresh weights that depend on its signature."""
    experiment = Experiment(out / "xps" / sig)
    config = {
        "seed": 0,
        "model": "small",
        "model_args": {"width": 8},
        "data": data,
        "trainer": {},
        **config,
    }
    experiment.write_birth(Birth(sig, [], [], config, 1, 1, {"commit": "0123456789"}, {}, 0.0))
    found = load_data(**data)
    experiment.write_inputs(asdict(found.inputs))
    save(experiment.best_checkpoint, found, int(sig, 16))
    return experiment


def save(path: Path, data: Data, seed: int) -> None:
    torch.manual_seed(seed)
    network = build_model("small", data.num_classes, data.image_size, width=8)
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in network.state_dict().items()}},
        path,
    )


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DORA_DIR", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture
def made(out: Path) -> Experiment:
    return make(out)


def files_of(experiment: Experiment) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in [*experiment.folder.rglob("*"), experiment.folder]
        if path.is_file()
    }


def classified(capsysbinary: Any, *args: str) -> list[list[str]]:
    main(args)
    return list(csv.reader(capsysbinary.readouterr().out.decode().splitlines()))


# --- loading ---


def test_load_costs_nothing_before_it_is_called():
    code = "import sys, dora_train; print(callable(dora_train.load), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_the_best_weights_in_eval_mode_with_what_belongs_to_them(made: Experiment):
    before, generator = files_of(made), torch.get_rng_state()
    trained = dora_train.load("5f")
    assert (trained.sig, trained.checkpoint) == (made.sig, made.best_checkpoint)
    assert trained.classes == [str(digit) for digit in range(10)]
    assert trained.config["data"] == DIGITS and trained.config["model_args"] == {"width": 8}
    assert not any(module.training for module in trained.network.modules())
    assert {parameter.device.type for parameter in trained.network.parameters()} == {"cpu"}
    wanted = torch.load(made.best_checkpoint, weights_only=True)["state_dict"]
    state = trained.network.state_dict()
    assert {f"model.{name}" for name in state} == set(wanted)
    assert all(torch.equal(value, wanted[f"model.{name}"]) for name, value in state.items())
    assert torch.equal(torch.get_rng_state(), generator), "a notebook's random numbers are its own"
    assert files_of(made) == before


def test_the_last_weights_where_there_are_no_best(made: Experiment):
    save(made.last_checkpoint, load_data(**DIGITS), seed=1)
    best = dora_train.load(made.sig).network.state_dict()
    made.best_checkpoint.unlink()
    trained = dora_train.load(made.sig)
    assert trained.checkpoint == made.last_checkpoint
    assert not torch.equal(trained.network.state_dict()["5.weight"], best["5.weight"])


def finished(made: Experiment, epoch: int, **held: int) -> None:
    """Its result names an epoch; `best` and `last` hold the weights of these."""
    made.write_result(
        {"best": {"epoch": epoch, "acc": 0.5, "value": 0.5}, "test": {}, "epochs": 9, "steps": 9}
    )
    made.best_checkpoint.unlink(missing_ok=True)
    for name, number in held.items():
        path = made.folder / f"{name}.ckpt"
        save(path, load_data(**DIGITS), seed=number)
        torch.save({**torch.load(path, weights_only=True), "epoch": number - 1}, path)


def test_the_weights_are_those_that_the_result_names(made: Experiment):
    finished(made, 5, best=5, last=9)
    assert dora_train.load(made.sig).checkpoint == made.best_checkpoint
    finished(made, 9, last=9)
    assert dora_train.load(made.sig).checkpoint == made.last_checkpoint, (
        "its last epoch was its best"
    )
    for held, said in [({"best": 8, "last": 9}, "holds epoch 8"), ({"last": 9}, "is missing")]:
        finished(made, 5, **held)
        assert refused(made.sig).splitlines() == [
            f"XP {made.sig}: best.ckpt {said}, and its best is epoch 5.",
            f"train it anew: dora run --clear -f {made.sig}",
        ]


def test_an_old_experiment_is_loaded_through_its_data_set(made: Experiment):
    images = next(iter(load_data(**DIGITS).test.epoch()))[0]
    logits = dora_train.load(made.sig).network(images)
    (made.folder / "inputs.json").unlink()
    trained = dora_train.load(made.sig)
    assert torch.equal(trained.network(images), logits) and len(trained.classes) == 10


def test_a_network_that_began_with_trained_weights_needs_no_download(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # whoever calls it fails
    assert build_untrained("resnet18", 10, 8, weights="DEFAULT").conv1.kernel_size == (7, 7), (
        "ImageNet's stem"
    )
    quick = {"init_weights": False}  # its own initial weights take seconds
    assert build_untrained("googlenet", 10, 32, weights="DEFAULT", **quick).transform_input
    assert not build_untrained("googlenet", 10, 32, **quick).transform_input


# --- images ---


def test_images_become_what_the_test_set_was(made: Experiment, tmp_path: Path, capsysbinary: Any):
    """The test set's digits as files: classes and probabilities of the network on the test set's
    own batches."""
    data, trained = load_data(**DIGITS), dora_train.load(made.sig)
    raw = next(iter(data.test.source.read([data.test.rows])))
    folder = tmp_path / "photos ä"
    for number, pixels in enumerate(raw):
        place = folder / ("deeper" if number % 2 else "") / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].numpy()).save(place)
    before = files_of(made)
    header, *rows = classified(capsysbinary, made.sig[:4], str(folder))
    assert header == ["path", "class", "probability"]
    assert [row[0] for row in rows] == sorted(str(path) for path in folder.rglob("*.png")) and len(
        rows
    ) == 299
    with torch.inference_mode():
        wanted = (
            torch.cat([trained.network(images) for images, _ in data.test.epoch()])
            .softmax(1)
            .max(1)
        )
    for path, name, probability in rows:
        number = int(Path(path).stem)
        assert name == trained.classes[wanted.indices[number]]
        assert float(probability) == pytest.approx(wanted.values[number].item(), abs=2e-6)
    assert len({name for _, name, _ in rows}) > 1 and files_of(made) == before


def test_your_own_images_take_the_path_of_training(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Colours, jpg and png, of several sizes: the inputs are those of the test set, bit for bit;
    without the set."""
    monkeypatch.setenv("DORA_TRAIN_DATA", str(tmp_path / "cache"))
    root = tmp_path / "images"
    write_image_folder(root, {"train": {"cat": 12, "dog": 12}, "test": {"cat": 5, "dog": 5}})
    own = {"name": "image_folder", "batch_size": 4, "root": str(root), "image_size": 16}
    data, made = load_data(**own), make(out, data=own)
    inputs = Inputs.read(json.loads((made.folder / "inputs.json").read_text()))
    assert inputs == data.inputs and inputs.shape == [3, 16, 16]
    paths = images_at(str(root / "test"))
    mine = torch.cat([images for images, _ in inputs.batches(paths, 4).epoch()])
    assert torch.equal(mine, torch.cat([images for images, _ in data.test.epoch()]))
    photos = shutil.copytree(root / "test", tmp_path / "photos")
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / "cache")
    assert {
        name for name, _ in dora_train.load(made.sig).classify(sorted(photos.rglob("*.*")))
    } <= {"cat", "dog"}


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 12, 8)])
def test_other_shapes(shape: tuple[int, int, int], tmp_path: Path):
    channels, height, width = shape
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(tmp_path / "one.png")
    inputs = Inputs(["a", "b"], list(shape), [10.0] * channels, [2.0] * channels)
    [(images, _)] = inputs.batches([str(tmp_path / "one.png")], 2).epoch()
    wanted = torch.from_numpy(pixels if channels == 3 else pixels[..., :1].repeat(3, 2)).permute(
        2, 0, 1
    )
    assert torch.equal(images[0], (wanted.float() - 10) / 2) and inputs.image_size == 8


@pytest.mark.parametrize("on_white", [True, False])
def test_transparency_as_in_training(on_white: bool, tmp_path: Path):
    """An older network saw the colours of transparent pixels. It stored nothing about them."""
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    stored = {"classes": ["a", "b"], "shape": [3, 8, 8], "mean": [0.0] * 3, "std": [1.0] * 3}
    inputs = Inputs.read(stored | ({"on_white": True} if on_white else {}))
    assert inputs is not None
    [(images, _)] = inputs.batches([str(tmp_path / "nothing.png")], 2).epoch()
    assert images.unique().tolist() == [255.0 if on_white else 0.0]


def test_which_files_are_images(tmp_path: Path):
    for name in (
        "b.JPG",
        "a/z.jpeg",
        "a/y.webp",
        "a/.hidden.png",
        ".cache/c.png",
        "c.txt",
        "é\udcff.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(tmp_path / name) for name in ("a/y.webp", "a/z.jpeg", "b.JPG", "é\udcff.png")]
    assert images_at(str(tmp_path)) == found
    assert images_at(str(tmp_path / "c.txt")) == [str(tmp_path / "c.txt")], "what is named is tried"


def test_a_table_in_a_file(made: Experiment, tmp_path: Path, capsysbinary: Any):
    names = ["a, b.png", "\udcff.png"]
    for name in names:
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name)
    main([made.sig, str(tmp_path), "--output", str(tmp_path / "classes.csv")])
    text = (tmp_path / "classes.csv").read_text(errors="surrogateescape")
    header, *rows = csv.reader(text.splitlines())
    assert [row[0] for row in rows] == [str(tmp_path / name) for name in names]
    assert capsysbinary.readouterr().out == b""


# --- the test set, measured again ---

AS_IN = {
    "32-true": (torch.float32, False),
    "bf16-mixed": (torch.float32, True),
    "16-mixed": (torch.float32, True),
    "bf16-true": (torch.bfloat16, False),
    "64-true": (torch.float64, False),
}


def by_torch(network: torch.nn.Module, precision: str) -> dict[str, float]:
    """The metrics over the digits' test set, by torch's own words for a precision."""
    dtype, mixed = AS_IN[precision]
    network = copy.deepcopy(network).to(dtype)
    losses, hits = [], []
    for images, labels in load_data(**DIGITS).test.epoch():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = network(images.to(dtype))
            losses.append(functional.cross_entropy(logits, labels, reduction="none").double())
            hits.append((logits.argmax(1) == labels).double())
    return {"loss": torch.cat(losses).mean().item(), "acc": torch.cat(hits).mean().item()}


@pytest.mark.parametrize("precision", AS_IN)
def test_the_test_set_is_measured_in_the_precision_of_the_run(precision: str, out: Path):
    """16 bits mixed are bfloat16 on the CPU."""
    made = make(out, trainer={"precision": precision}, optim={}, schedule={})
    trained = dora_train.load(made.sig)
    found = measure(trained)
    assert found == pytest.approx(by_torch(trained.network, precision), rel=1e-12)
    if precision != "32-true":
        assert found["loss"] != by_torch(trained.network, "32-true")["loss"]
    assert next(trained.network.parameters()).dtype == torch.float32, "it is left as it was"


def test_images_are_normalised_as_in_training(out: Path, monkeypatch: pytest.MonkeyPatch):
    """By what the run stored, also if the data set's own statistics are others by now."""
    made = make(out, optim={}, schedule={})
    made.write_inputs(made.inputs() | {"mean": [100.0], "std": [50.0]})
    seen: list[torch.Tensor] = []

    def step(module: Any, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> dict:
        seen.append(batch[0])
        return {}

    monkeypatch.setattr("dora_train.module.Classifier.test_step", step)
    measure(dora_train.load(made.sig))
    test = load_data(**DIGITS).test
    raw = torch.cat(list(test.source.read([test.rows])))
    assert torch.equal(torch.cat(seen), ((raw.float() - 100) / 50).expand(-1, 3, -1, -1))


# --- mistakes ---


def refused(*args: str) -> str:
    """What is said, in one line."""
    with pytest.raises(UserError) as refusal:
        main(args)
    return str(refusal.value)


def test_a_signature_that_names_none_or_several(made: Experiment, out: Path):
    shutil.copytree(made.folder, out / "xps" / "5f3b0000")
    assert refused("5f3").splitlines() == ['"5f3" begins several signatures: 5f3a91c2, 5f3b0000.']
    assert refused("77").startswith('there is no experiment "77" under ')
    assert refused("best").startswith('"best" is not a signature')
    with pytest.raises(UserError):
        dora_train.load("5f3")


def test_an_experiment_that_cannot_be_loaded(made: Experiment, tmp_path: Path):
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    content = bytearray(made.best_checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    for damage in (bytes(content), b"", bytes(content[:1000])):
        made.best_checkpoint.write_bytes(damage)
        assert refused(made.sig, str(image)).endswith("best.ckpt cannot be read: it is damaged.")
    made.best_checkpoint.unlink()
    assert (
        refused(made.sig, str(image))
        == f"XP {made.sig} has no checkpoint yet (new): dora run -f {made.sig}"
    )
    (made.folder / "birth.json").unlink()
    assert "its values were never frozen" in refused(made.sig)


def test_a_network_that_the_code_builds_otherwise_by_now(out: Path):
    make(out, model_args={"width": 9})
    assert refused("5f3a91c2") == (
        "XP 5f3a91c2: its weights do not fit the network that the code builds by now; "
        "it was made at commit 012345678."
    )
    make(out, "77777777", model="smal")
    assert refused("7") == 'XP 77777777: unknown model "smal": did you mean small?'


def test_images_that_are_none(made: Experiment, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (
        refused(made.sig, str(tmp_path / "nowhere"))
        == f'there is no file or folder "{tmp_path}/nowhere".'
    )
    assert refused(made.sig, str(empty)).startswith(f"{empty} holds no image (.jpg, .jpeg, .png, ")
    (empty / "broken.png").write_bytes(b"\x89PNG no image")
    for number in range(100):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(empty / f"a {number:03}.png")
    said = refused(made.sig, str(empty), "--output", str(tmp_path / "out.csv"))
    assert (
        said.startswith(f"cannot read 1 image(s): {empty}/broken.png (")
        and len(said.splitlines()) == 1
    )
    assert not (tmp_path / "out.csv").exists()
    for number in range(0, 100, 2):
        (empty / f"a {number:03}.png").write_bytes(b"no image")
    said = refused(made.sig, str(empty))
    listed = Path(said.partition("all of them: ")[2].removesuffix("."))
    assert said.startswith("cannot read 51 image(s): ")
    assert len(listed.read_text().splitlines()) == 51
    shutil.rmtree(listed.parent)
    assert "there is no such folder" in refused(
        made.sig, str(empty), "--output", str(tmp_path / "no" / "out.csv")
    )
    with pytest.raises(DataError):
        list(dora_train.load(made.sig).classify([empty / "broken.png"]))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"classes": ["a"]}',
        '{"classes": ["a"], "shape": [1, 8], "mean": [0], "std": [1]}',
    ],
)
def test_an_experiment_of_an_older_version_classifies_no_files(
    content: str, made: Experiment, tmp_path: Path
):
    (made.folder / "inputs.json").write_text(content)
    (tmp_path / "a.png").touch()
    said = refused(made.sig, str(tmp_path / "a.png"))
    assert "did not store how an image becomes an input" in said and len(said.splitlines()) == 1


# --- the real thing ---


def run(project: Project, *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "dora_train.predict", *args],
        cwd=project.root,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        QUICK,
        [
            "threads=2",
            "trainer.max_epochs=1",
            "ema.decay=0.9",
            "trainer.precision=bf16-mixed",
            "loss.label_smoothing=0.1",
            "trainer.limit_test_batches=0.5",
        ],
    ],
)
def test_a_run_is_measured_with_its_own_numbers(project: Project, args: list[str]):
    project.dora("run", "trainer.accelerator=cpu", *args)
    before = files_of(project.xp)
    done = run(project, project.xp.sig[:6])
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    assert json.loads(done.stdout) == stored(project.xp.folder / "result.json")["test"]
    assert files_of(project.xp) == before
    (project.xp.folder / "inputs.json").unlink()
    again = run(project, project.xp.sig)
    assert again.stdout == done.stdout, "an older experiment, through its data set"


@pytest.mark.slow
def test_a_run_classifies_without_its_data_set(project: Project, tmp_path: Path):
    root = tmp_path / "images"
    project.env["DORA_TRAIN_DATA"] = str(tmp_path / "cache")
    write_image_folder(root, {"train": {"cat": 20, "dog": 20}, "test": {"cat": 4, "dog": 4}})
    project.dora(
        "run",
        *QUICK,
        "data=image_folder",
        f"data.root={root}",
        "data.image_size=16",
        "data.batch_size=8",
        "model=resnet18",
        "channels_last=true",
    )
    photos = shutil.copytree(root / "test", tmp_path / "photos")
    shutil.rmtree(root)
    done = run(project, project.xp.sig, str(photos))
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 8 and {row["class"] for row in rows} <= {"cat", "dog"}
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    for args, message in [
        ([project.xp.sig], "there is no such folder"),
        (["9" * 8], "there is no experiment"),
        ([project.xp.sig, "nowhere"], "there is no file or folder"),
    ]:
        done = run(project, *args)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )


@pytest.mark.slow
def test_a_run_cut_short_is_used_as_far_as_it_came(project: Project):
    project.killed("run", "threads=1", "trainer.max_epochs=500", epoch=2, signum=signal.SIGKILL)
    done = run(project, project.xp.sig)
    assert done.returncode == 0 and set(json.loads(done.stdout)) == {"loss", "acc"}, done.stderr
    assert (
        f"XP {project.xp.sig} is not finished (" in done.stderr
        and "best.ckpt is as far as it came" in done.stderr
    )
    assert re.search(r"as far as it came \(epoch \d+\)", done.stderr)
