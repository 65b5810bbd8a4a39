"""`dora run` in a process forked from one that has imported torch and Lightning: a second a start
instead of four.

The command, its claim, its files and its end are the real ones; only Python's imports are shared. A
fault may be armed in the process: it then ends itself with SIGKILL at a point that a clock would
seldom hit.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import psutil

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [  # never dora_train: each project brings its own
        "dora.__main__",
        "pytorch_lightning",
        "tensorboard.backend.event_processing.event_accumulator",
        "torch.utils.tensorboard",
        "sklearn.datasets",
        "rich.progress",
        "hydra.core.override_parser.overrides_parser",
        "hydra.experimental.callbacks",
        "torch.distributed",
        "torchvision",
    ]
)
WRITES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.chmod", "os.truncate"}

# (what, at which occurrence from 1[, which signal]): see `arm`
Fault = tuple[str, int] | tuple[str, int, int]


def faults_at_random(seed: str, number: int) -> list[Fault]:
    """Kills and signals at steps, writes and checkpoints; the same ones for the same seed."""
    draws, found = random.Random(seed), list[Fault]()
    for _ in range(number):
        what = draws.choice(["step", "step", "step", "write", "torch.save"])
        most = {"step": 12, "write": 80, "torch.save": 6}[what]
        signum = (
            draws.choice([signal.SIGKILL, signal.SIGTERM]) if what == "step" else signal.SIGKILL
        )
        found.append((what, draws.randint(1, most), signum))
    return found


class Run:
    """One `dora` command in a forked process; its output goes to a file.

    Args:
        onto: where its output goes instead: a device, a pipe with a name, a terminal (it becomes
            that of the process), or "closed".
        ignored: signals that it ignores from its start, as under `nohup`.
        given: its standard input. None: it has none.
    """

    def __init__(
        self,
        project: Any,
        *args: str,
        fault: Fault | None = None,
        folder: Path | None = None,
        onto: str = "",
        ignored: tuple[int, ...] = (),
        given: str | None = None,
    ):
        self.output = (
            folder or project.out.parent
        ) / f"{project.out.name}.{os.urandom(4).hex()}.txt"
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.process = FORKS.Process(
            target=_command,
            args=(
                list(args),
                str(project.root),
                dict(project.env),
                str(self.output),
                fault,
                str(project.out),
                onto,
                ignored,
                given,
                _compiled(project.root),
            ),
        )
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self, signum: int = signal.SIGKILL) -> bool:
        """Send the signal; False where the process had ended before."""
        assert self.process.pid is not None
        try:
            process = psutil.Process(self.process.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            process.send_signal(signum)
        except psutil.NoSuchProcess:
            return False
        return True

    def children(self) -> list[psutil.Process]:
        """Its processes, of which it may have none yet, or any more."""
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def wait(self, timeout: float = 120) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still there after {timeout} s:\n{self.text}")
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")


def _compiled(root: Path) -> str:
    """Where a command finds compiled files. Empty if it compiles each file that it imports.

    A test edits the files of its own copy. Python tells two versions of a file apart by their
    sizes and by whole seconds, so only the files of the project itself, which no test edits, are
    kept compiled.
    """
    import dora_train

    return _cache() if Path(root) == Path(dora_train.__file__).resolve().parents[1] else ""


@cache
def _cache() -> str:
    """A folder for compiled files, outside of the work tree, until this process ends."""
    folder = tempfile.mkdtemp(prefix="dora_train-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _command(
    args: list[str],
    folder: str,
    env: dict[str, str],
    output: str,
    fault: Fault | None,
    out: str,
    onto: str,
    ignored: tuple[int, ...],
    given: str | None,
    compiled: str,
) -> None:
    """What `bin/dora` does, in the child."""
    if compiled:
        sys.dont_write_bytecode, sys.pycache_prefix = False, compiled
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
    for signum in ignored:
        signal.signal(signum, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    _direct(output, onto)
    if given is not None:
        sys.stdin = io.StringIO(given)
    # a loader's workers come as they do in a command of its own
    multiprocessing.set_start_method(None, force=True)
    sys.argv = ["dora", *args]
    sys.path[:] = [
        folder,
        *(path for path in sys.path if "site-packages" in path or "lib/python" in path),
    ]
    if fault:
        arm(fault, out)
    from dora.__main__ import main

    try:
        main()
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.exit(1)
    finally:
        # a child of multiprocessing ends without what libraries do at exit: wandb writes its file
        atexit._run_exitfuncs()
        if fault and fault[0] == "count":
            Path(output + ".counts").write_text(
                " ".join(f"{what}={number}" for what, number in seen.items())
            )


def _direct(output: str, onto: str) -> None:
    """Send the standard output and error where they are to go, and make Python's streams of
    them."""
    if onto == "closed":
        os.closerange(0, 3)
        sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]  # as Python has them then
        return
    if onto:
        # a terminal that is opened from here on, for reading too, is that of this process
        os.setsid()
    handle = os.open(
        onto or output, (os.O_RDWR if onto else os.O_WRONLY) | os.O_CREAT | os.O_APPEND
    )
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    encoding = os.environ.get("PYTHONIOENCODING")
    sys.stdout = io.TextIOWrapper(open(1, "wb", 0), encoding, write_through=True)
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", 0), encoding, "backslashreplace", write_through=True
    )


seen: dict[str, int] = {}


def arm(fault: Fault, out: str) -> None:
    """Send this process a signal, SIGKILL if none is named, at an occurrence of something.

    `write`: just before a change to a file or folder below `out`; `train`, `eval`: in a forward
    pass with or without gradients; `step`: before an optimizer's step; `torch.save`: when a
    checkpoint's file is half written; `events`: when an event of TensorBoard's is. `count` only
    counts them all.
    """
    import torch
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.nn import functional
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def reached(what: str) -> bool:
        seen[what] = seen.get(what, 0) + 1
        return (what, seen[what]) == fault[:2]

    def hook(event: str, args: Any) -> None:
        if event in WRITES or (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            if isinstance(args[0], (str, bytes, os.PathLike)) and os.fsdecode(args[0]).startswith(
                out
            ):
                if reached("write"):
                    die()

    def loss(*args: Any, **kwargs: Any) -> Any:
        if reached("train" if torch.is_grad_enabled() else "eval"):
            die(*fault[2:])
        return real_loss(*args, **kwargs)

    def save(content: Any, path: Any, **kwargs: Any) -> None:
        # Lightning also asks torch whether a thing can be saved at all
        if isinstance(path, (str, os.PathLike)) and reached("torch.save"):
            whole = io.BytesIO()
            real_save(content, whole)
            Path(path).write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
            die()
        real_save(content, path, **kwargs)

    def write(self: Any, data: bytes) -> None:
        if reached("events"):
            whole = io.BytesIO()
            real_write(RecordWriter(whole), data)
            self._writer.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            self._writer.flush()
            die()
        real_write(self, data)

    def step(*args: Any) -> None:
        if reached("step"):
            die(*fault[2:])

    register_optimizer_step_pre_hook(step)
    real_write, RecordWriter.write = RecordWriter.write, write
    real_loss, functional.cross_entropy = functional.cross_entropy, loss
    real_save, torch.save = torch.save, save
    sys.addaudithook(hook)


def die(signum: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signum)
    if signum == signal.SIGKILL:
        ctypes.CDLL(None).pause()
