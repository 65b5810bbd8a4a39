"""Runs a Python program in a fork of a process that has imported libraries.

For the program and for every observer, the fork looks like a new Python. starting.py calls this.
Standard library only: see runner.py.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import types
from contextlib import suppress
from typing import NoReturn

from ...upstream.python import finish_threads, run_exit_functions
from .libraries import forget_the_project


def become(program: list[str], env: dict[bytes, bytes], path: list[str]) -> NoReturn:
    """Run a program in this process. Then end the process with the program's exit code.

    Args:
        program: the program's file and its arguments.
        env: the whole environment of the program.
        path: `sys.path` for the program, without the folder of its file.
    """
    _show_in_ps(program)
    os.environb.clear()
    os.environb.update(env)
    sys.argv = list(program)
    sys.path[:] = [os.path.dirname(program[0]), *path]
    forget_the_project()
    _draw_anew()
    code = _exit_code(program[0])
    code = _at_exit() or code
    os._exit(code)


def _show_in_ps(program: list[str]) -> None:
    """Let `ps` and `top` show this program, not the process that imported the libraries."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # Fields 48 and 49 of proc_pid_stat(5): arg_start and arg_end. The list begins with field 3.
    begin, end = int(fields[45]), int(fields[46])
    words = b"\0".join(map(os.fsencode, [sys.executable, "-u", *program]))
    if begin:  # 0: the kernel does not tell the address
        ctypes.memset(begin, 0, end - begin)
        ctypes.memmove(begin, words, min(len(words), end - begin - 1))


def _draw_anew() -> None:
    """Seed numpy's global generator from the system, as numpy does when it is imported.

    Otherwise all forks would draw the same numbers. Python's own generator is seeded anew after a
    fork. torch needs nothing, because it begins with the same seed in every process.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _exit_code(file: str) -> int:
    """Run a file as `__main__`. Returns the exit code with which Python would have ended."""
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=file, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    try:
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec")
        exec(code, main.__dict__)
    except SystemExit as leaving:
        return _code_of(leaving)
    except KeyboardInterrupt as error:
        _report(error)
        # Python then ends by the signal itself, so that a shell sees it. So this process does, too.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        _report(error)
    else:
        return 0
    return 1


def _report(error: BaseException) -> None:
    """Print the traceback of the program, without the lines of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def _code_of(leaving: SystemExit) -> int:
    """The exit code for a call of `sys.exit`, by the rules of Python."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code & 0xFF
    print(leaving.code, file=sys.stderr)
    return 1


def _at_exit() -> int:
    """Do what Python does at its end: wait for threads, call exit functions, write all output.

    Python would also free the libraries, object by object, which takes time and memory. This step
    is left out. Returns 0, or 120 if the output could not be written, as Python does.
    """
    finish_threads()
    run_exit_functions()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)  # what C and C++ libraries have printed
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120
    return 0
