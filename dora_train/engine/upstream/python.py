"""The two parts of Python's own end that it has no public name for.

A job that starts as a fork (jobs/queue/forked.py) ends with them. multiprocessing ends its
processes in the same way. Standard library only.
"""

import atexit
import threading


def finish_threads() -> None:
    """Wait for all threads that are no daemons, and end those of `concurrent.futures`."""
    threading._shutdown()  # type: ignore[attr-defined]


def run_exit_functions() -> None:
    """Call the functions that were registered with `atexit`. The errors of theirs are printed."""
    atexit._run_exitfuncs()
