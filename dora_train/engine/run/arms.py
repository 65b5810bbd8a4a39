"""Runs an experiment several times, killed and disturbed, for `python -m dora_train.check`.

`python -m dora_train.engine.run.arms PLAN` imports torch and Lightning once. Then it forks each
start of its plan, one after another, and writes down their exit codes. Where the libraries do not
survive a fork (macOS), each start is a new process. All starts of a plan have
the order in which its process iterates over a set of texts, as PYTHONHASHSEED says.
"""

import datetime
import importlib
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ...children import Parent, end_with
from .. import environment
from ..experiment.find import ROOT
from ..jobs.queue.libraries import USUAL
from ..machine import forks_survive

ONE = "one"  # in the place of a plan: a single start
END = (2**31, 0)  # the place of the record after the last batch


@dataclass(frozen=True)
class Orders:
    """What one start is to do besides its training."""

    trace: str  # the file of its records
    kill: Sequence[int] | None = None  # (epoch, batch), both from 0: it ends by SIGKILL there
    draws: bool = False  # other work in the process draws from the global generators
    clock: bool = False  # the project's own modules see a clock that counts its calls


@dataclass(frozen=True)
class Arm:
    """One experiment, and the starts that it takes to its end.

    Attributes:
        kills: one start for each, and one more that runs to the end.
    """

    name: str
    overrides: Sequence[str]
    kills: Sequence[Sequence[int]] = ()
    ranks: int = 1
    draws: bool = False
    clock: bool = False

    def starts(self, folder: Path) -> list[dict[str, Any]]:
        """The starts as a plan has them: {"argv", "env", "orders", "output"}."""
        made = []
        for number, kill in enumerate([*self.kills, None]):
            trace = str(folder / self.name / "trace")
            orders = Orders(trace, kill, self.draws, self.clock)
            made.append(
                {
                    "argv": ["run", *self.overrides],
                    "env": self._environments(folder, number),
                    "orders": asdict(orders),
                    "output": str(folder / self.name / f"output.{number}"),
                }
            )
        return made

    def _environments(self, folder: Path, number: int) -> list[dict[str, str]]:
        """The variables of each rank."""
        base = {
            environment.OUTPUTS: str(folder / self.name),
            environment.TRACE: str(folder / self.name / f"orders.{number}"),
        }
        if self.ranks == 1:
            return [base]
        from .ranks import free_port

        world = {
            "WORLD_SIZE": str(self.ranks),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        return [
            {**base, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            for rank in range(self.ranks)
        ]


@dataclass
class Ran:
    """What is left of an arm."""

    arm: Arm
    folder: Path
    codes: list[list[int]] = field(default_factory=list)  # of the ranks, for each start

    @property
    def is_as_planned(self) -> bool:
        """Whether each start was killed that was to be, and the last one reached its end."""
        killed = [[-signal.SIGKILL] * self.arm.ranks] * len(self.arm.kills)
        return self.codes == [*killed, [0] * self.arm.ranks]

    def output(self) -> str:
        """The text that the last of its starts printed."""
        texts = sorted(self.folder.glob("output.*"))
        return texts[-1].read_text(errors="replace") if texts else ""


def run_arms(folder: Path, plans: Iterable[Sequence[Arm]]) -> dict[str, Ran]:
    """Run the arms of each plan in their order, and the plans beside each other.

    Args:
        folder: an empty folder for their outputs.

    Returns:
        What is left of each arm, by its name.
    """
    found: dict[str, Ran] = {}
    runners = []
    try:
        for number, arms in enumerate(filter(None, plans)):
            path = folder / f"plan.{number}.{time.monotonic_ns()}"
            path.write_text(json.dumps([one for arm in arms for one in arm.starts(folder)]))
            runners.append((arms, path, _runner(path, number)))
        for _, _, process in runners:
            process.wait()
    finally:
        for _, _, process in runners:
            process.terminate()
            process.wait()
    for arms, path, _ in runners:
        done = path.with_suffix(".done")
        codes = json.loads(done.read_text()) if done.exists() else []
        for arm in arms:
            number = len(arm.kills) + 1
            found[arm.name] = Ran(arm, folder / arm.name, codes[:number])
            codes = codes[number:]
    return found


def _runner(plan: Path, number: int) -> subprocess.Popen:
    """The process that runs a plan. The order of sets is another one in each."""
    env = environment.variables() | {"PYTHONHASHSEED": str(number + 1)}
    log = plan.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as output:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(plan)],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


# --- in the process that runs a plan ---


def run_plan(plan: Path) -> None:
    """Fork each start of a plan, and write down the exit codes of its ranks."""
    end_with(Parent(os.getppid(), in_main_thread=True))
    if forks_survive():
        for name in USUAL:  # nothing of the project, so that each start imports it anew
            importlib.import_module(name)
    codes: list[list[int]] = []
    for start in json.loads(plan.read_text()):
        Path(start["output"]).parent.mkdir(exist_ok=True)
        orders = Path(start["env"][0][environment.TRACE])
        orders.write_text(json.dumps(start["orders"]))
        ranks = [_started(start, env) for env in start["env"]]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks])
        plan.with_suffix(".done").write_text(json.dumps(codes))


