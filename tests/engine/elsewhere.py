"""A system that is not Linux, for the project's own code: a Mac that tests can have.

`hide_linux` changes a copy of the project so that each of its processes, the runners of the queue
too, sees no /proc, no `sched_getaffinity` and no machine id, and takes itself to be elsewhere.
Libraries see what is there: on a Mac, they have other ways.
"""

from __future__ import annotations

from pathlib import Path

HIDING = '''

def _hide_linux():
    """See tests/engine/elsewhere.py."""
    import builtins
    import io
    import os
    import sys

    ours = os.path.dirname(os.path.abspath(__file__))
    library = os.path.dirname(os.__file__)
    if getattr(os, "linux_is_hidden", False):
        return
    os.linux_is_hidden = True

    def is_asked_by_us():
        frame = sys._getframe(3)  # of who calls the function that is wrapped
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(ours):
                return True
            if "site-packages" in file or not file.startswith((library, "<")):
                return False
            frame = frame.f_back
        return False

    def hidden(path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(path)
        is_linux = text == "/proc" or text.startswith("/proc/") or text == "/etc/machine-id"
        return is_linux and is_asked_by_us()

    def wrapped(real):
        def function(*args, **kwargs):
            if args and hidden(args[0]):
                raise FileNotFoundError(2, "No such file or directory", str(args[0]))
            return real(*args, **kwargs)

        return function

    names = ("stat", "lstat", "open", "listdir", "scandir", "readlink")
    for module, names in ((os, names), (builtins, ("open",)), (io, ("open",))):
        for name in names:
            setattr(module, name, wrapped(getattr(module, name)))
    del os.sched_getaffinity


_hide_linux()
'''


# What a Mac names itself by.
NAMES = """

def _sysctl(name: str) -> str:
    return f"{name} of a Mac"


def _host_uuid() -> str:
    return "a Mac"
"""


def hide_linux(root: Path) -> None:
    """Change the project in `root`, a copy."""
    package = root / "dora_train"
    first = package / "__init__.py"
    first.write_text(first.read_text() + HIDING)
    machine = package / "engine/machine.py"
    machine.write_text(machine.read_text() + NAMES)
    found = 0
    for file in package.rglob("*.py"):
        text = file.read_text()
        if 'sys.platform == "linux"' in text:
            file.write_text(text.replace('sys.platform == "linux"', "False"))
            found += 1
    assert found == 2, "children.py and machine.py"
