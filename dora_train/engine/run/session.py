"""One attempt at an experiment: claimed, entered, and left with its state written, whatever happens
in between."""

import contextlib
import logging
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...children import end_all_with_this_process
from ...data_error import DataError
from ..errors import UserError, shortened, writable
from ..experiment import claims, clearing
from ..experiment.contents import refuse_other_files
from ..experiment.folder import Experiment
from ..experiment.origin import Find
from ..experiment.records import RunState, Start, State
from ..experiment.xp import XP
from ..experiments import Experiments, ask, refuse_clear, refuse_if_waiting
from ..shell import typed
from ..upstream.dora import entered
from ..words import main_metric, shown_best, shown_path
from .failures import full, full_disk_said, is_lost_rank
from .ranks import JOB, Ranks
from .signals import Interrupted, Signals, Stopped

if TYPE_CHECKING:
    from .resume import Resume

MOST_IN_VAIN = 3  # attempts of a job without a new checkpoint

_current: "list[Session]" = []


def current() -> "Session":
    """The session that this process is in.

    Raises:
        UserError: it is in none.
    """
    if not _current:
        raise UserError("there is no experiment here: train() is called by main, in `dora run`.")
    return _current[-1]


@dataclass
class Session:
    """What a run knows of itself, and the one place where it writes it down."""

    experiment: Experiment
    ranks: Ranks
    signals: Signals
    before: RunState  # what the attempt before said
    state: RunState
    console: Console
    find: Find  # from a signature to its experiment
    as_stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict  # see hydra_main
    # that this attempt runs (Start.code); of rank 0 alone
    code: dict[str, Any] = field(default_factory=dict)
    edited: Callable[[], list[str]] = list  # the files of that code that have changed since
    # keys that it runs with for the first time (Start.added)
    added: dict[str, Any] = field(default_factory=dict)
    resume: "Resume | None" = None  # where it resumes; known before main is called
    finished: bool = False
    # when a search wants it to end early (endings.py)
    stop: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def log(self, line: str) -> None:
        """A line for the person and for train.log; from rank 0 alone."""
        if self.ranks.is_first:
            logging.getLogger("dora_train").info(line)

    def report(self, state: State, **what: Any) -> None:
        """Write down what the run is doing; from rank 0 alone."""
        if not self.ranks.is_first:
            return
        self.state = replace(
            self.state, state=state, updated=time.time(), beat=time.monotonic(), **what
        )
        if state is not State.RUNNING:
            self.state.ended = time.time()
        self.experiment.write_state(self.state)

    def begins(self, epoch: int, step: int) -> None:
        """The training goes on at this epoch, after this many steps: that is where this attempt's
        code comes in."""
        if not self.ranks.is_first:
            return
        self.experiment.write_start(self.state.attempt, Start(epoch, self.code, step, self.added))
        if edited := self.edited():
            self.log(
                f"warning: edited while this run was starting: {shortened(edited, 3)}. It may have imported the "
                "files as they were before or after."
            )
        codes = self.experiment.codes()
        self.state.codes = sum(
            not any(code.same_code(other) for other in codes[:at]) for at, code in enumerate(codes)
        )

    def origin(self) -> dict[str, str]:
        """What `continue_from` named when the experiment was made."""
        birth = self.experiment.birth()
        return birth.origin if birth else {}

    def saved(self) -> None:
        """A checkpoint is whole on disk: this attempt was not in vain.

        Written at once: it may be killed any moment.
        """
        if self.state.fruitless:
            self.state.fruitless = 0
            self.report(State.RUNNING)
        if self.ranks.is_first:
            self.experiment.forget_cleared()

    def end(self, state: State, cause: str) -> None:
        """The last word of a run that did not reach its end.

        On a full disk there is none: its process is gone.

        A rank other than the first speaks only where it failed by itself, before the first one
        loses it.
        """
        now = self.experiment.state()
        with contextlib.suppress(OSError):
            if self.ranks.is_first and not (
                now.state is State.FAILED and now.attempt == self.state.attempt
            ):
                self.report(state, cause=cause)
            elif state is State.FAILED and now.state is State.RUNNING:
                words = replace(
                    now, state=state, cause=f"rank {self.ranks.rank}: {cause}", ended=time.time()
                )
                self.experiment.write_state(words)
        if cleared := clearing.what_was_cleared(self.experiment):
            self.log(cleared)

    def finish(self, result: dict[str, Any]) -> None:
        """The last act of a run that reached its end: from here on it is finished, whatever
        happens."""
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
    """Run the experiment, or say that it is finished.

    Args:
        signals: the flag, where it was installed earlier.
        stop: of a search's job, when it is to end early.
        clear: begin anew.

    Raises:
        SystemExit: 128 + the signal's number where one interrupted it, 1 where it did not reach its
            end.
        UserError: it runs elsewhere, or its configuration asks for what is not there.
    """
    ranks = Ranks.here()
    experiment = main.experiment(xp)
    if not clear and is_finished(main, xp, experiment, ranks.is_first):
        return None
    if ranks.is_first:
        refuse = refuse_clear if clear else refuse_if_waiting
        refuse(experiment)
    signals = signals or Signals().install()
    with full_disk_said(experiment.folder):
        enter(main, xp, ranks.is_first, clear)
        from .resume import find_resume  # Lightning is imported by now

        with writable(experiment.folder):
            session = _claimed(main, xp, experiment, ranks, signals)
        session.stop = stop or {}
        with _logging_to(session), _ended(session):
            # torchrun's other ranks may look before the first has put the old one aside
            if not clear:
                session.resume = find_resume(experiment)
            _first_line(session, xp)
            _say_added(session, main, xp)
            _keep_code(session, main)
            if main.files_of_data and session.resume and session.resume.checkpoint:
                refuse_other_files(experiment, main.files_of_data(xp.cfg.data))
            end_all_with_this_process()
            # Of several ranks none may leave alone: the others would wait for it when they meet.
            hearing = signals.heard_at_once() if ranks.world_size == 1 else contextlib.nullcontext()
            with entered(xp), hearing:
                _seed(xp.cfg)
                return main.main(xp.cfg)


