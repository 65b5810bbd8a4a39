"""A search as a grid file: it asks an optimizer what to try, and every trial is an ordinary
experiment.

`grids/search.py` shows one. `dora grid search` asks, submits, watches, tells and asks again until
the trials are spent. It may be killed and called again at any time: its state is rebuilt from the
experiments (engine/search/replay.py).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dora.explore import Explore, Launcher

from .engine.config.direction import is_said
from .engine.config.values import flatten
from .engine.errors import UserError, did_you_mean
from .engine.experiment import folder as store
from .engine.experiment.find import readable
from .engine.experiment.folder import Experiment
from .engine.experiment.records import SearchRecord, State
from .engine.grid.open_ended import GridContext, Growing
from .engine.search.optimizers import Terms, make
from .engine.search.outcomes import Objective, Outcome, floors
from .engine.search.replay import Replay, Trial
from .engine.search.space import Dimension, Space, choice, integer, log, uniform
from .engine.upstream.dora import overrides_of
from .engine.watch.status import Status
from .engine.words import directions, main_metric

__all__ = ["Search", "choice", "integer", "log", "uniform"]

# trials that may fail in a row, from the first on, before the search gives up: a bug fails them all
HOPE = 3


class Search(Growing):
    """What a grid file subclasses, together with an explorer that says which columns the table
    shows.

    The function that it decorates binds what all trials share (`bind_`, `slurm_`), and may name
    experiments of its own.
    """

    # key -> log(low, high), uniform(low, high), integer(low, high), choice(a, b)
    space: Mapping[str, Dimension] = {}
    # a metric of history.json; a trial counts with its best epoch; blank: best.metric of the trials
    objective: str = ""
    mode: str = ""  # max | min; blank: best.mode, which another objective than best.metric needs
    trials: int = 20  # experiments in all; may be raised later
    # experiments that wait or run at any time; as many trials are asked for before one is told
    at_once: int = 1
    # nevergrad (NGOpt) | optuna (TPE) | nevergrad:DE, optuna:GP: any of theirs | random
    optimizer: str = "nevergrad"
    seed: int = 0  # same seed, same trials, however long each takes
    # median: a trial below the median of earlier ones is stopped after that epoch
    prune: str | None = None
    # true: finished experiments within the space, of whatever grid, are told before the first ask
    reuse: bool = False

    def __init__(self, explore: Explore):
        super().__init__(explore)
        self._check()
        self._replay: Replay | None = None
        self._record = SearchRecord()
        self._outcomes: dict[str, Outcome] = {}
        self._causes: list[str] = []
        self._folder = ""

    def _check(self) -> None:
        """Raises: UserError for a setting that is none, or makes no sense."""
        known = list(Search.__annotations__)
        for name in [name for name in vars(type(self)) if not name.startswith("_")]:
            if name not in known and not callable(getattr(self, name)):
                raise UserError(f'a search has no "{name}"{did_you_mean(name, known)}')
        if not self.space or not all(
            hasattr(dimension, "rounded") for dimension in self.space.values()
        ):
            raise UserError('a search needs a space, e.g. space = {"optim.lr": log(1e-3, 1.0)}.')
        if self.mode not in ("max", "min", "") or self.prune not in (None, "median"):
            raise UserError(
                f'mode = {self.mode!r}, prune = {self.prune!r}: "max" or "min", and None or "median".'
            )
        if not (
            isinstance(self.trials, int)
            and isinstance(self.at_once, int)
            and min(self.trials, self.at_once) >= 1
        ):
            raise UserError(
                f"trials = {self.trials}, at_once = {self.at_once}: both are whole numbers from 1 on."
            )

    def _settle(self, metric: str, mode: str) -> None:
        """Take over what the class leaves open.

        Args:
            metric, mode: what chooses the best epoch of the trials.

        Raises:
            UserError: nobody has said the direction of the objective, or a wrong one.
        """
        layers = [{"objective": metric, "mode": mode}, *self._own_layers()]
        self.objective, self.mode = self.objective or metric, self.mode or mode
        possible = directions(self.objective)
        if not is_said(layers, "objective", "mode"):
            modes = " or ".join(f'mode = "{one}"' for one in possible)
            raise UserError(f'objective = "{self.objective}" needs its direction: add {modes}.')
        if self.mode not in possible:
            raise UserError(
                f'mode = "{self.mode}": {self.objective} is a loss, and less of it is '
                'better: write mode = "min".'
            )

    def _own_layers(self) -> list[Mapping[str, Any]]:
        """What each class below `Search` sets, the nearest to it first."""
        kinds = [kind for kind in reversed(type(self).__mro__) if issubclass(kind, Search)]
        return [vars(kind) for kind in kinds if kind is not Search]

    # --- what the grid asks of it ---

    def grow(self, launcher: Launcher, context: GridContext) -> None:
        names = Names(context.main, overrides_of(launcher))
        self._settle(*names.main_metric())
        if self._replay is None or self._folder != str(context.folder):
            self._replay = self._begun(names, context)
            self._folder = str(context.folder)
        replay = self._replay
        self._learn(replay.trials, context)
        while context.asks and len(replay.trials) < self.trials and not self.is_in_vain():
            trial = replay.ask(self.at_once)
            if trial is None:
                break
            self._learn([trial], context)
        for trial in replay.trials:
            launcher(dict(trial.values))
        self._record.trials = [
            {"sig": trial.sig, "values": dict(trial.values), "told": trial.told}
            for trial in replay.trials
        ]
        if context.writes:
            store.write_search(context.folder, self._record)

    def stop_rule(self, sig: str) -> dict[str, Any]:
        trials = self._replay.trials if self._replay and self.prune else []
        trial = next((trial for trial in trials if trial.sig == sig), None)
        if trial is None:
            return {}
        earlier = [
            self._outcomes[one.sig] for one in trials[: trial.told] if one.sig in self._outcomes
        ]
        found = floors(earlier)
        return (
            {"metric": self.objective, "mode": self.mode, "floors": found}
            if any(floor is not None for floor in found)
            else {}
        )

    def note(self) -> str:
        replay = self._replay
        if replay is None:
            return ""
        trials = [trial for trial in replay.trials if trial.sig in self._outcomes]
        text = f"{len(trials)} of {max(self.trials, len(replay.trials))} trials are over"
        if replay.is_exhausted:
            text = f"{len(trials)} trials are over, and no suggestion is new: the space is small"
        if self.is_in_vain():
            return f"all of the first {len(trials)} trials failed, so no more are tried: {self._causes[0]}"
        good = {
            trial.sig: value
            for trial in trials
            if (value := self._outcomes[trial.sig].value) is not None
        }
        if good:
            best = self._objective.best(list(good.values()))
            text += f", best {self.objective} {best:.4g} ({next(sig for sig in good if good[sig] == best)})"
        return text

    def is_in_vain(self) -> bool:
        ended = [outcome for outcome in self._outcomes.values() if not outcome.silent]
        return len(ended) >= HOPE and all(outcome.value is None for outcome in ended)

    # --- its state, from the record and the experiments ---

    @property
    def _objective(self) -> Objective:
        return Objective(self.objective, self.mode)

    @property
    def _question(self) -> dict[str, Any]:
        """What makes it this search: with another one, the record is that of another."""
        return {
            "space": {key: repr(dimension) for key, dimension in self.space.items()},
            "seed": self.seed,
            "objective": self.objective,
            "mode": self.mode,
            "optimizer": self.optimizer,
        }

    def _begun(self, names: "Names", context: GridContext) -> Replay:
        """The search as the record left it; a new one where there is none, or the question is
        another."""
        record = store.read_search(context.folder)
        trials = [Trial(**trial) for trial in record.trials] if record else []
        if (
            record is None
            or record.question != self._question
            or any(names.sig(trial.values) != trial.sig for trial in trials)
        ):
            record, trials = SearchRecord(self._question, self.trials, self.at_once), []
            record.reused = [sig for sig, _ in names.within(self.space)] if self.reuse else []
        self._record, self._outcomes = record, {}
        terms = Terms(self.space, self._objective, self.seed, record.budget, record.at_once)
        replay = Replay(make(self.optimizer, terms), self._outcomes, names.sig)
        self._learn(trials, context)
        for sig in record.reused:
            steps = self._objective.steps(names.main.experiment(sig).history())
            values = names.values(sig, self.space)
            if values is not None and steps:
                replay.reuse(values, Outcome(steps[-1], steps))
        for trial in trials:
            replay.repeat(trial)
        return replay

    def _learn(self, trials: Iterable[Trial], context: GridContext) -> None:
        """Look at the trials of which it was not known that they have ended."""
        new = [
            context.main.experiment(trial.sig)
            for trial in trials
            if trial.sig not in self._outcomes
        ]
        statuses = context.look(new)
        for experiment in new:
            outcome = self._outcome(experiment, statuses[experiment.sig])
            if outcome is not None:
                self._outcomes[experiment.sig] = outcome

    def _outcome(self, experiment: Experiment, status: Status) -> Outcome | None:
        """What came of a trial; None where it has not ended."""
        if status.state in (State.FAILED, State.TIMED_OUT):
            self._causes.append(status.cause or str(status.state))
            return Outcome()
        if status.state == State.CANCELLED:
            return Outcome(silent=True)
        if status.state not in (State.COMPLETED, State.STOPPED):
            return None
        history = experiment.history()
        self._objective.refuse_missing(experiment.sig, history)
        steps = self._objective.steps(history)
        return Outcome(steps[-1] if steps else None, steps, status.state == State.STOPPED)


class Names:
    """From values to experiments, and back.

    Args:
        shared: the overrides that all trials share.
    """

    def __init__(self, main: Any, shared: list[str]):
        self.main, self.shared = main, shared

    def _xp(self, values: Mapping[str, Any]) -> Any:
        return self.main.get_xp([*self.shared, *self.main.value_to_argv(dict(values))])

    def main_metric(self) -> tuple[str, str]:
        """What chooses the best epoch of a trial, and its direction."""
        return main_metric(self._xp({}).values)

    def sig(self, values: Mapping[str, Any]) -> str:
        return str(self._xp(values).sig)

    def values(self, sig: str, space: Space) -> dict[str, Any] | None:
        """The values of a stored experiment; None where it lies outside the space, or differs in
        more than that."""
        birth = self.main.experiment(sig).birth()
        if birth is None:
            return None
        there = dict(self.main.composer.choices) | dict(flatten(birth.config)) | dict(birth.delta)
        values = {key: there.get(key) for key in space}
        if not all(dimension.holds(values[key]) for key, dimension in space.items()):
            return None
        xp = self._xp(values)
        return values if xp.sig == sig and not self.main.drift(xp) else None

    def within(self, space: Space) -> list[tuple[str, dict[str, Any]]]:
        """The finished experiments within the space, those that ended first before the others."""
        keep: Callable[[str], bool] = lambda key: key not in space  # noqa: E731
        shared = {key for key, _ in self.main.get_xp(self.shared).delta if keep(key)}
        found = []
        for experiment in readable(self.main.dora.dir):
            birth, run = experiment.birth(), experiment.state()
            if (
                birth is None
                or run.state != State.COMPLETED
                or {key for key, _ in birth.delta if keep(key)} != shared
            ):
                continue
            values = self.values(experiment.sig, space)
            if values is not None:
                found.append((run.ended or 0.0, experiment.sig, values))
        return [(sig, values) for _, sig, values in sorted(found, key=lambda one: one[:2])]
