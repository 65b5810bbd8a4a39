"""Sends one message when a grid has ended, and one message if it needs the user before that.

The key `notify` has the addresses. The folder `outputs/grids/NAME/messages` contains

    to.json           the addresses and the round. Only this user may read it
    ROUND.KIND.json   a mark: the message of this kind was sent in this round

A new round begins when a command submits experiments. So a finished grid sends no second message,
even if it is opened again. A grid that gets new experiments sends another message. An open command
sends the messages. If no command is open, the last job in the local queue sends it (last_job.py).
"""

import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..experiment.folder import Experiment
from ..experiment.records import ILL, State, from_stored
from ..files import read_json, write_json, write_once
from ..watch.status import Status
from ..watch.usage import total, used_by
from . import message
from .channels import send, trouble_ahead

ENDED, NEEDED = "ended", "needed"  # the kinds of messages
STILL = 3600.0  # seconds without any progress, after which the user is needed
LOOK_EVERY = 60.0  # seconds between two checks for progress


@dataclass(frozen=True)
class Letter:
    """The content of `to.json`: where the messages of a grid go."""

    to: list[str] = field(default_factory=list)  # addresses and shell commands (channels.py)
    round: str = ""  # empty: no round has begun
    folder: str = ""  # of the project, for the commands in the message


class Messages:
    """The messages of one grid. Each is sent once in a round.

    Args:
        grid: its name.
        folder: `outputs/grids/NAME`.
    """

    def __init__(self, grid: str, folder: Path):
        self.grid, self.folder = grid, folder / "messages"

    def letter(self) -> Letter:
        """Where messages go. It has no address if there is none, or this user may not read it."""
        try:
            found = from_stored(Letter, read_json(self.folder / "to.json"))
        except UserError:
            return Letter()
        return found or Letter()

    def begin(self, to: Sequence[str], goes_on: bool, submitted: bool) -> None:
        """Store where messages go.

        Args:
            to: the addresses that this command asks for. Empty: no messages.
            goes_on: whether an experiment of the grid waits or runs.
            submitted: whether this command has submitted experiments. Then a new round begins.
        """
        before = self.letter()
        if not to:
            if before.to:
                (self.folder / "to.json").unlink(missing_ok=True)
            return
        round_ = before.round
        # Without a round, an earlier command submitted the experiments, and asked for no messages.
        if submitted or (goes_on and not round_):
            round_ = uuid.uuid4().hex[:8]
        letter = Letter(list(to), round_, message.project_folder())
        if letter != before:
            write_json(self.folder / "to.json", asdict(letter), private=True)

    def tell(self, kind: str, statuses: Mapping[Experiment, Status], why: str = "") -> None:
        """Send the message of this kind, unless it was already sent in this round.

        If a channel fails, one line on standard error says so.

        Args:
            kind: `ENDED` or `NEEDED`.
            why: why the user is needed.
        """
        letter = self.letter()
        if not letter.to or not letter.round or not statuses:
            return
        sent: dict[str, Any] = {"time": time.time(), "why": why}
        try:
            # Before the message is sent: otherwise a second process could send it, too.
            if not write_once(self.folder / f"{letter.round}.{kind}.json", sent):
                return
        except OSError as error:
            print(f"no message was sent: {error}", file=sys.stderr)
            return
        title = message.title(self.grid, list(statuses.values()), why)
        used = total(used_by(one, status.live) for one, status in statuses.items())
        words = str(used) if used.wall else ""
        text = message.text(self.grid, statuses, letter.folder, words)
        for channel in letter.to:
            if trouble := send(channel, title, text):
                print(f"the message did not arrive: {trouble}", file=sys.stderr)


class Telling:
    """Decides when an open command sends a message."""

    def __init__(self, messages: Messages, is_search: bool):
        self.messages, self.is_search = messages, is_search
        # experiments that had failed when the command began: the user has seen them in its table
        self._ill: set[Experiment] = set()
        self._looked = self._moved = time.monotonic()
        self._last: object = None  # what the last check for progress saw

    def begin(
        self, to: Sequence[str], statuses: Mapping[Experiment, Status], submitted: bool
    ) -> None:
        """Store where messages go. Warn if they cannot be sent from this machine."""
        goes_on = any(status.live for status in statuses.values())
        with suppress(OSError):
            self.messages.begin(to, goes_on, submitted)
        self._ill = {one for one, status in statuses.items() if status.state in ILL}
        if trouble := trouble_ahead(to):
            print(f"notify: {trouble}", file=sys.stderr)

    def look(self, statuses: Mapping[Experiment, Status], healing: Iterable[Experiment]) -> None:
        """Send a message if the grid has ended, or needs the user.

        Args:
            healing: interrupted experiments that this command will submit again.
        """
        healed = set(healing)
        if not healed and not any(status.live for status in statuses.values()):
            self.messages.tell(ENDED, statuses)
            return
        why = self._failed(statuses, healed) or self._still(statuses)
        if why:
            self.messages.tell(NEEDED, statuses, why)

    def _failed(self, statuses: Mapping[Experiment, Status], healed: set[Experiment]) -> str:
        """What has failed for good since the command began. Empty if nothing has.

        The trials of a search do not count, because a failed trial is a valid answer.
        """
        found = []
        for experiment, status in statuses.items():
            if status.state == State.CANCELLED or self.is_search:
                continue
            if status.state in ILL and experiment not in self._ill | healed:
                found.append(status.why)
        if not found:
            return ""
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{found[0]}{more}"

    def _still(self, statuses: Mapping[Experiment, Status]) -> str:
        """`nothing has moved for an hour`. Empty if something has moved within the last hour."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            signs = []
            for experiment, status in statuses.items():
                if status.live:
                    signs.append((experiment.sig, status.state, experiment.state().updated))
            if signs != self._last:
                self._last, self._moved = signs, now
        return "nothing has moved for an hour" if now - self._moved >= STILL else ""