def _seed(cfg: Any) -> None:
    """What `main` draws, e.g. the first weights, follows from `seed` alone."""
    from ...counters import seed_all  # torch is imported by now

    if "seed" in cfg:
        seed_all("weights", cfg.seed)


def is_finished(main: Experiments, xp: XP, experiment: Experiment, is_first: bool = True) -> bool:
    """Whether there is nothing left to do, said by the first rank.

    Drift is looked at before: a changed default makes it another experiment.

    Raises:
        UserError: the signature means something else today.
    """
    state = experiment.state()
    if state.state is not State.COMPLETED:
        return False
    if is_first:
        main.refuse_drift(xp)
        when = time.strftime("%d %b %H:%M", time.localtime(state.ended or state.updated or 0))
        best = f" (best {shown_best(state.best, main_metric(xp.values)[0])})" if state.best else ""
        print(f"XP {xp.sig}  {_overrides(xp)}  finished  {shown_path(experiment.folder)}")
        print(f"finished on {when}{best} · nothing to do · to run anew: --clear")
    return True


def enter(main: Experiments, xp: XP, is_first: bool = True, clear: bool = False) -> None:
    """Make the folder, and take the values that the experiment was made with.

    Args:
        clear: begin anew; what is there is put aside, once nothing can be refused any more.

    Raises:
        UserError: it asks for what is not there, or means something else today.
    """
    birth = None if clear else main.experiment(xp).birth()
    if birth is None and is_first:
        main.check(xp)  # before Lightning is imported, which takes seconds
    from .checks import check_run

    _quieten()
    if is_first:
        check_run(xp.cfg)
        if clear:  # it may have been started in these seconds
            refuse_clear(main.experiment(xp))
        main.create(xp, anew=clear)
    elif birth is not None:
        main.use_frozen(xp, birth)
    _use_threads(int(xp.cfg.get("threads") or 1))


def _use_threads(threads: int) -> None:
    """The number of CPU threads changes sums; for DDP, Lightning 2.6.6 would choose one by the
    machine's cores."""
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)  # keeps Lightning from choosing
    torch.set_num_threads(threads)


