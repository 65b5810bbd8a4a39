"""`dora grid`: collect what the grid file wants and what is there, plan, act, show.

`run_grid` has the parameters of Dora's, so that notebooks written for Dora work. Everything may be
killed at any point: what is on disk then is what the next command starts from.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dora.conf import SlurmConfig, SubmitRules
from dora.explore import Explorer, Herd
from dora.grid import RunGridArgs

from ..errors import UserError
from ..experiment import claims
from ..experiment.clearing import other_owner
from ..experiment.folder import XPS, Experiment
from ..experiment.records import State
from ..experiments import Experiments
from ..jobs.choose import chosen
from ..jobs.executor import Executor, nowhere
from ..jobs.resources import Shape, parameters, refuse_dev, stored
from ..upstream.dora import from_command_line
from ..watch.info import follow_experiment, overrides
from ..watch.live import Charge, Monitor, exit_code
from ..watch.logs import print_log
from ..watch.status import look
from . import submission
from .grids import Wants, explore, find_explorer
from .open_ended import Ground, Growing
from .plan import Action, Known, Verb, Wanted, is_alarming, limited, make_plan, stopped
from .request import Outcome, Request, batches, code_before, kept
from .sheep import Sheep
from .show import confirm, print_plan
from .table import GridTable

__all__ = ["find_explorer", "run_grid"]


def run_grid(
    main: Experiments,
    explorer: Explorer,
    grid_name: str,
    rules: SubmitRules = SubmitRules(),  # noqa: B008 (Dora's)
    slurm: SlurmConfig | None = None,
    args: RunGridArgs = RunGridArgs(),  # noqa: B008
) -> list[Sheep]:
    """Bring the experiments of a grid in line with its file, and show them; the API behind `dora
    grid`.

    Args:
        main: what `hydra_main` made of the project's `main`.
        grid_name: a unique name for the grid, which its folder below `outputs/grids` gets.
        rules: which experiments are submitted again.
        slurm: resources, in the place of the configuration's.
        args: see `dora.grid.RunGridArgs`.

    Returns:
        The sheep that the patterns leave.

    Raises:
        UserError: the user asks for what cannot be.
        SystemExit: on the command line, where something failed.
    """
    if "/" in grid_name or grid_name in ("", ".", ".."):
        raise UserError(
            f'grid_name="{grid_name}": it names a folder, so it is not empty and holds no "/".'
        )
    sheep, code = Sync(main, explorer, grid_name, rules, slurm, args).run()
    if code and from_command_line(args):
        sys.exit(code)
    return sheep


@dataclass
class Scene:
    """What is wanted and what is known, at one moment."""

    herd: Herd
    sheep: list[Sheep]  # those that the patterns leave
    leaving: list[str]  # signatures that the grid named before
    known: dict[str, Known] = field(default_factory=dict)
    slurm: dict[str, SlurmConfig] = field(default_factory=dict)  # signature -> what it asks for
    seen: dict[str, int] = field(default_factory=dict)  # signature -> number of submissions
    job_ids: dict[str, list[str]] = field(default_factory=dict)


class Sync:
    """One call of `dora grid`."""

    def __init__(
        self,
        main: Experiments,
        explorer: Explorer,
        grid: str,
        rules: SubmitRules,
        slurm: SlurmConfig | None,
        args: RunGridArgs,
        executor: Executor | None = None,
    ):
        self.main, self.explorer, self.grid, self.rules, self.args = (
            main,
            explorer,
            grid,
            rules,
            args,
        )
        self.slurm = slurm or main.get_slurm_config()
        self._given = executor
        self.executor: Executor = executor or chosen(main.composer.compose([]).values)
        self.dora_dir = Path(main.dora.dir)
        self.wants = Wants(self.dora_dir, grid)
        self.user = claims.user_name()
        self._code: dict[str, tuple[Path, Mapping[str, Any]]] = {}
        self._goes_on = False  # past the first round of a search: the command's flags were heeded

    def run(self) -> tuple[list[Sheep], int]:
        """(the sheep, the exit code)."""
        refuse_dev(self.slurm)
        scene = self.collect()
        if self._picks():
            return scene.sheep, self._pick(scene)
        actions = self.plan(scene)
        self._check(scene, actions)
        missing = self._missing()
        blocked = bool(missing) and any(action.verb.submits or action.stops for action in actions)
        if not self.args.silent and (self.args.dry_run or not blocked):
            print_plan(
                self.grid, actions, self._names(scene), "" if missing else self.executor.where()
            )
        if self.args.dry_run:
            self._show(scene)
            return scene.sheep, 0
        if self.args.init:
            for sheep in scene.sheep:
                self.main.create(sheep.xp)
        if blocked:
            if not self.args.monitor:
                self._show(scene)
            raise UserError(*nowhere(self.executor))
        self._confirm(scene, actions)
        outcomes = self.act(scene, actions)
        if self.args.cancel:
            return scene.sheep, 0
        return scene.sheep, self._watch(scene, actions, outcomes)

    def _missing(self) -> str:
        """Why nothing can be submitted; a dry run does not make the local queue to find that
        out."""
        return (
            "" if self.args.dry_run and self.executor.name == "local" else self.executor.missing()
        )

    # --- collect ---

    def collect(self) -> Scene:
        """Run the grid file, and look at every experiment that it names or named."""
        herd = explore(self.explorer, self.main, self.slurm, self._ground())
        named = set(herd.sheeps)
        scene = Scene(
            herd,
            self._matching(list(herd.sheeps.values())),  # type: ignore[arg-type]  # our Shepherd made them
            [sig for sig in self.wants.named() if sig not in named],
        )
        for sheep in scene.sheep:
            with _at_place(sheep):
                asked = herd.slurm_configs[sheep.xp.sig]
                scene.slurm[sheep.xp.sig] = self.main.resources(sheep.xp, asked)
        if scene.sheep and not self._given:
            self.executor = chosen(one_place([sheep.xp.values for sheep in scene.sheep]))
        for sheep in scene.sheep:
            sheep.executor = self.executor
        if not self.args.dry_run:
            submission.settle(self._experiments(scene).values(), self.executor)
            self.executor.move()
        self.look(scene)
        return scene

    def _ground(self) -> Ground:
        asks = not (self.args.cancel or self.args.patterns or self._picks())
        return Ground(
            self.main,
            self.wants.folder,
            lambda experiments: look(experiments, self.executor),
            asks,
            asks and not self.args.dry_run,
        )

    def look(self, scene: Scene) -> None:
        """What is known of each experiment, now."""
        experiments = self._experiments(scene)
        # before the look: whatever comes after it, makes an intent fail
        for sig, experiment in experiments.items():
            scene.seen[sig] = experiment.job_number()
        statuses = look(experiments.values(), self.executor, force=True)
        others = self.wants.others()
        clears = self.args.clear or self.rules.replace_done
        for sig, experiment in experiments.items():
            job = experiment.job()
            scene.known[sig] = Known(
                statuses[sig],
                job.resources if job else {},
                others.get(sig, ()),
                job.code.get("hash", "") if job else "",
                other_owner(experiment) if clears else "",
            )
            scene.job_ids[sig] = job.ids if job else []
        for sheep in scene.sheep:
            sheep.status = statuses[sheep.xp.sig]

    def _experiments(self, scene: Scene) -> dict[str, Experiment]:
        found = {sheep.xp.sig: sheep.experiment for sheep in scene.sheep}
        return found | {sig: Experiment(self.dora_dir / XPS / sig) for sig in scene.leaving}

    def _matching(self, sheep: list[Sheep]) -> list[Sheep]:
        """Those that the patterns leave: by name (`*` allowed, `!` in front negates), then by
        index.

        Raises:
            UserError: no name fits, or there is no such index.
        """
        indices = [int(pattern) for pattern in self.args.patterns if _is_index(pattern)]
        patterns = [pattern for pattern in self.args.patterns if not _is_index(pattern)]
        left = (
            [one for one in sheep if matches(self.main.get_name(one.xp), patterns)]
            if patterns
            else sheep
        )
        if sheep and not left:
            raise UserError(
                f"no experiment of {self.grid} is named like {' '.join(patterns)}.",
                f"e.g. {self.main.get_name(sheep[0].xp) or '(the defaults)'}; all: dora grid {self.grid} "
                "--dry_run",
            )
        return [self._at(left, index) for index in indices] if indices else left

    def _at(self, sheep: Sequence[Sheep], index: int) -> Sheep:
        if not -len(sheep) <= index < len(sheep):
            raise UserError(
                f"there is no experiment {index}: {self.grid} has 0 to {len(sheep) - 1}."
                if sheep
                else f"there is no experiment {index}: nothing of {self.grid} is left."
            )
        return sheep[index]

    # --- plan ---

    def plan(self, scene: Scene) -> list[Action]:
        search = self.explorer if isinstance(self.explorer, Growing) else None
        waits = any(
            known.code and known.status.state == State.WAITING for known in scene.known.values()
        )
        code = self.main.todays_snapshot() if waits else ""
        wanted = [
            Wanted(
                sheep.xp.sig,
                self._resources(scene, sheep),
                [str(item) for item in self.main.drift(sheep.xp)],
                code,
                searched=search is not None,
            )
            for sheep in scene.sheep
        ]
        actions = make_plan(
            wanted,
            scene.known,
            self.rules,
            self.user,
            scene.leaving,
            self.args.cancel,
            self.args.clear and not self._goes_on,
            updates_code(),
        )
        return limited(actions, scene.known, search.at_once) if search else actions

    def _resources(self, scene: Scene, sheep: Sheep) -> dict[str, Any]:
        """As they are stored with a job.

        Raises:
            UserError: no job can have them.
        """
        with _at_place(sheep):
            slurm, shape = scene.slurm[sheep.xp.sig], Shape.of(sheep.xp.values)
            parameters(slurm, shape)
            return stored(slurm, shape)

    def _names(self, scene: Scene) -> dict[str, str]:
        names = {}
        if scene.sheep:
            found, _ = self.main.get_names([sheep.xp for sheep in scene.sheep])
            names = {sheep.xp.sig: name for sheep, name in zip(scene.sheep, found, strict=True)}
        for sig in scene.leaving:
            experiment = Experiment(self.dora_dir / XPS / sig)
            names[sig] = overrides(experiment, experiment.birth())
        return names

    def _confirm(self, scene: Scene, actions: Sequence[Action]) -> None:
        """Ask before running work ends, or results go; a notebook is not asked."""
        if from_command_line(self.args):
            alarm = "" if self.args.cancel else is_alarming(actions, scene.known)
            anew = [
                Experiment(self.dora_dir / XPS / action.sig) for action in actions if action.anew
            ]
            lost = sum(experiment.exists() for experiment in anew)
            confirm(self.grid, len(stopped(actions)), lost, alarm, self.args.clear)

    # --- act ---

    def act(self, scene: Scene, actions: Sequence[Action]) -> list[Outcome]:
        """Do what the plan says. Refusals of single experiments are outcomes; the others go on.

        Raises:
            UserError: an experiment cannot be made, or does not end; nothing was submitted then.
        """
        by_sig = {sheep.xp.sig: sheep for sheep in scene.sheep}
        submits = [by_sig[action.sig] for action in actions if action.verb.submits]
        anew = {action.sig for action in actions if action.anew}
        self._make_way(scene, [action for action in actions if action.anew])
        self._cancel(scene, [action for action in actions if action.verb == Verb.CANCEL])
        for sheep in submits:
            with _at_place(sheep):
                self.main.create(sheep.xp, anew=sheep.xp.sig in anew)
        for action in actions:
            # a trial of a search whose turn is yet to come
            if action.anew and not action.verb.submits:
                by_sig[action.sig].experiment.put_aside()
        submission.fault("created")
        if not self.args.cancel:
            self.wants.take_over()
            for sheep in scene.sheep:
                self.wants.add(sheep.xp.sig)
        outcomes = submission.put_back(
            self._submit(scene, submits, {action.sig: action for action in actions}), anew
        )
        for action in actions:
            if action.leaves:
                self.wants.drop(action.sig)
        return outcomes

    def _check(self, scene: Scene, actions: Sequence[Action]) -> None:
        """The early check, before anything is said or done: of each experiment that is about to be
        made.

        Raises:
            UserError: one asks for what is not there.
        """
        submits = {action.sig: action for action in actions if action.verb.submits}
        for sheep in scene.sheep:
            action = submits.get(sheep.xp.sig)
            with _at_place(sheep):
                if action and action.anew:
                    self.main.check_anew(sheep.xp)
                elif action and not sheep.experiment.exists():
                    self.main.check(sheep.xp)

    def _make_way(self, scene: Scene, actions: Sequence[Action]) -> None:
        """End the jobs of what is to begin anew. Their code comes first: it may be refused.

        Raises:
            UserError: there is no code for the new jobs, or an old one does not end.
        """
        by_sig = {sheep.xp.sig: sheep for sheep in scene.sheep}
        for action in actions:
            self._todays_code(by_sig[action.sig])
        self._cancel(scene, [action for action in actions if action.stops])
        submission.wait_until_over(
            [by_sig[action.sig].experiment for action in actions], self.executor
        )
        for action in actions:
            scene.seen[action.sig], scene.job_ids[action.sig] = 0, []

    def _cancel(self, scene: Scene, actions: Sequence[Action]) -> None:
        submission.cancel(
            [Experiment(self.dora_dir / XPS / action.sig) for action in actions], self.executor
        )

    def _submit(
        self, scene: Scene, sheep: Sequence[Sheep], actions: Mapping[str, Action]
    ) -> list[Outcome]:
        """Each experiment as a job, those of one `launcher.job_array()` together."""
        requests = {one.xp.sig: self._request(scene, one, actions[one.xp.sig]) for one in sheep}
        outcomes = submission.submit_all(
            batches(scene.herd, requests), self.executor, self.dora_dir
        )
        self.executor.move()
        return outcomes

    def _refill(self, scene: Scene, held: Sequence[Sheep]) -> None:
        """Put in what waits with us, as far as there is room by now."""
        for one in held:
            scene.seen[one.xp.sig] = one.experiment.job_number()
        requests = {
            one.xp.sig: self._request(scene, one, Action(one.xp.sig, Verb.NEW)) for one in held
        }
        submission.submit_all(
            batches(scene.herd, requests), self.executor, self.dora_dir, careful=True
        )

    def _request(self, scene: Scene, sheep: Sheep, action: Action) -> Request:
        root, code = self._code_of(sheep, action)
        replaces = scene.job_ids[sheep.xp.sig] if action.stops else []
        stop = {}
        # whoever asks for more, gets it all
        if isinstance(self.explorer, Growing) and action.verb != Verb.RETRY:
            stop = self.explorer.stop_rule(sheep.xp.sig)
        slurm = scene.slurm[sheep.xp.sig]
        return Request(
            sheep.experiment,
            slurm,
            Shape.of(sheep.xp.values),
            scene.seen[sheep.xp.sig],
            Path(root),
            code,
            self.main.excluded(sheep.xp, slurm),
            self.grid,
            replaces,
            stop,
        )

    def _code_of(self, sheep: Sheep, action: Action) -> tuple[Path, Mapping[str, Any]]:
        """The code of its job: what it ran, or was to run, before it was interrupted or held; else
        today's."""
        job = sheep.experiment.job()
        keeps = action.verb == Verb.RESUME or (job is not None and job.held and not updates_code())
        before = code_before(sheep.experiment, self.dora_dir) if keeps else None
        return before or kept(self.main, sheep.experiment, self._todays_code(sheep))

    def _todays_code(self, sheep: Sheep) -> tuple[Path, Mapping[str, Any]]:
        """The code of a job that is submitted now; one for all that ask for it in the same way."""
        key = str(sheep.xp.values.get("code"))
        if key not in self._code:
            with _at_place(sheep):
                self._code[key] = self.main.code_for_jobs(sheep.xp)
        return self._code[key]

    # --- show ---

    def _watch(self, scene: Scene, actions: Sequence[Action], outcomes: Sequence[Outcome]) -> int:
        refused = self._say_refused(outcomes)
        held = sum(outcome.held for outcome in outcomes)
        if held and not self.args.silent:
            print(
                f"{held} queued by us: the scheduler takes no more at the moment. They go in as there is room, while "
                f"`dora grid {self.grid}` is open, or at its next call."
            )
        self.look(scene)
        if not scene.sheep:
            if not self.args.silent:
                print("no experiment to show.")
            return 0
        monitor = self._monitor(scene)
        monitor.charge = self._charge(scene)
        if self.args.monitor:
            monitor.run()
        elif not self.args.silent:
            monitor.show()
        not_done = any(action.refused for action in actions) or any(one.refused for one in refused)
        return max(self._exit_code(monitor.table.sheep), int(not_done))

    def _say_refused(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        refused = [outcome for outcome in outcomes if not outcome.submitted and not outcome.held]
        for outcome in refused:
            print(f"{outcome.experiment.sig}: {outcome.trouble}", file=sys.stderr)
        return refused

    def _exit_code(self, sheep: Sequence[Sheep]) -> int:
        """That a trial fails is an answer as well; that all of them do, is none."""
        if isinstance(self.explorer, Growing):
            failed = [one for one in sheep if one.status.state == State.FAILED]
            return max(
                exit_code([one for one in sheep if one not in failed]),
                int(self.explorer.is_in_vain()),
            )
        return exit_code(sheep)

    def _charge(self, scene: Scene) -> Charge:
        grows = isinstance(self.explorer, Growing) and not self.args.patterns
        return Charge(
            self.wants.in_charge,
            lambda held: self._refill(scene, held),
            self._go_on if grows else None,
        )

    def _go_on(self) -> tuple[GridTable, Charge]:
        """An experiment of a search has ended: ask for what is to follow, submit it, and show it
        from here on."""
        self._goes_on, self.rules = True, SubmitRules()
        scene = self.collect()
        actions = self.plan(scene)
        self._check(scene, actions)
        self._say_refused(self.act(scene, actions))
        begun = [sheep for sheep in scene.sheep if not sheep.status.live]
        statuses = look([sheep.experiment for sheep in begun], self.executor, force=True)
        # not of the others: one that has ended since is yet to be told, by the monitor's next look
        for sheep in begun:
            sheep.status = statuses[sheep.xp.sig]
        return self._table(scene), self._charge(scene)

    def _table(self, scene: Scene) -> GridTable:
        note = self.explorer.note() if isinstance(self.explorer, Growing) else ""
        return GridTable(self.grid, self.explorer, self.main, scene.sheep, note)

    def _show(self, scene: Scene) -> None:
        if scene.sheep and not self.args.silent:
            self._monitor(scene).show()

    def _monitor(self, scene: Scene) -> Monitor:
        if self.args.trim is not None:
            self._at(scene.sheep, self.args.trim)
        return Monitor(self._table(scene), self.executor, self.args)

    def _picks(self) -> bool:
        """`-f`, `-l` and `-t` show one experiment, and do nothing."""
        return any(index is not None for index in (self.args.folder, self.args.log, self.args.tail))

    def _pick(self, scene: Scene) -> int:
        index = next(
            index
            for index in (self.args.folder, self.args.log, self.args.tail)
            if index is not None
        )
        sheep = self._at(scene.sheep, index)
        if self.args.folder is not None:
            print(sheep.experiment.folder)
        elif sheep.log is None:
            raise UserError(f"XP {sheep.xp.sig} has no log yet: it is {sheep.status.state}.")
        elif self.args.log is not None:
            print_log(sheep.log)
        else:
            follow_experiment(sheep.experiment, self.executor)
        return 0


def updates_code() -> bool:
    """Whether jobs that wait with older code shall run today's."""
    return os.environ.get("DORA_UPDATE") == "1"


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Dora's rule: every pattern is somewhere in the name; one with `!` in front is nowhere in
    it."""
    return all(
        fnmatch(name, f"*{pattern.removeprefix('!')}*") != pattern.startswith("!")
        for pattern in patterns
    )


def one_place(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys that say where jobs go, which all experiments of a grid have in common.

    Args:
        values: of each experiment.

    Raises:
        UserError: they differ.
    """
    place: dict[str, Any] = {"threads": max(int(one.get("threads") or 1) for one in values)}
    for section, key in (("", "cluster"), ("local", "jobs")):
        found = list(
            dict.fromkeys((one.get(section) or {} if section else one).get(key) for one in values)
        )
        name = f"{section}.{key}".lstrip(".")
        if len(found) > 1:
            asked = ", ".join(f"{name}={value}" for value in found)
            raise UserError(
                f"the experiments of this grid ask for {asked}: all jobs of a grid "
                "go to one place.",
                f"set it once: {name} in conf/config.yaml, or "
                f'launcher.bind_({{"{name}": ...}}) before the first call',
            )
        place |= {section: {key: found[0]}} if section else {key: found[0]}
    return place


def _is_index(pattern: str) -> bool:
    return pattern.removeprefix("-").isdigit()


@contextmanager
def _at_place(sheep: Sheep) -> Iterator[None]:
    """Put the line of the grid file before a mistake of one of its experiments."""
    try:
        yield
    except UserError as error:
        place = f"{sheep.place}: " if sheep.place else ""
        raise UserError(f"{place}{error}") from error
