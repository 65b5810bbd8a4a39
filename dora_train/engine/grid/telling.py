"""Sends one message when a grid has ended, and one if it needs a person before that.

The key `notify` says where to. The folder `outputs/grids/NAME/messages` has

    to.json         the addresses, which only this user may read, and the round
    ROUND.KIND.json   the message of this kind was sent. It is written once, before it is sent

A round begins if a command submits experiments. So a grid that has ended sends no second message,
whoever watches it, and a grid that is extended does. An open command tells. On the queue of a
machine, the last job to end does if no command is open (last_job.py).
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
STILL = 3600.0  # seconds without any movement, after which a person is needed
LOOK_EVERY = 60.0  # seconds between two looks at whether something moves


@dataclass(frozen=True)
class Letter:
    """Where the messages of a grid go."""

    to: list[str] = field(default_factory=list)
    round: str = ""
    folder: str = ""  # of the project


class Messages:
    """The messages of one grid, which are sent once.

    Args:
        grid: its name.
        folder: `outputs/grids/NAME`.
    """

    def __init__(self, grid: str, folder: Path):
        self.grid, self.folder = grid, folder / "messages"

    def letter(self) -> Letter:
        """Where messages go. Without an address: nowhere, or another user asked for them."""
        try:
            found = from_stored(Letter, read_json(self.folder / "to.json"))
        except UserError:
            return Letter()
        return found or Letter()

    def begin(self, to: Sequence[str], goes_on: bool, submitted: bool) -> None:
        """Write down where messages go, as a command has asked for it.

        Args:
            goes_on: an experiment of the grid waits or runs.
            submitted: the command has submitted experiments: a new round begins.
        """
        before = self.letter()
        if not to:
            if before.to:
                (self.folder / "to.json").unlink(missing_ok=True)
            return
        round_ = before.round
        if submitted or (goes_on and not round_):
            round_ = uuid.uuid4().hex[:8]
        letter = Letter(list(to), round_, message.project_folder())
        if letter != before:
            write_json(self.folder / "to.json", asdict(letter), private=True)

    def tell(self, kind: str, statuses: Mapping[Experiment, Status], why: str = "") -> None:
        """Send the message of this kind, unless it was sent in this round.

        A channel that fails costs one line on standard error.

        Args:
            why: what a person is needed for.
        """
        letter = self.letter()
        if not letter.to or not letter.round or not statuses:
            return
        sent: dict[str, Any] = {"time": time.time(), "why": why}
        try:
            # before it is sent: a second sender must not begin meanwhile
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
        self._ill: set[Experiment] = set()  # known when the command began: a person saw them
        self._looked = self._moved = time.monotonic()
        self._last: object = None

    def begin(
        self, to: Sequence[str], statuses: Mapping[Experiment, Status], submitted: bool
    ) -> None:
        """Note where messages go, and say so if they cannot be sent from here."""
        goes_on = any(status.live for status in statuses.values())
        with suppress(OSError):
            self.messages.begin(to, goes_on, submitted)
        self._ill = {one for one, status in statuses.items() if status.state in ILL}
        if trouble := trouble_ahead(to):
            print(f"notify: {trouble}", file=sys.stderr)

    def look(self, statuses: Mapping[Experiment, Status], healing: Iterable[Experiment]) -> None:
        """Send a message if the grid has ended, or needs a person.

        Args:
            healing: interrupted experiments that will be submitted again.
        """
        healed = set(healing)
        if not healed and not any(status.live for status in statuses.values()):
            self.messages.tell(ENDED, statuses)
            return
        why = self._failed(statuses, healed) or self._still(statuses)
        if why:
            self.messages.tell(NEEDED, statuses, why)

    def _failed(self, statuses: Mapping[Experiment, Status], healed: set[Experiment]) -> str:
        """What has failed for good since the command began: `1 failed: out of memory`.

        A failed trial is an answer to a search.
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
        """`nothing has moved for an hour`. Empty: something has, or it is not that long."""
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