def _claimed(
    main: Experiments, xp: XP, experiment: Experiment, ranks: Ranks, signals: Signals
) -> Session:
    before = experiment.state()
    job_id, token = os.environ.get("DORA_TRAIN_JOB_ID", ""), os.environ.get(JOB, "")
    attempt = before.attempt
    if ranks.is_first:
        attempt = claims.claim(experiment, job_id, token, ask=ask).attempt
    epochs = xp.cfg.get("trainer", {}).get("max_epochs")
    # after an end, somebody has asked for another start
    in_vain = 0 if before.state.ended else before.fruitless
    fruitless = in_vain + 1 if job_id else 0  # only a job is started again by itself
    state = replace(
        before,
        state=State.RUNNING,
        cause="",
        attempt=attempt,
        started=time.time(),
        ended=None,
        fruitless=fruitless,
        gap=None,
        epochs=epochs if epochs and epochs > 0 else None,
        host=socket.gethostname(),
        job_id=job_id,
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    session = Session(experiment, ranks, signals, before, state, console, main.find, main.as_stored)
    session.report(State.RUNNING)
    _refuse_in_vain(session, before)
    return session


def _refuse_in_vain(session: Session, before: RunState) -> None:
    """A job that is requeued for ever, out of memory or on a broken node, has failed; a person may
    always try again.

    Raises:
        UserError: in a job, after three attempts without a new checkpoint.
    """
    if session.state.job_id and session.state.fruitless > MOST_IN_VAIN and session.ranks.is_first:
        cause = f"{MOST_IN_VAIN} attempts without a new checkpoint; the last: {before.cause or 'ended without a word'}"
        session.report(State.FAILED, cause=cause)
        raise UserError(f"XP {session.experiment.sig}: {cause}")


def _keep_code(session: Session, main: Experiments) -> None:
    """What code this is: a job that runs a snapshot was told; there is no git where that lies."""
    if not session.ranks.is_first:
        return
    job, token = session.experiment.job(), os.environ.get(JOB, "")
    if job is not None and token and job.token == token and job.code.get("hash"):
        session.code = job.code
        return
    session.code, session.edited = main.code.stored(), main.code.edited
    main.code.keep(session.experiment.code_archive(main.code.hash))
    if main.code.note and not any(
        start.code == session.code for start in session.experiment.starts()
    ):
        session.log(main.code.note)  # once for each code


# --- what is said at the start ---


def _overrides(xp: XP) -> str:
    return " ".join(xp.argv) or "(defaults)"


def _first_line(session: Session, xp: XP) -> None:
    resume = session.resume
    if resume and resume.content:
        last = f"; last time: {session.before.cause}" if session.before.cause else ""
        start = f"resumes at epoch {resume.epoch} (attempt {session.state.attempt}{last})"
    else:
        start = "new" if session.state.attempt == 1 else f"new (attempt {session.state.attempt})"
    session.log(f"XP {xp.sig}  {_overrides(xp)}  {start}  {shown_path(session.experiment.folder)}")


def _say_added(session: Session, main: Experiments, xp: XP) -> None:
    """A key that came since the experiment was made is no other experiment: what it did before is
    its default."""
    session.added = main.added(xp)
    if session.added:
        words = " ".join(f"{key}={value}" for key, value in session.added.items())
        session.log(f"keys that the configuration has only since: {words}")


# --- logging ---


class _ConsoleHandler(logging.Handler):
    """Lines on the console, above a progress bar where there is one."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record))


class _FileHandler(logging.FileHandler):
    """Quiet about a line that it cannot write: on a full disk the checkpoint says so, not each line
    of the log."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def _logging_to(session: Session) -> Iterator[None]:
    """Send our lines and everybody's warnings to the console and to train.log."""
    logger, root = logging.getLogger("dora_train"), logging.getLogger()
    logger.setLevel(logging.INFO)
    if not session.ranks.is_first:
        yield
        return
    file = _FileHandler(session.experiment.log, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handlers: list[logging.Handler] = [file, _ConsoleHandler(session.console)]
    logging.captureWarnings(True)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        logging.captureWarnings(False)


def _quieten() -> None:
    """Lightning's advertising and its advice on what is on purpose here."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*GPU available but not used.*",
        ".*LeafSpec.*",
        ".*treespec.*",
        ".*srun.*command is available.*",
    ):
        warnings.filterwarnings("ignore", message=message)


# --- the end ---


@contextmanager
def _ended(session: Session) -> Iterator[None]:
    """Whatever leaves without having reached the end is not finished, says why, and never exits
    0."""
    _current.append(session)
    try:
        yield
        if not session.finished:
            raise UserError(f"main returned before XP {session.experiment.sig} reached its end.")
    except Interrupted as interrupt:
        _interrupted(session, interrupt.signum)
    except KeyboardInterrupt:
        _interrupted(session, 2)
    except Stopped as stop:
        session.end(State.STOPPED, str(stop))
        session.log(
            f"stopped by its search: {stop} · finish it: {typed()} run -f {session.experiment.sig}"
        )
        sys.exit(0)  # as it was asked to: a scheduler must not start another in its place
    except SystemExit as leaving:
        if session.finished:
            raise
        if session.signals.signum:
            _interrupted(session, session.signals.signum)
        left = State.FAILED if leaving.code else State.INTERRUPTED
        session.end(left, f"left with exit code {leaving.code}")
        sys.exit(leaving.code or 1)
    except BaseException as error:
        if is_lost_rank(error, session.ranks.world_size):
            _lost(session, error)
        if not session.finished:
            session.end(State.FAILED, cause_of(error))
        # files that are missing or broken: the message says what to do
        if isinstance(error, DataError):
            raise UserError(str(error)) from error
        _log_error(session, error)
        raise
    finally:
        _current.pop()


def _interrupted(session: Session, signum: int) -> None:
    import signal

    name = signal.Signals(signum).name
    session.end(State.INTERRUPTED, f"interrupted by {name}")
    session.log(f"interrupted by {name} · go on: {typed()} run -f {session.experiment.sig}")
    sys.exit(128 + signum)


def _lost(session: Session, error: BaseException) -> None:
    """Another rank was killed, or its node was; where it failed by itself, it has said so.

    Raises:
        UserError: always.
    """
    session.end(State.INTERRUPTED, "another rank is gone")
    folder = shown_path(session.experiment.folder)
    raise UserError(
        f"XP {session.experiment.sig}: another rank is gone, so rank {session.ranks.rank} leaves.",
        f"their logs: {folder}/worker_*.log; of a job: {folder}/submitit",
    ) from error


def _log_error(session: Session, error: BaseException) -> None:
    """The traceback into train.log; Python itself prints it on the terminal."""
    if session.ranks.is_first and not isinstance(error, UserError) and not full(error):
        with open(session.experiment.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)))


def cause_of(error: BaseException) -> str:
    """One line: the exception's type and first line."""
    if isinstance(error, (UserError, DataError)):
        return str(error).splitlines()[0]
    text = str(error).strip().splitlines()
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{name}: {text[0][:300]}" if text else name
