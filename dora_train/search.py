"""A search as a grid file: it asks an optimizer what to try. Every trial is an ordinary experiment.

`grids/search.py` shows one. `dora grid search` asks, submits, watches, tells and asks again until
all trials are done. It may be killed and called again at any time: its state is rebuilt from the
experiments (engine/search/replay.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from dora.explore import Explore, Launcher

from .engine.config.direction import is_said
from .engine.errors import UserError, did_you_mean
from .engine.experiment import folder as store
from .engine.experiment.folder import Experiment
from .engine.experiment.records import SearchRecord, State
from .engine.grid.open_ended import GridContext, Growing
from .engine.search.names import Names
from .engine.search.optimizers import Terms, make
from .engine.search.outcomes import Objective, Outcome, floors
from .engine.search.replay import Replay, Trial
from .engine.search.space import Dimension, choice, integer, log, uniform
from .engine.upstream.dora import overrides_of
from .engine.watch.status import Status
from .engine.words import directions

__all__ = ["Search", "choice", "integer", "log", "uniform"]

# If so many trials have ended and all of them failed, the search gives up: a bug fails them all.
GIVE_UP_AFTER = 3
FAILURES = (State.FAILED, State.TIMED_OUT)


class Search(Growing):
    """The base class of a search, beside an explorer that says which columns the table shows.

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
    # true: finished experiments within the space, of any grid, are told before the first ask
    reuse: bool = False

    def __init__(self, explore: Explore):
        super().__init__(explore)
        refuse_settings(self)
        self._replay: Replay | None = None
        self._record = SearchRecord()
        self._outcomes: dict[str, Outcome] = {}  # of the trials that have ended, by signature
        self._failures: dict[str, str] = {}  # why trials failed, by signature
        self._folder = ""  # of the grid whose record `_replay` was made from

    def _settle(self, metric: str, mode: str) -> None:
        """Set the objective and its direction, if the class leaves them open.

        Args:
            metric, mode: what chooses the best epoch of the trials.

        Raises:
            UserError: no class gives the direction of the objective, or one gives a wrong direction.
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
        """The attributes of each class below `Search`. A later one overrides an earlier one."""
        layers: list[Mapping[str, Any]] = []
        for kind in reversed(type(self).__mro__):
            # An explorer beside it may have a `mode` as well, which is not the direction of a search.
            if issubclass(kind, Search) and kind is not Search:
                layers.append(vars(kind))
        return layers

    # --- the interface of the grid ---

    def grow(self, launcher: Launcher, context: GridContext) -> None:
        """See `Growing`. It writes the record of the search, if the context allows it."""
        names = Names(context.main, overrides_of(launcher))
        self._settle(*names.main_metric())
        if self._replay is None or self._folder != str(context.folder):
            self._replay = self._replayed(names, context)
            self._folder = str(context.folder)
        replay = self._replay
        self._learn(replay.trials, context)
        while context.asks and len(replay.trials) < self.trials and not self.has_given_up():
            trial = replay.ask(self.at_once)
            if trial is None:
                break
            # The experiment may exist and have ended already, e.g. in another grid.
            self._learn([trial], context)
        for trial in replay.trials:
            launcher(dict(trial.values))
        self._record.trials = list(map(asdict, replay.trials))
        if context.writes:
            store.write_search(context.folder, self._record)

    def stop_rule(self, sig: str) -> dict[str, Any]:
        """With `prune`, the medians below which a trial is stopped. Empty: there is none."""
        if self._replay is None or self.prune is None:
            return {}
        trials = self._replay.trials
        trial = next((trial for trial in trials if trial.sig == sig), None)
        if trial is None:
            return {}
        # Only trials that were told before this one was asked for count. Otherwise the rule would
        # depend on the time at which its job is submitted.
        earlier = []
        for one in trials[: trial.told]:
            if one.sig in self._outcomes:
                earlier.append(self._outcomes[one.sig])
        medians = floors(earlier)
        if all(median is None for median in medians):
            return {}
        return {"metric": self.objective, "mode": self.mode, "floors": medians}

    def note(self) -> str:
        """How many trials have ended, and the best one."""
        replay = self._replay
        if replay is None:
            return ""
        ended = [trial.sig for trial in replay.trials if trial.sig in self._outcomes]
        if self.has_given_up():
            # A trial may also end without a value of the objective: then no failure has a cause.
            reason = [*self._failures.values(), f"none of them has a finite {self.objective}"][0]
            return f"all of the first {len(ended)} trials failed, so no more are tried: {reason}"
        text = f"{len(ended)} of {max(self.trials, len(replay.trials))} trials are over"
        if replay.is_exhausted:
            text = f"{len(ended)} trials are over, and no suggestion is new: the space is small"
        first_with: dict[float, str] = {}  # value -> the first trial that reached it
        for sig in ended:
            value = self._outcomes[sig].value
            if value is not None:
                first_with.setdefault(value, sig)
        if first_with:
            best = self._objective.best(list(first_with))
            text += f", best {self.objective} {best:.4g} ({first_with[best]})"
        return text

    def has_given_up(self) -> bool:
        """Whether the first trials all failed. A cancelled trial does not count."""
        ended = [outcome for outcome in self._outcomes.values() if not outcome.silent]
        return len(ended) >= GIVE_UP_AFTER and all(outcome.value is None for outcome in ended)

    def has_missed(self, statuses: Mapping[str, Status]) -> bool:
        """See `Growing`."""
        trials = self._replay.trials if self._replay is not None else []
        unknown = {trial.sig for trial in trials} - self._outcomes.keys()
        return any(is_over(statuses[sig]) for sig in unknown & statuses.keys())

    # --- its state, from the record and the experiments ---

    @property
    def _objective(self) -> Objective:
        return Objective(self.objective, self.mode)

    @property
    def _question(self) -> dict[str, Any]:
        """The settings that make it this search. With others, the record is of another search."""
        return {
            "space": {key: repr(dimension) for key, dimension in self.space.items()},
            "seed": self.seed,
            "objective": self.objective,
            "mode": self.mode,
            "optimizer": self.optimizer,
        }

    def _replayed(self, names: Names, context: GridContext) -> Replay:
        """The search as its record left it. Without a record of this search, a new one."""
        record = store.read_search(context.folder)
        trials = [Trial(**trial) for trial in record.trials] if record else []
        if record is None or not self._fits(record, trials, names):
            record, trials = SearchRecord(self._question, self.trials, self.at_once), []
            if self.reuse:
                record.reused = names.within(self.space)
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

    def _fits(self, record: SearchRecord, trials: Iterable[Trial], names: Names) -> bool:
        """Whether a record is of this search, and its trials would have the same signatures today."""
        if record.question != self._question:
            return False
        return all(names.sig(trial.values) == trial.sig for trial in trials)

    def _learn(self, trials: Iterable[Trial], context: GridContext) -> None:
        """Look at the trials, and note the outcomes of those that have ended.

        A trial that was submitted again, e.g. by --retry, has no outcome until it ends again.
        """
        experiments = [context.main.experiment(trial.sig) for trial in trials]
        statuses = context.look(experiments)
        for experiment in experiments:
            status = statuses[experiment.sig]
            self._outcomes.pop(experiment.sig, None)
            self._failures.pop(experiment.sig, None)
            outcome = outcome_of(experiment, status, self._objective)
            if outcome is not None:
                self._outcomes[experiment.sig] = outcome
            if status.state in FAILURES:
                self._failures[experiment.sig] = status.cause or str(status.state)


def refuse_settings(search: Search) -> None:
    """Refuse settings of a search that do not exist or are not valid.

    Raises:
        UserError: with the first of them.
    """
    known = list(Search.__annotations__)
    for name in vars(type(search)):
        is_setting = not name.startswith("_") and not callable(getattr(search, name))
        if is_setting and name not in known:
            raise UserError(f'a search has no "{name}"{did_you_mean(name, known)}')
    dimensions = search.space.values()
    if not dimensions or not all(hasattr(one, "rounded") for one in dimensions):
        raise UserError('a search needs a space, e.g. space = {"optim.lr": log(1e-3, 1.0)}.')
    mode, prune = search.mode, search.prune
    if mode not in ("max", "min", "") or prune not in (None, "median"):
        raise UserError(
            f'mode = {mode!r}, prune = {prune!r}: "max" or "min", and None or "median".'
        )
    for count in (search.trials, search.at_once):
        if not isinstance(count, int) or count < 1:
            raise UserError(
                f"trials = {search.trials}, at_once = {search.at_once}: "
                "both are whole numbers from 1 on."
            )


def is_over(status: Status) -> bool:
    """Whether a trial has ended, and has an outcome."""
    ends = (State.CANCELLED, State.COMPLETED, State.STOPPED)
    return status.state in FAILURES or status.state in ends


def outcome_of(experiment: Experiment, status: Status, objective: Objective) -> Outcome | None:
    """The outcome of a trial. None: it has not ended.

    Raises:
        UserError: its history does not have the objective.
    """
    if not is_over(status):
        return None
    if status.state in FAILURES:
        return Outcome()
    if status.state == State.CANCELLED:
        return Outcome(silent=True)
    history = experiment.history()
    objective.refuse_missing(experiment.sig, history)
    steps = objective.steps(history)
    best = steps[-1] if steps else None
    return Outcome(best, steps, stopped=status.state == State.STOPPED)
