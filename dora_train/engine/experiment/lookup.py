"""From overrides or a signature to the experiment that a command means.

Dora's command, its launchers and its notebook API ask these methods by Dora's names for them.
`experiments.py` adds methods that make and check experiments.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence

from dora.conf import DoraConfig

from ..config import limits
from ..config.compose import RULE, Composed, Composer
from ..config.defaults import OLDER
from ..config.quoting import overrides_from
from ..config.refused import refuse_reserved
from ..config.values import Delta, key_of, never_counts
from ..errors import UserError
from ..upstream.dora import HydraMain
from .counted_code import CODE
from .drift import FrozenValues, Stored
from .find import find
from .folder import XPS, Experiment
from .frozen import todays_values
from .records import Birth
from .share import Imported
from .todays_code import TodaysCode
from .xp import XP


class FrozenArgv(list):
    """The overrides of a stored experiment, and the experiment.

    A list, because Dora's command adds the overrides that the user typed with `argv + args.argv`,
    and gives the sum to `get_xp`. So the sum has to know its experiment, too.
    """

    def __init__(self, experiment: Experiment, extra: Sequence[str] = ()):
        super().__init__([*(experiment.argv() or []), *extra])
        self.experiment, self.extra = experiment, list(extra)

    def __add__(self, other: list) -> "FrozenArgv":  # type: ignore[override]
        return FrozenArgv(self.experiment, [*self.extra, *other])


class Lookup(HydraMain):
    """Finds the experiments of one `main`, stored or not. It writes nothing.

    Args:
        main: the function that trains.
        config_name, config_path, version_base: as Hydra's.
        dora: Dora's own settings.
        as_stored: see `hydra_main`.
    """

    def __init__(
        self,
        main: Callable,
        config_name: str,
        config_path: str,
        version_base: str | None,
        dora: DoraConfig,
        as_stored: Stored,
    ):
        super().__init__(main, config_name, config_path, version_base, dora)
        self.composer = Composer(self.full_config_path, config_name, version_base)
        self.todays_code = TodaysCode(main, self.full_config_path, dora)
        self.as_stored: Stored = lambda config: {**OLDER, **as_stored(config)}
        self.frozen = FrozenValues(dora, self.as_stored)

    def find(self, sig: str) -> Experiment:
        """The stored experiment whose signature begins with `sig`.

        Raises:
            UserError: there is none, or several.
        """
        return find(self.dora.dir, sig)

    def experiment(self, xp: XP | str) -> Experiment:
        """The folder of an experiment, which need not exist. A text is the whole signature."""
        sig = xp if isinstance(xp, str) else xp.sig
        return Experiment(self.dora.dir / XPS / sig)

    def get_xp(self, argv: Sequence[str]) -> XP:
        """The experiment that `argv` names.

        Its values are composed today. They are frozen if the experiment came in by its signature
        and no added override counts.

        Raises:
            UserError: the overrides do not fit the configuration.
        """
        if isinstance(argv, Imported):
            return self._import(argv)
        if isinstance(argv, FrozenArgv) and not self._any_counts(argv.extra):
            return self._stored_with_todays_rest(argv.experiment.sig, argv.extra)
        return self._of_overrides(argv)

    def get_argv_from_sig(self, sig: str) -> FrozenArgv:
        """The stored overrides of an experiment, by any unambiguous beginning of its signature.

        Raises:
            UserError: there is no such experiment, or several.
        """
        return FrozenArgv(self.find(sig))

    def get_xp_from_sig(self, sig: str) -> XP:
        """The experiment as it is stored.

        Nothing is composed, so this works also if the configuration is broken.

        Raises:
            UserError: there is no such experiment, or several.
        """
        experiment = self.find(sig)
        argv, birth = FrozenArgv(experiment), experiment.birth()
        return self._of_stock_dora(argv) if birth is None else self._stored(argv, birth)

    def get_xp_from_argv(self, argv: Sequence[str]) -> XP:
        """As `get_xp`: the name in Dora's README."""
        return self.get_xp(argv)

    def get_name_parts(self, xp: XP) -> OrderedDict:  # type: ignore[override]  # all of ours
        """The keys and values that make up a name: those that differ from the defaults.

        Without a known difference they are the overrides.
        """
        if xp.delta is not None:
            return OrderedDict(xp.delta)
        return OrderedDict(arg.partition("=")[::2] for arg in xp.argv)

    def get_xp_history(self, xp: XP) -> list[dict]:  # type: ignore[override]  # all of ours
        return self.experiment(xp).history()

    def value_to_argv(self, arg: object) -> list[str]:
        """Overrides from what a grid file gives its launcher: text, dicts, or lists of them.

        Raises:
            UserError: it is something else.
        """
        return overrides_from(arg, self.composer.groups)

    def _of_overrides(self, argv: Sequence[str]) -> XP:
        """The experiment with the values that are composed today.

        Raises:
            UserError: the overrides do not fit the configuration.
        """
        refuse_reserved(argv)
        composed = self.composer.compose(argv)
        if composed.values.get("tag") == CODE:
            tag = self.todays_code.resolved(composed.values)
            composed = self.composer.compose([*argv, f"tag={tag}"])
        limits.check_changes(composed.delta, self.composer.defaults)
        xp = self._named(composed, composed.delta, RULE)
        if composed.former is not None:
            # Rule 1 gave it another signature: results that were made under that are its own.
            former = self._named(composed, composed.former, 1)
            if self.experiment(former).exists():
                return former
        return xp

    def _named(self, composed: Composed, delta: Delta, rule: int) -> XP:
        """The experiment whose signature follows from `delta`."""
        xp = XP(self.dora, composed.values, composed.argv, delta)
        xp.groups, xp.rule = composed.choices, rule
        return xp

    def _any_counts(self, overrides: Sequence[str]) -> bool:
        """Whether any of these overrides counts in the signature."""
        return not all(never_counts(key_of(text), self.dora.exclude) for text in overrides)

    def _stored(self, argv: FrozenArgv, birth: Birth) -> XP:
        """The experiment with the values that count alone, as its birth has them."""
        delta = [(key, value) for key, value in birth.delta]
        xp = XP(self.dora, dict(self.as_stored(birth.config)), argv, delta, argv.experiment.sig)
        xp.groups, xp.rule = birth.groups, birth.rule
        return xp

    def _of_stock_dora(self, argv: FrozenArgv) -> XP:
        """An experiment of which only the overrides are stored, as stock Dora does.

        It has no values if the overrides do not fit the configuration any more.
        """
        sig = argv.experiment.sig
        try:
            composed = self.composer.compose(list(argv))
        except UserError:
            return XP(self.dora, {}, argv, None, sig)
        return XP(self.dora, composed.values, argv, composed.delta, sig)

    def _stored_with_todays_rest(self, sig: str, extra: Sequence[str]) -> XP:
        """A stored experiment with its frozen values. Values that do not count are those of today.

        Args:
            extra: overrides that do not count, given beside the signature.
        """
        experiment = self.find(sig)
        argv, birth = FrozenArgv(experiment, extra), experiment.birth()
        if birth is None:  # made by stock Dora, which stores nothing but the overrides
            return self._of_overrides(list(argv))
        xp = self._stored(argv, birth)
        refuse_reserved(extra)
        xp.values, notes = todays_values(self.composer, birth, self.dora.exclude, extra)
        for note in notes:
            print(f"XP {experiment.sig}: {note}", file=sys.stderr)
        self.frozen.restore(xp, birth)
        return xp

    def _import(self, argv: Imported) -> XP:
        """An experiment that another clone has finished. Its record is stored here.

        Raises:
            UserError: its signature is not that of its values.
        """
        birth = argv.birth
        delta = [(key, value) for key, value in birth.delta]
        if XP(self.dora, birth.config, birth.argv, delta).sig != birth.sig:
            raise UserError(
                f"the import of {birth.sig} has values that do not belong to this signature. Nothing is imported."
            )
        argv.put_down(self.dora.dir)
        return self.get_xp_from_sig(birth.sig)
