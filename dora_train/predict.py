"""A trained experiment put to use: `python -m dora_train.predict SIG [WORDS]`.

`load` gives the network itself, for notebooks: see trained.py. Neither Dora nor Hydra is imported.
"""

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from .data.image_files import InFiles
from .data.image_list import images_at
from .data.inputs import Inputs
from .data_error import DataError
from .engine import output
from .engine.config.defaults import with_defaults
from .engine.errors import UserError, report_user_errors
from .engine.experiment.find import find, outputs
from .engine.experiment.folder import Experiment
from .evaluate import measure, measured
from .tasks import IMAGES, load_task
from .trained import (
    BATCH_SIZE,
    Trained,
    birth_of,
    checkpoint_of,
    load,
    load_experiment,
    module_weights,
    workers_for,
)

__all__ = ["Trained", "load", "main", "measure"]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the metrics on the test set, classes of images, or the predictions of a task.

    Args:
        argv: without the name of the program. None: `sys.argv`.

    Raises:
        UserError: see `load`, `measure` and `images_at`. Or the output cannot be written.
    """
    args = _parser().parse_args(argv)
    # before the work, which may take long
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise UserError(f"cannot write {args.output}: there is no such folder.")
    experiment = find(outputs(), args.sig)
    task = birth_of(experiment).config.get("task", IMAGES)
    if task != IMAGES:
        text = _of_task(experiment, task, args.words)
    else:
        text = _of_images(experiment, args.words)
    _write(text, args.output)


def _parser() -> argparse.ArgumentParser:
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
    return parser


def _write(text: str, file: str | None) -> None:
    """Write to a file, or print if there is none. Names of files keep their bytes.

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


# --- images ---


def _of_images(experiment: Experiment, words: Sequence[str]) -> str:
    """The metrics on the test set if no path is given, else the classes of the images there."""
    if len(words) > 1:
        raise UserError(f"{words[1]}: give one image, or one folder of images.")
    try:
        if words:
            return _classified(experiment, words[0])
        return measured(experiment)
    except DataError as error:
        raise UserError(str(error)) from error


def _classified(experiment: Experiment, path: str) -> str:
    """CSV with one line per image: path, class, probability. If an image is bad, there is none.

    Raises:
        DataError: there is no image at `path`.
        UserError: an image cannot be read, or the experiment cannot be loaded.
    """
    files = images_at(path)
    # These two raise the errors that matter more than the one below.
    birth_of(experiment)
    checkpoint_of(experiment)
    if Inputs.read(experiment.inputs()) is None:
        raise UserError(
            f"XP {experiment.sig} did not store how an image becomes an input (an older version made it): "
            "it can be measured, but it cannot classify files."
        )
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "class", "probability"])
    try:
        for file, (name, probability) in zip(files, load_experiment(experiment).classify(files)):
            rows.writerow([file, name, f"{probability:.6f}"])
    except DataError as error:
        raise UserError(_unreadable(files) or str(error).splitlines()[0]) from error
    return table.getvalue()


def _unreadable(files: list[str]) -> str:
    """A line about all images that cannot be read. It names three, and a file with all of them.

    `classify` stops at the first bad batch, so all images are decoded once more. Empty if all of
    them can be read by now.
    """
    images = InFiles(files, (3, 8, 8), workers_for(files))  # small, as nobody looks at the pixels
    errors = []
    for batch in images.decode(torch.arange(len(files)).split(BATCH_SIZE)):
        errors += batch.errors
    if not errors:
        return ""
    if len(errors) > 3:
        images.unreadable = Path(tempfile.mkdtemp(prefix="dora_train-"), "unreadable.txt")
    return str(images.error(errors)).splitlines()[0]


# --- other tasks ---


def _of_task(experiment: Experiment, task: str, words: list[str]) -> str:
    """The text that the task's own `predict` returns.

    Raises:
        UserError: the task has none, or does not take these words.
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

    config = birth_of(experiment).config
    data_config = {"num_workers": 0, **config["data"]}  # num_workers does not count: not frozen
    module, data = file.parts(OmegaConf.create(with_defaults({**config, "data": data_config})))
    module.load_state_dict(module_weights(checkpoint_of(experiment)))
    try:
        return file.predict(module.eval(), data, words)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{' '.join(words)}: {error}") from error


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
