"""Where a command prints: letters that the output cannot hold, and an output that takes nothing.

What cannot be shown must never end a training: its terminal may be closed, its log's disk may be
full, the reader of its pipe may be gone. `train.log` has every line of a run. Any other command
says that its output is lost, and fails.
"""

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAME = "the output"  # as the file name of an error
SHOWN = "shown"  # the name of our error handler for encodings
STAND_INS = {"·": "-", "│": "|", "±": "+-"}  # our own letters, if the encoding lacks them
GONE = (
    errno.EPIPE,
    errno.EIO,
)  # the reader of the pipe has left, or the terminal is closed: there is nobody to tell


class Descriptor(io.RawIOBase):
    """A standard output whose failure is dropped, or raised as an error that names it.

    Args:
        before: the stream that it replaces; if nobody held that, Python would close the file.
    """

    def __init__(self, before: Any, drops: bool):
        super().__init__()
        self.before, self.number, self.drops = before, before.fileno(), drops

    def write(self, data: Any) -> int:
        try:
            return os.write(self.number, data)
        except OSError as error:
            if self.drops:
                return len(data)
            error.filename = NAME
            raise

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return os.isatty(self.number)

    def writable(self) -> bool:
        return True


def prepare(never_fails: bool) -> None:
    """Make the standard streams of this process ready for whatever is printed.

    In this order: one that is closed (`dora run >&-`) gets its number back. Else the next file that
    is opened, such as a checkpoint, would be the standard output.

    Args:
        never_fails: whether the process does work that must go on without its output.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = _prepared(sys.stdout, never_fails)
    sys.stderr = _prepared(sys.stderr, True)


def _prepared(stream: Any, never_fails: bool) -> Any:
    """`stream` by our rules, line by line: a failure is seen at once, and not as Python ends."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    descriptor = Descriptor(stream, never_fails)
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor), stream.encoding, SHOWN, line_buffering=True
    )


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """What is shown for the first letter that cannot be encoded, and where encoding resumes."""
    assert isinstance(error, UnicodeEncodeError)
    return STAND_INS.get(error.object[error.start], "?"), error.start + 1


codecs.register_error(SHOWN, _stand_in)


@contextmanager
def to_a_reader() -> Iterator[None]:
    """Print something that may be cut short: `| head` has read enough, which is no error."""
    try:
        yield
    except BrokenPipeError as error:
        forget(error)


def is_lost(error: OSError) -> bool:
    """Whether `error` is that of the standard output."""
    return error.filename == NAME


def forget(error: OSError) -> None:
    """Send what is still to be printed nowhere, and say why if somebody is there.

    Else Python would fail a second time, with a traceback, as it ends.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno not in GONE:
        print(f"cannot write {NAME}: {error.strerror}.", file=sys.stderr)
