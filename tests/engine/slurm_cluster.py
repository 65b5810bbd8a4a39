"""A real SLURM cluster of two nodes, with accounting, inside one folder of this machine.

The tests run against the programs that a cluster runs, because submitit, the requeue code and
`sacct` meet in ways that a fake would only repeat from memory. Every configuration, key, socket,
log and port is the cluster's own, so clusters do not meet. Tests start one a session. Run as a
program, this file is the guard of a cluster: see `_start_guard`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

PROGRAMS = {  # program -> the Debian package that brings it
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "sacct": "slurm-wlm",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NODES = ("n1", "n2")
FINAL_STATES = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY")
# in the environment of every daemon: how the processes of a cluster are told from others
MARK = "SLURM_CLUSTER_FOLDER"
# a unix socket's path ends at 107 bytes, and slurmd's add up to 45 to the folder's
SOCKET_LIMIT = 60

MARIADB_CONF = """\
[mysqld]
datadir={folder}/mariadb
socket={folder}/mariadb.sock
pid-file={folder}/mariadb.pid
port={mariadb}
bind-address=127.0.0.1
user=root
skip-name-resolve
skip-log-bin
performance-schema=off
innodb-buffer-pool-size=32M
innodb-log-file-size=8M
# The data live as long as the test session: nothing has to survive a loss of power.
innodb-flush-log-at-trx-commit=0
innodb-flush-method=nosync
innodb-doublewrite=0
# A server that starts deletes what looks like temporary tables: in /tmp those of other clusters, too.
tmpdir={folder}/tmp
"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
CommitDelay=0
CommunicationParameters=NoInAddrAny
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: 120 s by default.
AuthInfo=socket={folder}/munge.sock,cred_expire=10
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStorageEnforce=limits
# Connections to slurmdbd do not read AuthInfo: here the password is the path of munge's socket.
AccountingStoragePass={folder}/munge.sock
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=4 RealMemory=20000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=4 RealMemory=20000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE
"""

# A GPU is a character device to SLURM: links to /dev/null exist in every container, and their
# numbers name the devices.
GRES_CONF = "NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n"

# Run by mariadbd at its start, which saves the tests a client and a password.
INIT_SQL = """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';
"""


class ClusterError(RuntimeError):
    """A daemon did not come up, a command failed, or a state was not reached in time."""


class SlurmCluster:
    """Two nodes `n1` and `n2` with 4 CPUs, 20,000 MB and 2 GPUs each; partitions `main` (default)
    and `urgent`.

    A job in `urgent` preempts those in `main`, which are requeued. A folder serves one start, and
    its logs stay there.
    """

    def __init__(self, folder: Path, more: str = "") -> None:
        """
        Args:
            more: lines for slurm.conf.
        """
        self.folder, self.more = folder.resolve(), more
        if len(str(self.folder)) > SOCKET_LIMIT:
            raise ValueError(
                f"{self.folder}: sockets need a shorter path, of at most {SOCKET_LIMIT} characters"
            )
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.ports: dict[str, int] = {}
        self._hurried: dict[str, float] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SlurmCluster:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @staticmethod
    def missing() -> list[str]:
        """What keeps a cluster from running here, as words for a skip; empty where it can run."""
        absent = [
            program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None
        ]
        packages = " ".join(dict.fromkeys(PROGRAMS[program] for program in absent))
        reasons = [f"{program} is not installed (apt-get install {packages})" for program in absent]
        if os.geteuid() != 0:
            reasons.append("SLURM's daemons start jobs as other users: run as root")
        return reasons

    def start(self) -> None:
        """Bring up all daemons and wait until both nodes are idle.

        Raises:
            ClusterError: a daemon did not come up; nothing of the cluster is left running then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "slurm.conf").exists():
            raise ClusterError(f"{self.folder} has served a cluster before: give a new folder")
        try:
            self._write_files()
            self._start_guard()
            self._start_accounting()
            self._start_controller()
            for name in NODES:
                self._spawn(name, "slurmd", "-D", "-N", name)
            self._until_up(*NODES, ready=self._nodes_idle)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the cluster, jobs included; a second call finds nothing to do."""
        kill_processes(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        # The database takes most of the folder, and pytest keeps the folders of three sessions.
        shutil.rmtree(self.folder / "mariadb", ignore_errors=True)

    def _write_files(self) -> None:
        self.ports = free_ports("mariadb", "slurmdbd", "slurmctld", *NODES)
        for subfolder in ("state", "tmp", *(f"spool/{name}" for name in NODES)):
            (self.folder / subfolder).mkdir(parents=True)
        for number in range(2):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        texts = {
            "mariadb.conf": MARIADB_CONF,
            "init.sql": INIT_SQL,
            "slurmdbd.conf": SLURMDBD_CONF,
            "gres.conf": GRES_CONF,
            "slurm.conf": f"{SLURM_CONF}{self.more}\n",
        }
        for name, text in texts.items():
            host = socket.gethostname().partition(".")[0]
            write_private(
                self.folder / name,
                text.format(folder=self.folder, host=host, **self.ports).encode(),
            )
        write_private(self.folder / "munge.key", os.urandom(128))

    def _start_guard(self) -> None:
        """Leave a process that sweeps up when this one dies in a way that runs no `finally`:

        SIGTERM, SIGKILL.

        The guard reads a pipe, and this process holds its other end: the kernel closes it, however
            the process ends.
        """
        command = [sys.executable, __file__, str(self.folder)]
        self._guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _start_accounting(self) -> None:
        paths = {
            "key-file": "munge.key",
            "socket": "munge.sock",
            "pid-file": "munged.pid",
            "seed-file": "munge.seed",
        }
        options = [f"--{option}={self.folder / name}" for option, name in paths.items()]
        # pytest's folders are closed to other users, which munged takes for a mistake: --force
        # makes it a warning.
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        defaults = f"--defaults-file={self.folder / 'mariadb.conf'}"
        self._call(
            "mariadb-install-db",
            defaults,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        self._spawn("mariadbd", "mariadbd", defaults, f"--init-file={self.folder / 'init.sql'}")
        self._until_up("munged", ready=lambda: (self.folder / "munge.sock").is_socket())
        self._until_up("mariadbd", ready=lambda: is_open(self.ports["mariadb"]))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._until_up("slurmdbd", ready=lambda: is_open(self.ports["slurmdbd"]))

    def _start_controller(self) -> None:
        self._call("sacctmgr", "--immediate", "add", "cluster", "test")
        self._spawn("slurmctld", "slurmctld", "-D")
        self._until_up("slurmctld", ready=lambda: is_open(self.ports["slurmctld"]))

    def restart_controller(self) -> None:
        """End slurmctld with SIGKILL, and start it again with the state that it has saved."""
        self._daemons["slurmctld"].kill()
        self._daemons["slurmctld"].wait()
        self._spawn("slurmctld", "slurmctld", "-D")
        self._until_up("slurmctld", ready=lambda: is_open(self.ports["slurmctld"]))

    def _spawn(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground, as a child in a session of its own that Ctrl-C does not
        reach."""
        environment = {"PATH": SEARCH_PATH, MARK: str(self.folder), **self.env}
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def _call(self, *command: str) -> str:
        return self.run(
            *command, environment={"PATH": SEARCH_PATH, MARK: str(self.folder), **self.env}
        )

    def _until_up(self, *names: str, ready: Callable[[], object], timeout: float = 30) -> None:
        def done() -> object:
            for name in names:
                if self._daemons[name].poll() is not None:
                    raise ClusterError(f"it ended with code {self._daemons[name].returncode}")
            return ready()

        try:
            poll(done, timeout)
        except (ClusterError, TimeoutError) as error:
            tails = "".join(
                f"\n--- the end of {name}.out:\n{tail(self.folder / f'{name}.out')}"
                for name in names
            )
            raise ClusterError(f"{' and '.join(names)} did not come up: {error}{tails}") from None

    def run(
        self,
        *args: str,
        check: bool = True,
        timeout: float = 60,
        environment: dict[str, str] | None = None,
    ) -> str:
        """The standard output of one of SLURM's commands, without the last newline.

        Raises:
            ClusterError: the command failed, and `check` was not switched off.
        """
        environment = environment or {**os.environ, **self.env}
        done = subprocess.run(
            args,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise ClusterError(
                f"{' '.join(args)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout.rstrip("\n")

    def sbatch(self, script: str, *options: str) -> str:
        """Submit a line of shell and return the job's id.

        Its output goes to `job-ID.out` in the cluster's folder.
        """
        output = f"--output={self.folder / 'job-%j.out'}"
        return self.run("sbatch", "--parsable", output, *options, f"--wrap={script}")

    def jobs(self) -> dict[str, str]:
        """All jobs of the last day, as `sacct` knows them: id ("7", or "7_0" in an array) -> state
        ("RUNNING").

        SLURM tells the accounting of a job only once it may run: a job that is held, that waits for
            its begin, for
        another job or for its turn in a throttled array is not there.
        """
        text = self.run("sacct", "-XnP", "--starttime=now-1days", "--format=JobID,State")
        pairs = (line.split("|") for line in text.splitlines())
        return {job_id: state.split()[0] for ids, state in pairs for job_id in expand(ids)}

    def live_jobs(self) -> dict[str, str]:
        """All jobs that the controller knows, as in `jobs()`; those that ended stay for MinJobAge
        (300 s).

        At once, where `jobs()` lags: slurmctld tells the accounting of a new job at its next tick,
        every 5 s.
        """
        lines = self.run(
            "squeue", "--noheader", "--array", "--states=all", "--format=%i %T"
        ).splitlines()
        return dict(line.split() for line in lines)

    def wait(self, predicate: Callable[[], T], timeout: float = 180) -> T:
        """The first true value of `predicate`, asked every 50 ms.

        Raises:
            ClusterError: no true value within `timeout` seconds; it shows the queue and the nodes.
        """
        try:
            return poll(predicate, timeout)
        except TimeoutError as error:
            overview = [
                self.run(*words, check=False)
                for words in (["squeue"], ["sinfo", "--Node", "--long"])
            ]
            raise ClusterError("\n".join([str(error), *overview])) from None

    def wait_state(self, job_id: str, *states: str, live: bool = False, timeout: float = 60) -> str:
        """Wait until the accounting, or with `live` the controller, gives one of the states for the
        job; return it.

        Raises:
            ClusterError: the job ended in another state, or the time is over.
        """

        def reached() -> str:
            state = (self.live_jobs if live else self.jobs)().get(job_id, "")
            if state in FINAL_STATES and state not in states:
                log = (self.folder / "slurmctld.log").read_text(errors="replace").splitlines()
                told = "\n".join(
                    line for line in log if f"JobId={job_id}" in line or "update_node" in line
                )
                raise ClusterError(
                    f"job {job_id} ended as {state}, awaited: {', '.join(states)}\n{told}"
                )
            return state if state in states else ""

        return self.wait(reached, timeout)

    def hurry(self, job_id: str) -> None:
        """Let a requeued job start in a second instead of at its BeginTime (10 s here, 120 s
        elsewhere).

        Not sooner: in the second in which slurmd revoked the old credential, it takes a new one for
            revoked, too, and
        the job ends as FAILED ("Job credential revoked").
        """
        # until its old processes are gone, it is COMPLETING
        self.wait_state(job_id, "PENDING", live=True)
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+1")

    def hurry_all(self) -> None:
        """`hurry` for what waits now; to be asked again and again, as what pends every second would
        never start."""
        for job_id, state in self.live_jobs().items():
            now = time.monotonic()
            if state == "PENDING" and now - self._hurried.get(job_id, 0) > 5:
                self._hurried[job_id] = now
                self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+1", check=False)

    def cancel_all(self) -> None:
        """A clean slate: no job in the queue, both nodes up and idle.

        Past jobs stay in `jobs()`.
        """
        for name, state in self.node_states().items():
            self.start_node(name)
            if "down" in state or "drain" in state:
                self.resume_node(name)
        self.wait(self._is_queue_empty)
        self.wait(self._nodes_idle)

    def _is_queue_empty(self) -> bool:
        """Cancel what is in the queue.

        Its processes are ended here: `scancel` gives those that ignore it KillWait.
        """
        jobs = self.run("squeue", "--noheader", "--format=%A").split()
        if jobs:
            self.run("scancel", "--quiet", *jobs, check=False)
            for name in NODES:
                kill_processes(self.folder, name)
        return not jobs

    def node_states(self) -> dict[str, str]:
        """Node -> state as `sinfo` writes it: "idle", "mixed", "allocated", "down"; "down*" does
        not answer."""
        lines = self.run(
            "sinfo", "--noheader", "--Node", "--format=%N %T", check=False
        ).splitlines()
        return dict(line.split() for line in lines)

    def _nodes_idle(self) -> bool:
        return self.node_states() == dict.fromkeys(NODES, "idle")

    def kill_node(self, name: str, jobs: bool = True, notice: bool = True) -> None:
        """End slurmd with SIGKILL, and with `jobs` all that runs on the node, as a loss of power
        would.

        With `notice` the controller is told that the node is down and requeues its jobs at once; by
        itself it finds out in a minute or two (SlurmdTimeout). Without `jobs` they go on unseen,
        while SLURM starts them again elsewhere.
        """
        self._daemons[name].kill()
        self._daemons[name].wait()
        if jobs:
            kill_processes(self.folder, name)
        if notice:
            self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=killed")

    def start_node(self, name: str) -> None:
        """Start a node that was killed; one that runs is left alone."""
        if self._daemons[name].poll() is not None:
            self._spawn(name, "slurmd", "-D", "-N", name)
            self._until_up(name, ready=lambda: is_open(self.ports[name]))

    def resume_node(self, name: str) -> None:
        """Take back a node that the controller holds for down or drained."""
        self.start_node(name)
        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)


def poll(predicate: Callable[[], T], timeout: float) -> T:
    end = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > end:
            raise TimeoutError(f"not reached within {timeout:.0f} s")
        time.sleep(0.05)
    return value


def write_private(path: Path, content: bytes) -> None:
    """munged and slurmdbd refuse a key or a password that others may read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def free_ports(*names: str) -> dict[str, int]:
    """A port for each name, from below the range that the kernel gives to outgoing connections."""
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        while len(ports) < len(names):
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("", random.randrange(20000, 32000)))
                ports[names[len(ports)]] = candidate.getsockname()[1]
    return ports


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def expand(ids: str) -> list[str]:
    """The ids behind one id of sacct's: the waiting tasks of an array come as "12_[0-2,5%4]" in one
    line."""
    job, bracket, tasks = ids.partition("_[")
    if not bracket:
        return [ids]
    ranges = [part.split("-") for part in tasks.rstrip("]").partition("%")[0].split(",")]
    return [
        f"{job}_{task}"
        for first, *last in ranges
        for task in range(int(first), int((last or [first])[0]) + 1)
    ]


def kill_processes(folder: Path, node: str = "") -> None:
    """End what runs for the cluster in this folder, or only the jobs on one of its nodes, and wait
    until it is gone.

    All are stopped first: one that saw another die could still tell the controller that the job has
        failed. Then
    SIGKILL, because nothing in the folder is wanted any more and only this signal ends a job that
    ignores the others. Searched again until nothing is found: a daemon may have started one more
    process meanwhile.
    """
    while found := processes(folder, node):
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signum)
        psutil.wait_procs(found, timeout=0.2)


def processes(folder: Path, node: str = "") -> set[psutil.Process]:
    """The living processes of the cluster in this folder, or only those of the jobs on one of its
    nodes.

    Jobs are in sessions of their own and outlive slurmd: neither the tree of processes nor pid
        files lead to them. What
    tells them is what each process carries, see `_belongs`.
    """
    found = {process for process in psutil.process_iter() if _belongs(process, folder, node)}
    for process in list(found):
        with contextlib.suppress(psutil.Error):
            found.update(process.children(recursive=True))
    return {process for process in found if is_alive(process)}


def _belongs(process: psutil.Process, folder: Path, node: str) -> bool:
    """Daemons carry our mark, a job's tasks our SLURM_CONF with the id and the node.

    slurmstepd writes its title over its environment; it holds the log of its node open.
    """
    try:
        if process.name() == "slurmstepd":
            logs = {file.path for file in process.open_files()}
            return any(
                str(folder / f"slurmd-{name}.log") in logs for name in NODES if node in ("", name)
            )
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    if (
        environment.get("SLURM_CONF") == str(folder / "slurm.conf")
        and "SLURM_JOB_ID" in environment
    ):
        return node in ("", environment.get("SLURMD_NODENAME"))
    return not node and environment.get(MARK) == str(folder)


def is_alive(process: psutil.Process) -> bool:
    """A zombie has ended: its parent has only not asked yet."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# the guard of the cluster in the folder argv[1]: see SlurmCluster._start_guard
if __name__ == "__main__":
    sys.stdin.read()
    kill_processes(Path(sys.argv[1]))
