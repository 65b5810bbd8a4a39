"""A trained experiment put to use:

`load(SIG)` in a notebook, `python -m dora_train.predict SIG [PATH]` in a shell.

Reads an experiment's folder, and writes nothing there: the values come from its birth, the weights
from its best checkpoint, and what an image is to become from what the run stored. Neither Dora nor
Hydra takes part.
"""

import argparse
import copy
import csv
import io
import itertools
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, load_data
from .data.image_files import InFiles
from .data.image_folder import cores
from .data.image_list import images_at, with_rules
from .data.inputs import Inputs
from .data_error import DataError
from .engine import output
from .engine.config.defaults import with_defaults
from .engine.errors import UserError, report_user_errors
from .engine.experiment.checkpoint import held_epoch, held_like, in_words, place_of
from .engine.experiment.contents import changes_that_do_no_harm
from .engine.experiment.find import find, outputs
from .engine.experiment.folder import Experiment
from .engine.experiment.records import Birth, State
from .engine.files import is_whole
from .engine.words import shown_path
from .model import build_untrained
from .tasks import IMAGES, load_task

log = logging.getLogger("dora_train")
BATCH_SIZE = 64
A_WORKER = 256  # images that are worth the start of a process that decodes (0.1 s)


@dataclass
class Trained:
    """What an experiment has learned, and what is needed to use it.

    Attributes:
        network: from images [B, 3, H, W] float32, normalised as in training, to logits [B,
            classes]; in eval mode, on the CPU.
        classes: their names, in the order of the logits.
        config: the values that count in the signature, as they were frozen:
            `config["optim"]["lr"]`.
        inputs: how an image becomes what the network takes.
        checkpoint: the file of the weights.
    """

    sig: str
    network: nn.Module = field(repr=False)
    classes: list[str]
    config: dict[str, Any] = field(repr=False)
    inputs: Inputs = field(repr=False)
    checkpoint: Path

    def classify(self, paths: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[str, float]]:
        """For each image file, in this order, its class and the probability that the network gives
        to it (0 .. 1).

        Raises:
            DataError: an image cannot be read.
        """
        files = [os.fspath(path) for path in paths]
        workers = min(cores(), len(files) // A_WORKER)
        for images, _ in self.inputs.batches(files, BATCH_SIZE, workers).epoch():
            with torch.inference_mode():
                best = self.network(images).softmax(1).max(1)
            yield from zip(
                (self.classes[label] for label in best.indices.tolist()), best.values.tolist()
            )


def load(sig: str) -> Trained:
    """The network of an experiment with its best weights; the last ones where there are no best.

    Of an unfinished one, those of as far as it came: a warning says so.

    Args:
        sig: any unambiguous beginning of its signature.

    Raises:
        UserError: there is no such experiment, or several; it has no checkpoint, or a damaged one;
            the code builds another network by now.
        DataError: it stored nothing of its data set, made by an older version, and the set cannot
            be read.
    """
    return _load(find(outputs(), sig))


def _load(experiment: Experiment) -> Trained:
    birth, checkpoint = _birth(experiment), _checkpoint(experiment)
    state = experiment.state()
    if state.state is not State.COMPLETED:
        epoch = held_epoch(checkpoint)
        where = f" (epoch {epoch})" if epoch else ""
        log.warning(
            f"XP {experiment.sig} is not finished ({state.state}): "
            f"{checkpoint.name} is as far as it came{where}"
        )
    weights, config = _weights(checkpoint), birth.config
    inputs = Inputs.read(experiment.inputs()) or _data(config).inputs
    network = _network(experiment, birth, inputs)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        commit = str(birth.code.get("commit") or "")[:9]
        raise UserError(
            f"XP {experiment.sig}: its weights do not fit the network that the code builds by now"
            + (f"; it was made at commit {commit}." if commit else ".")
        ) from error
    return Trained(experiment.sig, network.eval(), inputs.classes, config, inputs, checkpoint)


def _birth(experiment: Experiment) -> Birth:
    birth = experiment.birth()
    if birth is None:
        raise UserError(
            f"XP {experiment.sig}: its values were never frozen (a run of stock Dora), or birth.json is "
            "damaged: there is no telling what its network is."
        )
    return birth


def _checkpoint(experiment: Experiment) -> Path:
    """The file of the best weights; of the last ones if none are the best.

    Raises:
        UserError: there is none, or none of the epoch that the result names.
    """
    files = experiment.best_checkpoint, experiment.last_checkpoint
    there = [path for path in files if path.exists()]
    best = (experiment.result() or {}).get("best") or {}
    if best:
        return _of_best(experiment, there, best)
    if not there:
        raise UserError(
            f"XP {experiment.sig} has no checkpoint yet ({experiment.state().state}): "
            f"dora run -f {experiment.sig}"
        )
    return there[0]


def _of_best(experiment: Experiment, there: Sequence[Path], best: Mapping[str, Any]) -> Path:
    """The one of these files that holds the best weights."""
    held = {path: held_like(path, best) for path in there}
    found = [path for path in there if held[path] == place_of(best)]
    path = experiment.best_checkpoint
    if not found and path in held and held[path] is None:  # damaged: that is said when it is read
        found = [path]
    if not found:
        what = f"holds {in_words(best, held[path])}" if path in held else "is missing"
        raise UserError(
            f"XP {experiment.sig}: best.ckpt {what}, and its best is {in_words(best)}.",
            f"train it anew: dora run --clear -f {experiment.sig}",
        )
    return found[0]


def _weights(checkpoint: Path) -> dict[str, Tensor]:
    """The network's, by the names that they have in it."""
    return {
        name.removeprefix("model."): value
        for name, value in _state(checkpoint).items()
        if name.startswith("model.")
    }


def _state(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the whole module."""
    if not is_whole(checkpoint):
        raise _damaged(checkpoint)
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except (
        Exception
    ) as error:  # whole, and yet no checkpoint: UnpicklingError, RuntimeError, KeyError ...
        raise _damaged(checkpoint) from error


def _damaged(checkpoint: Path) -> UserError:
    return UserError(f"{shown_path(checkpoint)} cannot be read: it is damaged.")


def _network(experiment: Experiment, birth: Birth, inputs: Inputs) -> nn.Module:
    config = birth.config
    try:
        # the fresh weights must not move a notebook's random numbers
        with torch.random.fork_rng(devices=[]):
            network = build_untrained(
                config["model"],
                len(inputs.classes),
                inputs.image_size,
                **(config.get("model_args") or {}),
            )
    except ValueError as error:
        raise UserError(f"XP {experiment.sig}: {error}") from error
    return network.to(memory_format=torch.channels_last) if config.get("channels_last") else network  # type: ignore


def _data(config: dict[str, Any]) -> Data:
    return load_data(**with_rules(config["data"]), seed=config["seed"])


# --- its test set, once more ---


def measure(trained: Trained) -> dict[str, float]:
    """The metrics over the test set, computed as the run does: on the CPU in one rank, the numbers
    of `result.json`.

    By the test step of module.py, in the precision of the run. That imports Lightning, which
    nothing else here needs.

    Raises:
        DataError: the data set is not there, or cannot be read.
        UserError: its classes are others by now, or its test set holds what was learned.
    """
    from .engine.run.history import Averages
    from .engine.run.precision import precision_on_cpu
    from .module import Classifier

    config = trained.config
    data = _data(config)
    if data.classes != trained.classes:
        raise UserError(
            f"XP {trained.sig} knows {len(trained.classes)} classes, and {data} has "
            f"{len(data.classes)} others by now: it cannot be measured."
        )
    experiment = Experiment(trained.checkpoint.parent)
    warning = changes_that_do_no_harm(experiment, data.contents(), asdict(data.inputs))
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    test = data.test.normalised_by(trained.inputs.mean, trained.inputs.std)
    batches = _limited(config["trainer"].get("limit_test_batches"), len(test))
    precision = precision_on_cpu(config["trainer"].get("precision"))
    loss = config.get("loss") or {"label_smoothing": 0.0}
    network = copy.deepcopy(trained.network)  # the precision may convert it
    classifier = Classifier(network, config["optim"], config["schedule"], loss)
    module: Any = precision.convert_module(classifier).eval()
    averages = Averages()
    for number, batch in enumerate(itertools.islice(test.epoch(), batches)):
        with torch.inference_mode(), precision.test_step_context():
            outputs = module.test_step(precision.convert_input(batch), number)
        averages.add(outputs, len(batch[1]))
    return averages.means(1)


def _limited(limit: int | float | None, batches: int) -> int:
    """As Lightning reads `limit_test_batches`: 10 are batches, 0.1 a share of them."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _measured(experiment: Experiment) -> str:
    """The metrics as JSON; where the run had others, that is said."""
    torch.set_num_threads(_birth(experiment).threads)  # their number changes sums
    trained = _load(experiment)
    test = measure(trained)
    print(f"XP {experiment.sig}, {trained.checkpoint.name}, on the test set", file=sys.stderr)
    before = (experiment.result() or {}).get("test") or {}
    if any(
        not math.isclose(test.get(name, math.nan), value, rel_tol=1e-3)
        for name, value in before.items()
    ):
        print(
            f"warning: the run had {json.dumps(before)}: another device, other data or other code",
            file=sys.stderr,
        )
    return json.dumps(test) + "\n"


# --- images ---


def _classified(experiment: Experiment, path: str) -> str:
    """CSV with a line an image, all of it or none: path, class, probability."""
    files = images_at(path)
    _birth(experiment), _checkpoint(experiment)
    if Inputs.read(experiment.inputs()) is None:
        raise UserError(
            f"XP {experiment.sig} did not store how an image becomes an input (an older version made it): "
            "it can be measured, and classifies no files."
        )
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "class", "probability"])
    try:
        for file, (name, probability) in zip(files, _load(experiment).classify(files)):
            rows.writerow([file, name, f"{probability:.6f}"])
    except DataError as error:
        raise UserError(_unreadable(files) or str(error).splitlines()[0]) from error
    return table.getvalue()


