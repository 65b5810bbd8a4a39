"""One attempt at an experiment: claimed, entered, and left with its state written.

The state is written whatever happens in between.
"""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...children import end_all_with_this_process
from .. import environment
from ..errors import UserError, shortened, writable
from ..experiment import claims, clearing
from ..experiment.birth import versions
from ..experiment.contents import refuse_other_files
from ..experiment.folder import Experiment
from ..experiment.origin import Find
from ..experiment.records import RunState, Start, State
from ..experiment.xp import XP
from ..experiments import Experiments, ask, refuse_clear, refuse_if_waiting
from ..upstream.dora import entered
from .attempts import attempts_in_vain, refuse_in_vain
from .codes import keep_code, number_of_codes
from .entering import enter, is_finished
from .failures import full_disk_said
from .leaving import end_recorded
from .ranks import Ranks
from .room import Room, minutes_to_wait
from .run_log import log_added, log_start, log_versions, logging_to, note_unpromised
from .signals import Signals
from .usage import Meter, UsageFile

if TYPE_CHECKING:
    from .resume import Resume

_current: "list[Session]" = []


def current() -> "Session":
    """Return the session that this process is in.

    Raises:
        UserError: this process is in no session.
    """
    if not _current:
        raise UserError("there is no experiment here: train() is called by main, in `dora run`.")
    return _current[-1]


