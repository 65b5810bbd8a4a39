"""What is left of the jobs of the local queue that are over: a line of JSON each, in one file.

About 100 bytes a job, for ever, as an experiment's state may rest on how its job ended. Standard
library only, as queue.py, which calls this while it holds the queue.
"""

from __future__ import annotations

import json
from contextlib import suppress

from .files import append, read


class Ends:
    """The file, and what it holds."""

    def __init__(self, path: str):
        self.path = path

    def add(self, ends: dict[str, dict]) -> None:
        """Keep how these jobs ended, by their numbers."""
        if ends:
            append(
                self.path, [json.dumps({"number": number} | end) for number, end in ends.items()]
            )

    def all(self) -> dict[str, dict]:
        """`{"12": {"name": "dora_5f3a91c2_...", "word": "FAILED", "code": 3, "signal": 0}}`.

        A line that a loss of power cut short does not count.
        """
        ends: dict[str, dict] = {}
        for line in read(self.path).splitlines():
            with suppress(ValueError, KeyError, TypeError):
                end = json.loads(line)
                ends[end.pop("number")] = {"name": ""} | end
        return ends
