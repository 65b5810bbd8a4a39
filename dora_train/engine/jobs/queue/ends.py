"""Stores how the jobs of the local queue ended: one file, with a line of JSON for each ended job.

A line has about 100 bytes. It is kept, because the state of an experiment may depend on how its job
ended. Only `python -m dora_train.clean` removes lines. queue.py calls this while it holds the
queue. Standard library only: see runner.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress

from .files import append, read, write


class Ends:
    """The file that stores the ends of jobs.

    Args:
        path: the file, which may be missing.
    """

    def __init__(self, path: str):
        self.path = path

    def add(self, ends: dict[str, dict]) -> None:
        """Add the ends of jobs, by their numbers."""
        lines = [json.dumps({"number": number} | end) for number, end in ends.items()]
        if lines:
            append(self.path, lines)

    def drop(self, numbers: Collection[str]) -> None:
        """Remove the lines of these jobs."""
        left = {number: end for number, end in self.all().items() if number not in numbers}
        lines = [json.dumps({"number": number} | end) for number, end in left.items()]
        write(self.path, "\n".join(["", *lines, ""]))

    def all(self) -> dict[str, dict]:
        """The ends of all jobs, by their numbers.

        `{"12": {"name": "dora_5f3a91c2_...", "word": "FAILED", "code": 3, "signal": 0}}`. A line
        is left out if a power cut has shortened it.
        """
        ends: dict[str, dict] = {}
        for line in read(self.path).splitlines():
            with suppress(ValueError, KeyError, TypeError):
                end = json.loads(line)
                ends[end.pop("number")] = {"name": ""} | end
        return ends