@dataclass
class Session:
    """The knowledge of a run about itself. It is the one place that writes the run's state.

    Attributes:
        before: the state that the attempt before wrote.
        as_stored: adds newer keys to an older configuration, see `hydra_main`.
        code: the code that this attempt runs, see `Start`. Only rank 0 knows it.
        edited: returns the files of that code that have changed since it was read.
        added: keys that the experiment runs with for the first time, see `Start`.
    """

    experiment: Experiment
    ranks: Ranks
    signals: Signals
    before: RunState
    state: RunState
    console: Console
    find: Find  # finds an experiment by its signature
    as_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    code: dict[str, Any] = field(default_factory=dict)
    edited: Callable[[], list[str]] = list
    added: dict[str, Any] = field(default_factory=dict)
    resume: "Resume | None" = None  # where it resumes, known before main is called
    finished: bool = False
    stop: dict[str, Any] = field(default_factory=dict)  # when it ends early, see endings.py
    began: float = field(default_factory=time.monotonic)
    cores: int = 1  # that this rank may use

    @cached_property
    def meter(self) -> Meter:
        file = UsageFile(self.experiment, self.state.attempt, self.ranks.is_first)
        return Meter(self.ranks.rank, self.cores, file.write)

    @cached_property
    def room(self) -> Room:  # on its disk
        return Room(self.experiment.folder, minutes_to_wait(), self.log, self.signals)

    def log(self, line: str) -> None:
        """Write a line to the console and to train.log. Only rank 0 does so."""
        if self.ranks.is_first:
            logging.getLogger("dora_train").info(line)

    def report(self, state: State, **changes: object) -> None:
        """Write the state of the run, with these fields of `RunState`. Only rank 0 does so."""
        # All ranks would write the same file.
        if not self.ranks.is_first:
            return
        now = {"state": state, "updated": time.time(), "beat": time.monotonic()}
        self.state = replace(self.state, **now, **changes)  # type: ignore[arg-type]
        if state is not State.RUNNING:
            self.state.ended = time.time()
        self.room.keep(lambda: self.experiment.write_state(self.state))
        self.meter.measure()

    def begins(self, epoch: int, step: int) -> None:
        """Note where the training begins: from there on, this attempt's code counts.

        Args:
            epoch: the first one that is trained, from 1.
            step: optimizer steps before it.
        """
        self.meter.measure()
        if not self.ranks.is_first:
            return
        start = Start(epoch, self.code, step, self.added, versions())
        self.experiment.write_start(self.state.attempt, start)
        if edited := self.edited():
            self.log(
                f"warning: edited while this run was starting: {shortened(edited, 3)}. "
                "It may have imported the files as they were before or after."
            )
        self.state.codes = number_of_codes(self.experiment.codes())

    def origin(self) -> dict[str, str]:
        """Return what `continue_from` named when the experiment was made."""
        birth = self.experiment.birth()
        return birth.origin if birth else {}

    def saved(self) -> None:
        """Note that a checkpoint is whole on disk, so this attempt was not in vain."""
        self.meter.saved()
        # At once: the run may be killed at any moment.
        if self.state.fruitless:
            self.state.fruitless = 0
            self.report(State.RUNNING)
        # The new run has something to resume from. So the results that --clear put aside can go.
        if self.ranks.is_first:
            self.experiment.forget_cleared()

    def end(self, state: State, cause: str) -> None:
        """Write the state of a run that leaves before it is finished.

        A rank other than the first writes only if it failed by itself, before the first one
        notices that it is gone.
        """
        self.room.left = 0.0  # it leaves now, and waits no more
        self.meter.measure(now=True)
        now = self.experiment.state()
        # the cause that another rank of this attempt has written must stay
        is_said = now.state is State.FAILED and now.attempt == self.state.attempt
        # On a full disk nothing can be written. The state then follows from the process being gone.
        with contextlib.suppress(OSError):
            if self.ranks.is_first and not is_said:
                self.report(state, cause=cause)
            elif state is State.FAILED and now.state is State.RUNNING:
                words = f"rank {self.ranks.rank}: {cause}"
                self.experiment.write_state(
                    replace(now, state=state, cause=words, ended=time.time())
                )
        if cleared := clearing.what_was_cleared(self.experiment):
            self.log(cleared)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result and the state of a run that reached its end.

        Args:
            result: as `train` returns it.
        """
        self.meter.measure(now=True, done=True)
        # The result first: if the run is killed between the two, it has not finished.
        if self.ranks.is_first:
            self.experiment.write_result(result)
            self.experiment.forget_cleared()
        self.report(State.COMPLETED, cause=result["reason"], epoch=result["epochs"], batch=0)
        self.finished = True


def run(
    main: Experiments,
    xp: XP,
    signals: Signals | None = None,
    stop: dict[str, Any] | None = None,
    clear: bool = False,
) -> Any:
    """Run the experiment and return what `main` returns, or print that it is finished.

    Args:
        signals: the flag, if it was installed earlier.
        stop: when the search that submitted this job wants it to end early.
        clear: begin anew.

    Raises:
        SystemExit: 128 + the number of the signal that interrupted it, 1 if it did not reach its
            end, 0 if its search stopped it.
        UserError: it runs elsewhere, or its configuration asks for something that does not exist.
    """
    ranks = Ranks.here()
    experiment = main.experiment(xp)
    # Before torch is imported, which takes seconds.
    if not clear and is_finished(main, xp, experiment, ranks.is_first):
        return None
    if ranks.is_first:
        if clear:
            refuse_clear(experiment)
        else:
            refuse_if_waiting(experiment)
    # Before anything is written: from here on a signal must not end the run in the middle of it.
    signals = signals or Signals().install()
    with full_disk_said(experiment.folder):
        enter(main, xp, ranks.is_first, clear)
        from .determinism import heard  # Lightning is imported by now
        from .resume import find_resume

        with writable(experiment.folder):
            session = _claimed(main, xp, experiment, ranks, signals)
        session.stop = stop or {}
        operations = heard(partial(note_unpromised, session))
        with logging_to(session), operations, _entered(session), end_recorded(session):
            # torchrun's other ranks may look before the first has put the old results aside.
            if not clear:
                session.resume = find_resume(experiment)
            log_start(session, xp)
            session.added = main.added(xp)
            log_added(session)
            log_versions(session)
            keep_code(session, main)
            # Before main decodes the files again, which may take minutes.
            if main.files_of_data and session.resume and session.resume.checkpoint:
                refuse_other_files(experiment, main.files_of_data(xp.cfg.data))
            # A killed run cannot end its data workers. They would hold memory, and locks of files.
            end_all_with_this_process()
            with entered(xp), signals.heard_alone(ranks.world_size):
                # What `main` draws, e.g. the first weights, must follow from `seed` alone.
                if "seed" in xp.cfg:
                    from ...counters import seed_all  # torch is imported by now

                    seed_all("weights", xp.cfg.seed)
                return main.main(xp.cfg)


@contextlib.contextmanager
def _entered(session: Session) -> Iterator[None]:
    """Make `current()` return this session."""
    _current.append(session)
    try:
        yield
    finally:
        _current.pop()


# --- the claim ---


def _claimed(
    main: Experiments, xp: XP, experiment: Experiment, ranks: Ranks, signals: Signals
) -> Session:
    """Claim the next attempt, and write that it is running.

    Raises:
        UserError: another process holds the experiment, or the job has started too often in vain.
    """
    before = experiment.state()
    job_id, token = environment.this_job()
    attempt = before.attempt
    # The other ranks belong to the first one's attempt. They hold no claim of their own.
    if ranks.is_first:
        attempt = claims.claim(experiment, job_id, token, ask=ask).attempt
    epochs = xp.cfg.get("trainer", {}).get("max_epochs")
    state = replace(
        before,
        state=State.RUNNING,
        cause="",
        attempt=attempt,
        started=time.time(),
        ended=None,
        fruitless=attempts_in_vain(before, job_id),
        gap=None,
        epochs=epochs if epochs and epochs > 0 else None,
        host=socket.gethostname(),
        job_id=job_id,
    )
    # Lines are shown as they are logged. rich would break long ones, and take `[csv]` for markup.
    console = Console(soft_wrap=True, highlight=False, markup=False)
    session = Session(experiment, ranks, signals, before, state, console, main.find, main.as_stored)
    session.cores = environment.cores_of_task() or xp.cfg.get("threads") or 1
    session.report(State.RUNNING)
    refuse_in_vain(session, before)
    return session
