"""The engine's tests run on the example with this work tree's engine, see example.py.

They are a session of pytest of their own (`pytest.ini` beside this file): the tests of the
researcher's files import the work tree's `dora_train`, and a process can import only one.
"""

import sys
from contextlib import ExitStack

from example import assembled

_open = ExitStack()
sys.path.insert(0, str(_open.enter_context(assembled())))

from fixtures import *  # noqa: E402, F403 - they import the dora_train that lies there


def pytest_unconfigure() -> None:
    _open.close()
