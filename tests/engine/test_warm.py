"""Jobs that start as forks of a process which has imported their libraries.

A program must not be able to tell, and nothing that is true of a job of the queue may change.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from grid_project import GridProject, Machine
from project import same_run
from test_exact import same
from test_exact_slurm import CHAOS, LINE, Cluster, lives, pid, saved
from test_local_queue import Here

from dora_train.engine.experiment import claims
from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.experiment.records import State
from dora_train.engine.jobs.executor import Order, Phase
from dora_train.engine.jobs.queue.ahead import compile_project

COUNTED = "open({path!r}, 'a').write('imported\\n')\n"

# All that a program can see of how it was started.
REPORT = """
import json, os, signal, sys, threading, __main__
descriptors = {}
for fd in os.listdir("/proc/self/fd"):
    if os.path.exists(f"/proc/self/fd/{fd}"):
        descriptors[fd] = os.readlink(f"/proc/self/fd/{fd}")
print(json.dumps({
    "arguments": sys.argv,
    "path": sys.path,
    "environment": {key: value for key, value in os.environ.items() if key not in (
        "DORA_TRAIN_JOB_ID", "SHLVL", "_", "OLDPWD", "PWD")},
    "folder": os.getcwd(),
    "umask": os.umask(0),
    "main": [__name__, __file__, __main__.__file__, __main__.__spec__, __package__],
    "signals": {str(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "own session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "threads": [thread.name for thread in threading.enumerate()],
    "tasks": len(os.listdir("/proc/self/task")),
    "flags": str(sys.flags),
    "streams": [[one.fileno(), one.encoding, one.errors, one.isatty()]
                for one in (sys.stdin, sys.stdout, sys.stderr)],
    "files": sorted(path for path in descriptors.values() if path.startswith("/")),
    "project": [name for name in sys.modules if name.startswith("dora_train")],
    "shown": open("/proc/self/cmdline").read().rstrip(chr(0)),
}))
"""


class Starts(Here):
    """A queue whose jobs are small Python programs."""

    def submit(self, line: str, **parameters) -> str:
        """The id of a job that runs this Python code. It waits."""
        self.count += 1
        program = self.out / f"program{self.count}.py"
        program.write_text(line)
        order = Order(
            f"job{self.count}",
            f"'{sys.executable}' -u '{program}' 'an argument'",
            self.out / "logs",
            {"nodes": 1, "ntasks_per_node": 1} | parameters,
            program=[str(program), "an argument"],
        )
        return self.executor.submit(order).job_id

    def log(self, job: str, rank: int = 0) -> str:
        return (self.out / "logs" / f"{job}_{rank}_log.out").read_text()

    def end(self, line: str) -> tuple[str, int, int, str]:
        """How a job ends that runs this code, and what it prints."""
        job = self.run(line)
        self.until(job)
        self.machine.wait(lambda: not self.machine.processes())
        info = self.info(job)
        return info.word, info.exit_code, info.signal, self.log(job)

    def library(self, name: str, code: str = "") -> Path:
        """Install a library. Returns a file that gets a line at each import."""
        imports = self.out / f"{name}.imports"
        (self.installed / f"{name}.py").write_text(COUNTED.format(path=str(imports)) + code)
        return imports

    @property
    def installed(self) -> Path:
        return self.out.parent / "site-packages"


@pytest.fixture
def here(machine: Machine, tmp_path: Path, monkeypatch) -> Starts:
    for name, value in (machine.env | {"CUDA_VISIBLE_DEVICES": ""}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    (tmp_path / "work").mkdir()
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site-packages"))
    monkeypatch.chdir(tmp_path / "work")
    starts = Starts(machine, tmp_path / "work")
    starts.imports = starts.library("big")  # type: ignore[attr-defined]
    starts.preload = ["big"]
    return starts


def imports_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def both(here: Starts, monkeypatch):
    """How the same program ends as a fork, and as a new process."""

    def ends(line: str) -> list[tuple[str, int, int, str]]:
        found = []
        for preload in (["big"], None):
            here.preload = preload
            here.count = 0  # the same file
            found.append(here.end(line))
        return found

    return ends


def test_a_program_sees_what_it_sees_in_a_new_python(both, here: Starts):
    (word, _, _, fork), (_, _, _, new) = both(REPORT)
    assert word == "COMPLETED"
    fork, new = json.loads(fork), json.loads(new)
    # the numbers of the two jobs, and so the names of their files, differ
    for report in (fork, new):
        report["files"] = [path.rpartition("-")[0] or path for path in report["files"]]
        report["files"] = [path for path in report["files"] if "/jobs/" not in path]
    assert fork == new
    assert fork["project"] == []
    assert imports_of(here.imports) == 1, "the fork had it, and the new process did not want it"


@pytest.mark.parametrize(
    "line",
    [
        "print('done')",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('why')",
        "import sys; sys.exit(None)",
        "import os; os._exit(4)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "def fail():\n    raise ValueError('wrong')\n\nfail()",
        "raise KeyboardInterrupt",
        "1 +",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('later'))).start()",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ThreadPoolExecutor().submit(print, 'in a pool')",
        "import ctypes; ctypes.CDLL(None).printf(b'from C')",
        "import sys; sys.excepthook = lambda *error: print('ours', error[1]); raise ValueError(1)",
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-1]))",
    ],
)
def test_it_ends_as_a_new_python_does(both, line: str):
    fork, new = both(line)
    assert fork == new


@pytest.mark.parametrize("variable", ["", "PYTHONDONTWRITEBYTECODE"])
def test_the_project_is_compiled_while_the_libraries_are_imported(tmp_path: Path, variable: str):
    program = tmp_path / "dora_train" / "engine" / "job.py"
    other = tmp_path / "tests" / "program.py"
    for path in (program, other):
        path.parent.mkdir(parents=True)
        path.write_text("first = 1\n")
    (program.parent / "broken.py").write_text("def\n")
    job = {"python": sys.executable, "program": [str(other)], "env": {variable: "1"}}
    compile_project(job)
    compile_project(job | {"program": [str(program)], "python": "/another/python"})
    assert not list(tmp_path.rglob("*.pyc"))
    compile_project(job | {"program": [str(program)]})
    compiled = [path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")]
    assert compiled == ([] if variable else ["job"])


def test_the_libraries_are_imported_once_for_all(here: Starts):
    here.jobs = 2
    line = "import big, os; print(os.getpid(), big.__name__)"
    jobs = [here.submit(line) for _ in range(6)]
    here.executor.move()
    here.until(*jobs)
    assert len({here.log(job) for job in jobs}) == 6, "a process each"
    assert imports_of(here.imports) == 1
    here.machine.wait(lambda: not here.machine.processes())


def test_what_lies_in_the_project_is_never_shared(here: Starts, monkeypatch):
    """A folder of the project in PYTHONPATH: the library imports a module from there."""
    source = here.out / "src"
    source.mkdir()
    (source / "mine.py").write_text("value = 1")
    monkeypatch.setenv("PYTHONPATH", f"{here.installed}{os.pathsep}{source}")
    here.library("uses", "import mine\n")
    here.preload = ["uses"]
    first = here.submit("import mine; print(mine.value)")
    second = here.submit("import mine; print(mine.value)")
    third = here.submit("open('src/mine.py', 'w').write('value = 2 + 0')")
    fourth = here.submit("import mine; print(mine.value)")
    here.executor.move()
    here.until(first, second, third, fourth)
    assert [here.log(job).strip() for job in (first, second, fourth)] == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('no CUDA here')", "ImportError: no CUDA here"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import os; os._exit(5)", "their import ended with exit code 5"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("import threading, time; threading.Thread(target=time.sleep, args=[99], daemon=True)"
         ".start()", "RuntimeError: broken has started threads"),
    ],
)  # fmt: skip
def test_if_the_import_fails_each_job_imports_for_itself_and_says_so(here: Starts, code, why):
    tries = here.library("broken", code)
    here.preload = ["broken"]
    jobs = [here.submit(f"print({number})") for number in range(3)]
    here.executor.move()
    here.until(*jobs)
    for number, job in enumerate(jobs):
        notice, printed = here.log(job).splitlines()
        assert notice.startswith("starts with imports of its own: ") and why in notice
        assert printed == str(number)
        assert here.info(job).word == "COMPLETED"
    assert imports_of(tries) == 1, "not tried again for each"


def test_a_library_that_is_not_installed_is_left_out(here: Starts):
    here.preload = ["no_such_library", "big"]
    assert here.end("print(1)") == ("COMPLETED", 0, 0, "1\n")
    assert imports_of(here.imports) == 1


def test_after_an_installation_the_libraries_are_imported_anew(here: Starts):
    first = here.submit("print(1)")
    second = here.submit(f"open({str(here.installed / 'new.py')!r}, 'w').write('version = 2')")
    third = here.submit("import new; print(new.version)")
    fourth = here.submit("print(4)")
    here.executor.move()
    here.until(first, second, third, fourth)
    assert here.log(third) == "2\n"
    assert imports_of(here.imports) == 2


def test_jobs_of_another_environment_get_libraries_of_their_own(here: Starts, monkeypatch):
    line = "import os; print(os.environ.get('LIBRARY_READS_IT'), os.environ['COLUMNS'])"
    jobs = []
    for value, columns in (("1", "80"), ("2", "80"), ("2", "132"), ("1", "80")):
        monkeypatch.setenv("LIBRARY_READS_IT", value)
        monkeypatch.setenv("COLUMNS", columns)
        jobs.append(here.submit(line))
    here.executor.move()
    here.until(*jobs)
    assert [here.log(job).strip() for job in jobs] == ["1 80", "2 80", "2 132", "1 80"]
    assert imports_of(here.imports) == 3, "the width of the terminal makes no other environment"


def test_a_line_of_shell_before_the_program_makes_a_new_process(here: Starts):
    job = here.submit("import os; print(os.environ['FROM'])", setup=["export FROM=shell"])
    here.executor.move()
    here.until(job)
    assert here.log(job) == "shell\n"
    assert not imports_of(here.imports)


def test_ranks_are_forks_too(here: Starts):
    job = here.run(
        "import os; print(*(os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')))",
        ntasks_per_node=2,
    )
    here.until(job)
    assert [here.log(job, rank) for rank in (0, 1)] == ["0 0 2\n", "1 1 2\n"]
    assert imports_of(here.imports) == 1


def slow_library(here: Starts) -> Path:
    """A library whose import goes on until the file `go` is there."""
    code = (
        f"import os, time\nwhile not os.path.exists({str(here.out / 'go')!r}): time.sleep(0.01)\n"
    )
    tries = here.library("slow", code)
    here.preload = ["slow"]
    return tries


def importing(here: Starts, tries: Path) -> psutil.Process:
    """The process that imports the slow library now."""
    here.machine.wait(lambda: imports_of(tries))
    [process] = [one for one in here.runners() if "queue.parent" in " ".join(one.cmdline())]
    return process


def test_a_job_counts_as_running_while_its_libraries_are_imported(here: Starts):
    tries = slow_library(here)
    job, next_one = here.run("print(1)"), here.run("print(2)")
    importing(here, tries)
    assert (here.phase(job), here.phase(next_one)) == (Phase.RUNNING, Phase.PENDING)
    here.executor.cancel([job])
    (here.out / "go").touch()
    here.until(job, next_one)
    assert here.info(job).word == "CANCELLED"
    assert here.log(next_one) == "2\n"
    here.machine.wait(lambda: not here.machine.processes())


def test_kill_9_of_the_process_that_imports_loses_nothing(here: Starts):
    tries = slow_library(here)
    job = here.run("print(1)")
    importing(here, tries).kill()
    here.until(job)
    notice, printed = here.log(job).splitlines()
    assert "was ended by signal 9" in notice and printed == "1"


def test_kill_9_of_all_before_the_start_leaves_the_job_in_the_line(here: Starts):
    tries = slow_library(here)
    job = here.run("print(1)")
    importing(here, tries)
    here.machine.kill_all()
    assert here.phase(job) is Phase.PENDING
    (here.out / "go").touch()
    here.executor.move()
    here.until(job)
    assert here.log(job) == "1\n"


def test_kill_9_of_the_runner_leaves_the_job_and_its_cancellation(here: Starts):
    job = here.run("import time; open('started', 'w'); time.sleep(600)")
    here.until_file("started")
    for runner in here.runners():  # the job itself shows its program
        runner.kill()
    here.machine.wait(lambda: here.phase(job) is Phase.RUNNING)
    here.executor.cancel([job])
    here.until(job)
    assert here.info(job).word == "CANCELLED"
    here.machine.wait(lambda: not here.machine.processes())


def test_a_search_finds_the_libraries_between_its_trials(here: Starts):
    """While a command says that more jobs may follow, one process stays, and only one."""
    here.jobs = 2
    with here.executor.more_to_come():
        first = [here.submit("print(1)") for _ in range(2)]
        here.executor.move()
        here.until(*first)
        here.machine.wait(lambda: len(here.runners()) == 1)
        second = here.run("print(2)")
        here.until(second)
        here.machine.wait(lambda: len(here.runners()) == 1)
    assert imports_of(here.imports) == 1
    here.machine.wait(lambda: not here.machine.processes(), 5)


def test_a_process_that_waits_for_more_may_be_killed(here: Starts):
    with here.executor.more_to_come():
        here.until(here.run("print(1)"))
        here.machine.wait(lambda: len(here.runners()) == 1)
        here.machine.kill_all()
        here.until(here.run("print(2)"))
    here.machine.wait(lambda: not here.machine.processes(), 5)


# --- real experiments ---


@pytest.mark.slow
def test_an_experiment_has_the_same_bits_cold_warm_and_half_and_half(tmp_path, machine: Machine):
    """As a new process, as a fork, and as a fork that is killed and resumed as a new process."""
    folders = [tmp_path / name for name in ("new", "fork", "half")]
    project = GridProject(tmp_path, machine)
    found: list[Experiment] = []
    for folder in folders:
        project.out = folder
        project.env["DORA_DIR"] = str(folder)
        warm = folder.name != "new"
        project.grid(f"launcher({{'trainer.max_epochs': 30, 'local.warm': {warm}}})")
        project.sync()
        [xp] = project.xps()
        if folder.name == "half":
            machine.wait(lambda xp=xp: xp.state().epoch > 5)
            holder = claims.latest(xp)
            assert holder is not None
            os.kill(holder.pid, signal.SIGKILL)
            machine.wait(lambda: not machine.live())
            assert 5 < xp.state().epoch < 30
            project.grid("launcher({'trainer.max_epochs': 30, 'local.warm': False})")
            assert "~ 1 resume" in project.sync()
        machine.wait(lambda: not machine.live())
        assert xp.result()["epochs"] == 30
        found.append(xp)
    for xp in found[1:]:
        same_run(found[0], xp)


@pytest.mark.slow
def test_chaos(tmp_path, machine: Machine):
    """Kills and signals of runs, kills of runners, and losses of power at random.

    Each hits a living process with work left: its steps are slow until all have come.
    """
    seed = int(os.environ.get("DORA_TRAIN_SEED", "0")) or random.randrange(10**6)
    print(f"DORA_TRAIN_SEED={seed}")
    draws, project = random.Random(seed), Cluster(tmp_path, machine)
    xps = project.submitted(*(f"{LINE} seed={number}, threads=1)" for number in range(3)))
    for _ in range(CHAOS // 10 or 3):
        machine.wait(lambda: hit(xps, machine), 120)
        time.sleep(draws.uniform(0, 1))
        victim = draws.choice(machine.wait(lambda: hit(xps, machine)))
        process, what = pid(victim), draws.choice(["KILL", "TERM", "USR2", "runners", "power"])
        if what == "power":
            machine.kill_all()
        elif what == "runners":
            for runner in runners(machine):
                runner.kill()
        else:
            os.kill(process, getattr(signal, f"SIG{what}"))
        if what != "runners":
            machine.wait(lambda process=process: not lives(process))
            assert victim.state().state is not State.COMPLETED
        project.sync()
    project.slow.unlink()
    machine.wait(lambda: ended(xps, project), 400)
    for number, xp in enumerate(xps):
        same(xp, project.undisturbed(f"seed={number}", "threads=1", name=f"undisturbed {number}"))
    machine.wait(lambda: not machine.processes())


def hit(xps: list[Experiment], machine: Machine) -> list[Experiment]:
    """Those that run, and have a checkpoint of this attempt. Each of them is a fork."""
    found = []
    for xp in xps:
        holder = claims.latest(xp)
        if holder and holder.alive() and saved(xp) > holder.since * 1e9:
            found.append(xp)
            assert imports_nothing(holder.pid)
    return found


def imports_nothing(process: int) -> bool:
    """Whether a process was forked from one that has imported the libraries."""
    # what it was started with, which its command line no longer shows
    return b"DORA_TRAIN_JOB_ID" not in Path(f"/proc/{process}/environ").read_bytes()


def ended(xps: list[Experiment], project: Cluster) -> bool:
    project.sync()
    return all(xp.state().state is State.COMPLETED for xp in xps)


def runners(machine: Machine) -> list[psutil.Process]:
    return [one for one in machine.processes() if "engine.jobs.queue" in " ".join(one.cmdline())]
