"""A user's mistake: what was given, what is near, what to do next.

Everything in the engine that refuses something raises `UserError`; `report_user_errors` prints it,
and Python exits with 1. Anything else that escapes is a bug, and keeps its traceback.
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
    """Something the user can mend.

    The message is the whole text they see: at most four lines, no traceback.
    """

    def __init__(self, *lines: str):
        super().__init__("\n".join(line for line in lines if line))


def near(word: str, words: Iterable[str], count: int = 2) -> list[str]:
    """The `words` closest to `word`, best first; case does not matter, and a last part alone finds
    its key.

    >>> near("optim.lrr", ["optim.lr", "seed"])
    ['optim.lr']
    >>> near("lr", ["optim.lr", "seed"])
    ['optim.lr']
    """
    known = list(words)
    ends = [known_word for known_word in known if known_word.endswith(("." + word, "/" + word))]
    folded = {known_word.lower(): known_word for known_word in known}
    close = [
        folded[match]
        for match in difflib.get_close_matches(word.lower(), folded, n=count, cutoff=0.7)
    ]
    return list(dict.fromkeys(ends + close))[:count]


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`": did you mean optim.lr?"`, or nothing where nothing is near."""
    close = near(word, words)
    return f": did you mean {' or '.join(close)}?" if close else "."


def refuse_undecoded(text: str, *hints: str) -> None:
    """Raises: UserError if the system could not decode `text`: loggers and pages would fail on
    it."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(
            f'"{text}" is not valid text in the encoding of this system '
            f"({sys.getfilesystemencoding()}).",
            *hints,
        )


def shortened(words: Iterable[str], most: int = 12) -> str:
    """`"a, b, c"`, and how many more there are past `most`."""
    known = list(words)
    more = f" ... ({len(known) - most} more)" if len(known) > most else ""
    return ", ".join(known[:most]) + more


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Where results land, a file may stand, or a read-only disk, or another user's folder: no bug
    of ours.

    Raises:
        UserError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or f'into {folder}'}: {error.strerror or error}.",
            "make room or rights there, or take another folder: DORA_DIR=folder",
        ) from error


def report_user_errors() -> None:
    """From here on a `UserError` that nobody caught prints its lines alone; Python then exits with
    1.

    An output that is lost is no bug either. `dora info | head` ends without a word; a full disk is
    named. Dora's command knows nothing of ours, so this is the one place that all verbs share.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(as_typed(str(error)), file=sys.stderr, flush=True)
        elif isinstance(error, OSError) and output.is_lost(error):
            output.forget(error)
        elif not isinstance(
            error, KeyboardInterrupt
        ):  # Ctrl-C speaks for itself, and exits with 130
            before(kind, error, trace)

    sys.excepthook = hook
