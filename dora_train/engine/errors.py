"""A user's mistake: what was given, what is near, what to do next.

If the engine refuses something, it raises `UserError`. `report_user_errors` prints it, and Python
exits with 1. Any other exception that no code catches is a bug, and keeps its traceback.
"""

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from . import output
from .shell import as_typed


class UserError(Exception):
    """A mistake that the user can correct.

    The message is the whole text that the user sees: at most four lines, no traceback.
    """

    def __init__(self, *lines: str):
        super().__init__("\n".join(line for line in lines if line))


def near(word: str, words: Iterable[str], count: int = 2) -> list[str]:
    """The `words` closest to `word`, best first.

    Case does not matter. The last part of a key alone finds the key.

    >>> near("optim.lrr", ["optim.lr", "seed"])
    ['optim.lr']
    >>> near("lr", ["optim.lr", "seed"])
    ['optim.lr']
    """
    known = list(words)
    ends = [known_word for known_word in known if known_word.endswith(("." + word, "/" + word))]
    folded = {known_word.lower(): known_word for known_word in known}
    close = difflib.get_close_matches(word.lower(), folded, n=count, cutoff=0.7)
    return list(dict.fromkeys([*ends, *(folded[match] for match in close)]))[:count]


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of a message: `": did you mean optim.lr?"`. It is `"."` if no word is near."""
    close = near(word, words)
    if not close:
        return "."
    return f": did you mean {' or '.join(close)}?"


def refuse_undecoded(text: str, *hints: str) -> None:
    """Refuse text that the system could not decode. Loggers and pages would fail on it.

    Raises:
        UserError: its further lines are `hints`.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(
            f'"{text}" is not valid text in the encoding of this system '
            f"({sys.getfilesystemencoding()}).",
            *hints,
        )


def shortened(words: Iterable[str], most: int = 12) -> str:
    """`"a, b, c"`, and how many more there are past `most`."""
    known = list(words)
    text = ", ".join(known[:most])
    if len(known) <= most:
        return text
    return f"{text} ... ({len(known) - most} more)"


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn an error of writing results into one for the user.

    The folder may be a file, on a read-only disk, or another user's. That is no bug of ours.

    Raises:
        UserError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or f'into {folder}'}: {error.strerror or error}.",
            "free some space or change the permissions there, or use another folder: DORA_DIR=folder",
        ) from error


def report_user_errors() -> None:
    """Print the lines of a `UserError` that no code catches, without a traceback.

    Python then exits with 1. A lost output is no bug either: `dora info | head` ends without a
    message, and a full disk is named. Dora's command knows nothing of our errors, so Python's hook
    is the one place that all verbs share.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(as_typed(str(error)), file=sys.stderr, flush=True)
            output.say_json({"error": str(error)})
        elif isinstance(error, OSError) and output.is_lost(error):
            output.forget(error)
        # Ctrl-C needs no message. Python exits with 130.
        elif not isinstance(error, KeyboardInterrupt):
            before(kind, error, trace)

    sys.excepthook = hook