def _unreadable(files: list[str]) -> str:
    """That some cannot be read, of all of them: three are named, and all in a file."""
    images = InFiles(files, (3, 8, 8), min(cores(), len(files) // A_WORKER))
    batches = images.decode(torch.arange(len(files)).split(BATCH_SIZE))
    errors = [error for batch in batches for error in batch.errors]
    if len(errors) > 3:
        images.unreadable = Path(tempfile.mkdtemp(prefix="dora_train-"), "unreadable.txt")
    return str(images.error(errors)).splitlines()[0] if errors else ""


# --- other tasks ---


def _of_task(experiment: Experiment, task: str, words: list[str]) -> str:
    """What the task's own `predict` gives.

    Raises:
        UserError: it has none, or it takes no such words.
    """
    file = load_task(task)
    if not hasattr(file, "predict"):
        raise UserError(
            f"task={task} predicts nothing: dora_train/tasks/{task}.py has no predict(module, data, words).",
            f"its metrics on the test set: dora info -f {experiment.sig}",
        )
    if not words:
        what = (file.predict.__doc__ or "").strip().partition("\n")[0]
        raise UserError(
            f"task={task} needs WORDS to predict from. {what}",
            f"its metrics on the test set: dora info -f {experiment.sig}",
        )
    from omegaconf import OmegaConf

    config = _birth(experiment).config  # without what does not count
    data_config = {"num_workers": 0, **config["data"]}
    module, data = file.parts(OmegaConf.create(with_defaults({**config, "data": data_config})))
    module.load_state_dict(_state(_checkpoint(experiment)))
    try:
        return file.predict(module.eval(), data, words)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{' '.join(words)}: {error}") from error


# --- the command ---


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m dora_train.predict SIG [WORDS] [--output FILE]`.

    Raises:
        UserError: see `load`, `measure`, `images_at`; or FILE cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m dora_train.predict",
        description=(
            "Measure a trained experiment on its test set, or classify images with it (CSV: path, class, probability). "
            "Of another task: what its file in dora_train/tasks predicts from WORDS; text goes on from them, and "
            "tabular takes a CSV file."
        ),
    )
    parser.add_argument("sig", metavar="SIG", help="any unambiguous beginning of its signature")
    parser.add_argument(
        "words",
        metavar="WORDS",
        nargs="*",
        help="an image, or a folder of images; or what the task takes",
    )
    parser.add_argument("--output", metavar="FILE", help="write there, and not to the terminal")
    args = parser.parse_args(argv)
    # said now, not after the work
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise UserError(f"cannot write {args.output}: there is no such folder.")
    experiment = find(outputs(), args.sig)
    task = _birth(experiment).config.get("task", IMAGES)
    if task != IMAGES:
        _write(_of_task(experiment, task, args.words), args.output)
        return
    if len(args.words) > 1:
        raise UserError(f"{args.words[1]}: give one image, or one folder of images.")
    path = args.words[0] if args.words else None
    try:
        text = _measured(experiment) if path is None else _classified(experiment, path)
    except DataError as error:
        raise UserError(str(error)) from error
    _write(text, args.output)


def _write(text: str, file: str | None) -> None:
    """Names of files come out as the bytes that they are.

    Raises:
        UserError: the file cannot be written.
    """
    content = text.encode("utf-8", "surrogateescape")
    if file is None:
        with output.to_a_reader():
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        return
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}.") from error


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
