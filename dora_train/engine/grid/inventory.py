"""What a grid wants and what is there: the facts that the plan of `sync.py` is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig
from dora.explore import Herd

from ..errors import UserError
from ..experiment.clearing import other_owner
from ..experiment.finished import Finished
from ..experiment.folder import Experiment
from ..experiment.records import State
from ..jobs.choose import chosen
from ..jobs.executor import Executor
from ..jobs.pack import has_program
from ..jobs.packing import Packing
from ..jobs.queue.gpus import named
from ..jobs.resources import Shape, parameters
from ..watch.status import look
from .command import Command
from .grids import explore
from .memory import next_raise, on_other_gpu, with_more
from .open_ended import GridContext
from .plan import Action, Known
from .selection import select, shown_index
from .settlement import settle
from .sheep import Sheep, located


@dataclass
class Inventory:
    """What is wanted and what is known, at one moment. All mappings are by signature."""

    herd: Herd  # what the whole grid file names
    sheep: list[Sheep]  # those that the patterns of the command select
    leaving: list[str]  # signatures that the grid named before, and names no more
    experiments: dict[str, Experiment]  # of `sheep` and of `leaving`
    slurm: dict[str, SlurmConfig]  # the resources that each of `sheep` asks for
    executor: Executor  # where the jobs of this grid go
    known: dict[str, Known] = field(default_factory=dict)
    raised: dict[str, dict[str, Any]] = field(default_factory=dict)  # see memory.py
    seen: dict[str, int] = field(default_factory=dict)  # the number of submissions
    job_ids: dict[str, list[str]] = field(default_factory=dict)  # of the last job

    def by_sig(self) -> dict[str, Sheep]:
        return {one.xp.sig: one for one in self.sheep}

    def asked_by(self, sheep: Sheep) -> tuple[SlurmConfig, Shape]:
        """The resources and the shape of the next job of an experiment.

        Raises:
            UserError: no job can have this shape.
        """
        slurm, shape = self.slurm[sheep.xp.sig], Shape.of(sheep.xp.values)
        raised = self.raised.get(sheep.xp.sig, {})
        return with_more(slurm, raised), on_other_gpu(slurm, shape, raised)

    def packing_of(self, sheep: Sheep, code_root: Path | None = None) -> Packing:
        """How an experiment may share its job. Only SLURM has such jobs.

        Args:
            code_root: the code of the job, which may be of an earlier version. None: today's.
        """
        slurm, shape = self.asked_by(sheep)
        is_able = code_root is None or has_program(code_root)
        if self.executor.name != "slurm" or slurm.dependents or not is_able:
            return Packing()
        return Packing.of(sheep.xp.values, parameters(slurm, shape))

    def experiments_of(self, actions: Sequence[Action]) -> list[Experiment]:
        return [self.experiments[action.sig] for action in actions]


def collect(command: Command, executor: Executor) -> Inventory:
    """Run the grid file, and look at every experiment that it names or named.

    Args:
        executor: it is asked about jobs while the grid file runs. The file says where the jobs of
            the grid go, so its own executor is known only afterwards.

    Raises:
        UserError: the grid file asks for something that is not possible.
    """
    herd = explore(command.explorer, command.main, command.slurm, _context(command, executor))
    sheep = select(command, list(herd.sheeps.values()))  # type: ignore[arg-type]  # our Shepherd made them
    leaving = [sig for sig in command.wants.named() if sig not in herd.sheeps]
    finished = _finished(command, [*(one.xp.sig for one in sheep), *leaving])
    experiments, slurm = {}, {}
    for one in sheep:
        sig = one.xp.sig
        one.experiment = finished.get(sig, one.experiment)
        experiments[sig] = one.experiment
        with located(one):
            slurm[sig] = command.main.resources(one.xp, herd.slurm_configs[sig])
    for sig in leaving:
        experiments[sig] = finished.get(sig) or command.experiment(sig)
    if sheep:
        executor = chosen(one_place([one.xp.values for one in sheep]))
    for one in sheep:
        one.executor = executor
    if not command.args.dry_run:
        settle(experiments.values(), executor)
        executor.move()
    inventory = Inventory(herd, sheep, leaving, experiments, slurm, executor)
    update(inventory, command)
    return inventory


def _finished(command: Command, sigs: Sequence[str]) -> Mapping[str, Experiment]:
    """The finished experiments whose files need not be read, by signature."""
    if _removes_results(command):  # then their folders will change
        return {}
    return Finished(command.dora_dir).known(sigs)


def _removes_results(command: Command) -> bool:
    return command.clear or command.rules.replace_done


def _context(command: Command, executor: Executor) -> GridContext:
    args = command.args
    asks = not args.cancel and not args.patterns and shown_index(args) is None
    return GridContext(
        command.main,
        command.wants.folder,
        look=lambda experiments: look(experiments, executor),
        asks=asks,
        writes=asks and not args.dry_run,
    )


def update(inventory: Inventory, command: Command) -> None:
    """Look at every experiment again, and ask the scheduler now."""
    experiments = inventory.experiments
    # The numbers come before the look. If another command submits in between, the number that we
    # would use is taken, and our intent fails.
    for sig, experiment in experiments.items():
        inventory.seen[sig] = experiment.job_number()
    statuses = look(experiments.values(), inventory.executor, force=True)
    other_grids = command.wants.others()
    removes_results = _removes_results(command)
    if not removes_results:
        done = [one for sig, one in experiments.items() if statuses[sig].state == State.COMPLETED]
        Finished(command.dora_dir).keep(done)
    for sig, experiment in experiments.items():
        owner = other_owner(experiment) if removes_results else ""
        known = Known(statuses[sig], grids=other_grids.get(sig, ()), owner=owner)
        job_ids: list[str] = []
        job = experiment.job()
        if job is not None:
            known = replace(known, resources=job.resources, code=job.code.get("hash", ""))
            job_ids = job.ids
        inventory.known[sig], inventory.job_ids[sig] = known, job_ids
    for one in inventory.sheep:
        sig = one.xp.sig
        one.status = statuses[sig]
        if one.status.state not in (State.NEW, State.COMPLETED):
            inventory.raised[sig] = next_raise(one.experiment.job(), one.status, one.xp.values)
        if one.status.state == State.COMPLETED:
            one.other_code = bool(command.main.todays_code.differs(one.experiment, one.xp.values))
            inventory.known[sig] = replace(inventory.known[sig], other_code=one.other_code)


def one_place(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration keys that say where jobs go, which all experiments of a grid share.

    Args:
        values: the configuration of each experiment.

    Raises:
        UserError: they differ.
    """
    # A `local:` block may be missing or blank.
    local = [one.get("local") or {} for one in values]
    preload: set[str] = set()
    for block in local:
        preload.update(block.get("preload") or ())
    threads = [int(one.get("threads") or 1) for one in values]
    gpus = []
    for block in local:
        gpus.append({"gpus": ",".join(named(block.get("gpus"))) or None})
    return {
        "threads": max(threads),
        "fewest_threads": min(threads),
        "cluster": _shared("cluster", values),
        "local": {
            "jobs": _shared("local.jobs", local),
            "warm": all(block.get("warm", True) for block in local),
            "preload": sorted(preload),
            "per_gpu": _shared("local.per_gpu", local),
            "gpus": _shared("local.gpus", gpus),
        },
    }


def _shared(key: str, blocks: Sequence[Mapping[str, Any]]) -> object:
    """The value that all blocks of a configuration have for a key.

    Args:
        key: with the name of the block, if there is one: "local.jobs".

    Raises:
        UserError: the values differ.
    """
    name = key.rpartition(".")[2]
    first, *others = dict.fromkeys(block.get(name) for block in blocks)
    if others:
        asked = ", ".join(f"{key}={value}" for value in (first, *others))
        raise UserError(
            f"the experiments of this grid ask for {asked}: all jobs of a grid go to one place.",
            f"set it once: {key} in conf/config.yaml, or "
            f'launcher.bind_({{"{key}": ...}}) before the first call',
        )
    return first
