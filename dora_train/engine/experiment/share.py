"""What `dora export` takes along beside overrides, and `dora import` puts down: with
DORA_EXPORT_METRICS=1, all that is known of a finished experiment but its checkpoints and logs.

Its values, code, versions and host come along too: on another clone the same overrides may mean
something else.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import claims
from .folder import XPS, Experiment
from .records import Birth, RunState, State, from_stored

WISH = "DORA_EXPORT_METRICS"


def exported(argv: Sequence[str], experiment: Experiment | None) -> Any:
    """The overrides, as Dora exports them; or a record, where that is asked for and there is a
    result."""
    birth = experiment.birth() if experiment and os.environ.get(WISH) == "1" else None
    run = experiment.state() if experiment and birth else None
    if experiment is None or birth is None or run is None or run.state != State.COMPLETED:
        return list(argv)
    return {
        "birth": asdict(birth),
        "state": asdict(run),
        "history": experiment.history(),
        "result": experiment.result(),
        "confusion": experiment.confusion(),
        "inputs": experiment.inputs(),
    }


class Imported(list):
    """The overrides of a record that came in, and the record."""

    def __init__(self, record: dict[str, Any]):
        """Raises: UserError where it is none."""
        self.birth = from_stored(Birth, record.get("birth"))
        self.run = from_stored(RunState, record.get("state"))
        history, result = record.get("history"), record.get("result")
        if (
            self.birth is None
            or self.run is None
            or not (isinstance(history, list) and isinstance(result, dict))
        ):
            raise UserError(
                "what came in is no export of this project: a record lacks its values or its result."
            )
        super().__init__(self.birth.argv)
        self.record = record

    def put_down(self, dora_dir: Path) -> None:
        """Make the experiment's folder; one that is there already stays as it is.

        The state comes last: whatever has ended before it is not finished, and can be imported once
            more.
        """
        experiment = Experiment(dora_dir / XPS / self.birth.sig)
        experiment.write_birth(replace(self.birth, user=claims.user_name()))  # whose copy it is
        if experiment.state().state != State.NEW:
            return
        experiment.write_history(self.record["history"])
        experiment.write_result(self.record["result"])
        if self.record.get("confusion") is not None:
            experiment.write_confusion(self.record["confusion"])
        if self.record.get("inputs") is not None:
            experiment.write_inputs(self.record["inputs"])
        experiment.write_state(self.run)
