"""The log of a run: its first lines, and where they go.

They go to the console and to `train.log`, and so do everybody's warnings.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..experiment.birth import versions
from ..experiment.records import State
from ..experiment.xp import XP
from ..words import shown_path

if TYPE_CHECKING:
    from rich.console import Console

    from .session import Session

# Lightning's advice against what is done on purpose here, and warnings about its own code.
IGNORED = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*resuming from a checkpoint that ended before the epoch ended.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*LeafSpec.*",
    ".*treespec.*",
    ".*srun.*command is available.*",
    ".*TensorFloat32 tensor cores.*",  # advice on matmul_precision
)


def quieten_lightning() -> None:
    """Ignore Lightning's advertising, and its advice on what is done on purpose here."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def logging_to(session: "Session") -> Iterator[None]:
    """Send our lines, and everybody's warnings, to the console and to `train.log`.

    Only the first rank does so: all ranks would say the same.
    """
    logger, root = logging.getLogger("dora_train"), logging.getLogger()
    # Not of the root: other libraries would log every detail.
    logger.setLevel(logging.INFO)
    if not session.ranks.is_first:
        yield
        return
    # The text of an error may hold bytes of a path that are no text. They must not end the run.
    file = _FileHandler(session.experiment.log, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handlers: list[logging.Handler] = [file, _ConsoleHandler(session.console)]
    logging.captureWarnings(True)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        # A notebook or a test may run another experiment in this process.
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        logging.captureWarnings(False)


class _ConsoleHandler(logging.Handler):
    """Prints lines on the console, above the progress bar if there is one."""

    def __init__(self, console: "Console"):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record))


class _FileHandler(logging.FileHandler):
    """Says nothing about a line that it cannot write.

    On a full disk the checkpoint says so once, and not each line of the log.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        pass


# --- the first lines ---


def log_start(session: "Session", xp: XP) -> None:
    """Log the first line of an attempt: signature, overrides, how it starts, and folder."""
    start, folder = _start_in_words(session), shown_path(session.experiment.folder)
    session.log(f"XP {xp.sig}  {overrides_of(xp)}  {start}  {folder}")


def overrides_of(xp: XP) -> str:
    """Return the overrides as one line of text."""
    return " ".join(xp.argv) or "(defaults)"


def _start_in_words(session: "Session") -> str:
    attempt, resume = session.state.attempt, session.resume
    if resume and resume.content:
        last = f"; last time: {session.before.cause}" if session.before.cause else ""
        return f"resumes at epoch {resume.epoch} (attempt {attempt}{last})"
    if attempt == 1:
        return "new"
    return f"new (attempt {attempt})"


def log_added(session: "Session") -> None:
    """Log the keys that the configuration has only since the experiment was made.

    They do not make it another experiment: their defaults do what was done before.
    """
    if session.added:
        words = " ".join(f"{key}={value}" for key, value in session.added.items())
        session.log(
            f"new config keys since this experiment was created (using their defaults): {words}"
        )


def log_versions(session: "Session") -> None:
    """Log the packages whose versions are others than in the attempt that this one resumes."""
    if not (session.resume and session.resume.content):
        return
    birth = session.experiment.birth()
    before = birth.versions if birth else {}
    for start in session.experiment.starts():
        before = start.versions or before  # earlier versions did not note them for each attempt
    changed = []
    for package, now in versions().items():
        if before.get(package, now) != now:
            changed.append(f"{package} {before[package]} -> {now}")
    if changed:
        session.log(f"other versions than in the attempt before: {', '.join(changed)}")


def note_unpromised(session: "Session", reason: str) -> None:
    """Note in the state why the bits of this run are not promised, and say it once."""
    known = session.state.unpromised
    if reason not in known:
        session.log(f"the bits of this run are not promised: {reason} (docs/exactness.md)")
        session.report(State.RUNNING, unpromised=[*known, reason])