def _started(start: dict[str, Any], env: dict[str, str]) -> int:
    """Start a command, and return its process id."""
    if forks_survive():
        return _forked(start, env)
    words = [sys.executable, "-m", "dora_train.engine.run.arms", ONE, json.dumps([start, env])]
    return os.posix_spawn(sys.executable, words, environment.variables())


def run_one(text: str) -> NoReturn:
    """Run one start in this process, which is new.

    Args:
        text: the start and the environment of a rank, as JSON.
    """
    end_with(Parent(os.getppid()))
    start, env = json.loads(text)
    importlib.import_module("dora.__main__")
    sys.exit(_command(start, env))


def _forked(start: dict[str, Any], env: dict[str, str]) -> int:
    """Start a command in a child, and return its process id."""
    parent = Parent.here()
    pid = os.fork()
    if pid:
        return pid
    end_with(parent)
    # The child ends as any command does, so that libraries do what they do at exit.
    sys.exit(_command(start, env))


def _command(start: dict[str, Any], env: dict[str, str]) -> int:
    """Do what the command `dora run` does, and return its exit code."""
    from .draws import draw_once

    os.environ.update(env)
    _redirect(start["output"], env.get("RANK", "0"))
    _seed_all_generators()
    if start["orders"]["draws"]:
        draw_once()
    if start["orders"]["clock"]:
        _count_the_clock()
    sys.argv = ["dora", *start["argv"]]
    sys.path.insert(0, str(ROOT))
    try:
        sys.modules["dora.__main__"].main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def _redirect(output: str, rank: str) -> None:
    """Send the standard output and error to a file. Those of other ranks get a file each."""
    path = output if rank == "0" else f"{output}-rank{rank}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = io.TextIOWrapper(open(1, "wb", 0), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0), "utf-8", write_through=True)


def _seed_all_generators() -> None:
    """Give all arms the same state of the global generators, whatever the imports have drawn."""
    from ...counters import seed_cpu

    seed_cpu("check")


# --- a clock that counts its calls ---


def _count_the_clock() -> None:
    """Let the researcher's modules see a clock that gives the same times in each run."""
    from .suspects import is_own

    calls = [0]

    def counted() -> float:
        calls[0] += 1
        return 1.7e9 + calls[0] * 1e-3

    def patched(real: Callable[[], Any], unit: type) -> Callable[[], Any]:
        scale = 10**9 if unit is int else 1

        def clock() -> Any:
            frame = inspect.currentframe()
            caller = frame.f_back.f_globals if frame and frame.f_back else {}
            is_asked_by_project = is_own(caller.get("__name__", ""))
            return unit(counted() * scale) if is_asked_by_project else real()

        return clock

    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, patched(getattr(time, name), float))
        setattr(time, f"{name}_ns", patched(getattr(time, f"{name}_ns"), int))

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Datetime":
            return cls.fromtimestamp(counted(), tz)

        @classmethod
        def utcnow(cls) -> "Datetime":
            return cls.fromtimestamp(counted())

    datetime.datetime = Datetime  # type: ignore[misc]


if __name__ == "__main__":
    if sys.argv[1] == ONE:
        run_one(sys.argv[2])
    run_plan(Path(sys.argv[1]))
