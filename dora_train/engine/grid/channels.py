"""Sends a message to the addresses and shell commands in the key `notify`.

An address is a URL of the apprise library, e.g. `slack://...` or `mailto://...`. Anything else is a
shell command, which gets the message on its standard input.
"""

import logging
import re
import subprocess
from collections.abc import Iterable, Sequence
from importlib.util import find_spec

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
SECONDS = 60.0  # the longest time that a command may take
WITHOUT_APPRISE = "apprise is not installed: pip install apprise"


def channels(value: object) -> list[str]:
    """The addresses and commands in a value of `notify`, which is a text, a list, or blank."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Sequence):
        return [str(one) for one in value if str(one).strip()]
    return []


def trouble_ahead(channels: Iterable[str]) -> str:
    """Why a message to these channels cannot be sent from this machine. Empty if it can."""
    addresses = list(filter(_is_address, channels))
    if not addresses:
        return ""
    if find_spec("apprise") is None:
        return WITHOUT_APPRISE
    import apprise

    for address in addresses:
        if apprise.Apprise.instantiate(address) is None:
            # not the whole address, because it may contain a password
            return f"apprise does not know the address {shown(address)}"
    return ""


def send(channel: str, title: str, text: str) -> str:
    """Send a message to one channel.

    Returns:
        Why it could not be sent. Empty if it was sent.
    """
    try:
        if _is_address(channel):
            return _to_address(channel, title, text)
        return _to_command(channel, title, text)
    except Exception as error:  # the code of a channel may raise anything
        return f"{shown(channel)}: {type(error).__name__}: {error}"


def shown(channel: str) -> str:
    """A channel as it may be printed: a whole command, or an address without its secrets."""
    found = ADDRESS.match(channel)
    return f"{found[0]}..." if found else channel


def _is_address(channel: str) -> bool:
    return ADDRESS.match(channel) is not None


def _to_address(address: str, title: str, text: str) -> str:
    if find_spec("apprise") is None:
        return f"{shown(address)}: {WITHOUT_APPRISE}"
    import apprise

    said = _Said()
    logger = logging.getLogger("apprise")
    logger.addHandler(said)
    try:
        target = apprise.Apprise()
        if not target.add(address):
            return f"{shown(address)}: apprise does not know this address"
        if target.notify(title=title, body=text):
            return ""
    finally:
        logger.removeHandler(said)
    return f"{shown(address)}: {said.last or 'the message was not taken'}"


class _Said(logging.Handler):
    """Keeps the last warning of apprise. It says why a message was not accepted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _to_command(command: str, title: str, text: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        input=f"{title}\n\n{text}\n",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode == 0:
        return ""
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return f"{command}: {last[0]}"
