"""The checks that run before an experiment's folder is made.

They refuse values with which no run could work. `experiments.py` calls them.
"""

import inspect
import json
from collections.abc import Callable, Sequence

from ..config import limits
from ..config.compose import Composer
from ..config.direction import refuse_guess
from ..config.refused import refuse_trainer_key
from ..config.values import flatten
from ..errors import UserError
from .origin import Find, locate
from .xp import XP

Check = Callable[..., None]


class EarlyChecks:
    """The checks of the engine's own keys, and those of the project.

    Args:
        composer: composes the project's configuration.
        find: from a signature to its experiment.
        checks: those of the project, see `hydra_main`.
    """

    def __init__(self, composer: Composer, find: Find, checks: Sequence[Check]):
        self.composer, self.find, self.checks = composer, find, checks
        self._passed: set[str] = set()

    def check(self, xp: XP) -> None:
        """Check the values of an experiment that is yet to be made.

        Raises:
            UserError: the configuration asks for something that is not there.
        """
        refuse_guess(xp.values, list(xp.argv), self.composer)
        missing = [key for key, value in flatten(xp.values) if value == "???"]
        if missing:
            raise UserError(f"{missing[0]} has no value yet (???): write {missing[0]}=VALUE.")
        for name in xp.values.get("trainer") or {}:
            refuse_trainer_key(f"trainer.{name}")
        limits.check_values(xp.values)
        locate(xp.values.get("continue_from") or "", self.find)
        for check in self.checks:
            self._run(check, xp)

    def _run(self, check: Check, xp: XP) -> None:
        """Run one check of the project, unless it has passed with the same values before.

        A grid asks for a thousand experiments, and most of their values are the same.

        Raises:
            UserError: the check raised a ValueError.
        """
        given = {name: xp.values.get(name) for name in inspect.signature(check).parameters}
        call = f"{check.__name__} {json.dumps(given, default=str)}"
        if call in self._passed:
            return
        try:
            check(**given)
        except ValueError as error:
            raise UserError(str(error)) from error
        self._passed.add(call)
