"""Commands as the user can type them: `dora` if the environment is active, else with its path.

After `make run` it is not: `dora info -f SIG` would be "command not found".
"""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from .words import shown_path


def typed(program: str = "dora") -> str:
    """The name of a program of this environment if the shell finds this one by it, else its path."""
    own, found = Path(sys.executable).with_name(program), shutil.which(program)
    if not own.exists() or (found and os.path.samefile(found, own)):
        return program
    return shlex.quote(shown_path(own))


# A command in a message, but no path that ends in "dora", and no option.
COMMAND = re.compile(r"(?<![\w./-])dora(?= (?:run|grid|info|launch|export|import)\b)")


def as_typed(text: str) -> str:
    """A message in which each `dora VERB` is written so that this shell finds the program."""
    command = typed()
    return COMMAND.sub(lambda _: command, text)
