"""Records of finished experiments for `dora export` and `dora import`.

With DORA_EXPORT_METRICS=1 an export has all files of a finished experiment but checkpoints and
logs, and not its overrides alone. Its values, code, versions and host are among them: in another
clone the same overrides may mean something else.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import environment
from ..errors import UserError
from . import claims
from .folder import XPS, Experiment
from .records import Birth, RunState, State, from_stored


def exported(argv: Sequence[str], experiment: Experiment | None) -> list[str] | dict[str, Any]:
    """The overrides, as Dora exports them, or a record.

    It is a record if the user asks for metrics and the experiment is finished.
    """
    if experiment is None or not environment.metrics_asked():
        return list(argv)
    birth = experiment.birth()
    if birth is None:
        return list(argv)
    run = experiment.state()
    if run.state != State.COMPLETED:
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
    """The overrides of an imported record, and the record.

    A list, because Dora's `import` gives each entry to `get_xp` as overrides.
    """

    def __init__(self, record: dict[str, Any]):
        """Read a record.

        Raises:
            UserError: it is no record of `exported`.
        """
        birth = from_stored(Birth, record.get("birth"))
        run = from_stored(RunState, record.get("state"))
        is_whole = isinstance(record.get("history"), list) and isinstance(
            record.get("result"), dict
        )
        if birth is None or run is None or not is_whole:
            raise UserError("not an export of Dora: a record lacks its values or its result.")
        super().__init__(birth.argv)
        self.birth, self.run, self.record = birth, run, record

    def put_down(self, dora_dir: Path) -> None:
        """Write the record into the experiment's folder, unless that has a state already.

        The state is written last. If a kill comes before, the experiment is not finished, and can
        be imported again.
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
