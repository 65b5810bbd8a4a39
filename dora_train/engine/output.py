"""The standard output of a command: letters that it cannot hold, an output that is lost, and JSON.

A lost output must never end a training. The terminal may be closed, the disk of the log may be
full, the reader of the pipe may be gone. `train.log` has every line of a run. Any other command
reports that its output is lost, and fails.
"""

import codecs
import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NAME = "the output"  # as the file name of an error
SHOWN = "shown"  # the name of our error handler for encodings
STAND_INS = {"·": "-", "│": "|", "±": "+-"}  # our own letters, if the encoding lacks them
# The reader of the pipe has ended, or the terminal is closed: a message would reach no one.
GONE = (errno.EPIPE, errno.EIO)


class Descriptor(io.RawIOBase):
    """A standard output whose failure is ignored, or raised as an error that names it.

    Args:
        before: the stream that it replaces. It is kept, else Python would close its file.
        drops: whether a failure is ignored.
    """

    def __init__(self, before: TextIO, drops: bool):
        super().__init__()
        self.before, self.number, self.drops = before, before.fileno(), drops

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return os.write(self.number, data)
        except OSError as error:
            if self.drops:
                return memoryview(data).nbytes
            error.filename = NAME
            raise

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def writable(self) -> bool:
        return True


def prepare(never_fails: bool) -> None:
    """Make the standard streams of this process ready for any text.

    Args:
        never_fails: whether the process does work that must not fail if its output is lost.
    """
    # In this order: a stream that is closed (`dora run >&-`) gets its number back. Else the next
    # file that is opened, such as a checkpoint, would be the standard output.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = _prepared(sys.stdout, never_fails)
    sys.stderr = _prepared(sys.stderr, True)


def _prepared(stream: TextIO | None, never_fails: bool) -> TextIO:
    """A stream that shows stand-ins for letters that it cannot hold.

    It writes line by line, so that a failure is seen at once, and not when Python ends.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    descriptor = Descriptor(stream, never_fails)
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor), stream.encoding, SHOWN, line_buffering=True
    )


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """The text for the first letter that cannot be encoded, and where encoding resumes."""
    assert isinstance(error, UnicodeEncodeError)
    return STAND_INS.get(error.object[error.start], "?"), error.start + 1


codecs.register_error(SHOWN, _stand_in)


@contextmanager
def to_a_reader() -> Iterator[None]:
    """Allow the reader of the output to end early: `| head` has read enough, which is no error."""
    try:
        yield
    except BrokenPipeError as error:
        forget(error)


def is_lost(error: OSError) -> bool:
    """Whether `error` is a failure of the standard output."""
    return error.filename == NAME


def forget(error: OSError) -> None:
    """Drop the text that is still to be printed, and report the reason if a user can see it.

    Else Python would fail a second time, with a traceback, when it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno not in GONE:
        print(f"cannot write {NAME}: {error.strerror}.", file=sys.stderr)


# --- JSON ---

_for_json: list[TextIO] = []  # the standard output, if it is kept for JSON


def keep_for_json() -> None:
    """Keep the standard output for `say_json`. All words go to the standard error from here on."""
    if not _for_json:
        _for_json.append(sys.stdout)
        sys.stdout = sys.stderr


def says_json() -> bool:
    """Whether this command prints JSON."""
    return bool(_for_json)


def say_json(content: dict[str, Any]) -> None:
    """Print one object on one line, if this command prints JSON."""
    for stream in _for_json:
        print(json.dumps(_finite(content), default=str), file=stream, flush=True)


def _finite(value: object) -> object:
    """The value with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_finite, value))
    return value
