"""The experiments of values, and the values of experiments: `dora_train.search` works with values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..config.values import flatten
from ..experiment.find import readable
from ..experiment.records import State
from ..experiment.xp import XP
from ..experiments import Experiments
from ..words import main_metric
from .space import Space


class Names:
    """Finds the experiment of values, and the values of an experiment.

    Args:
        shared: the overrides that all trials share.
    """

    def __init__(self, main: Experiments, shared: list[str]):
        self.main, self.shared = main, shared

    def _xp(self, values: Mapping[str, Any]) -> XP:
        return self.main.get_xp([*self.shared, *self.main.value_to_argv(dict(values))])

    def main_metric(self) -> tuple[str, str]:
        """The metric that chooses the best epoch of a trial, and its direction."""
        return main_metric(self._xp({}).values)

    def sig(self, values: Mapping[str, Any]) -> str:
        """The signature of the experiment with these values."""
        return str(self._xp(values).sig)

    def values(self, sig: str, space: Space) -> dict[str, Any] | None:
        """The values of a stored experiment.

        None: they are outside the space, or the experiment is no trial with these values. It differs
        in another key then.
        """
        birth = self.main.experiment(sig).birth()
        if birth is None:
            return None
        stored = dict(self.main.composer.choices) | dict(flatten(birth.config)) | dict(birth.delta)
        values = {key: stored.get(key) for key in space}
        if not all(dimension.holds(values[key]) for key, dimension in space.items()):
            return None
        xp = self._xp(values)
        if xp.sig != sig or self.main.drift(xp):
            return None
        return values

    def within(self, space: Space) -> list[str]:
        """The signatures of the finished experiments in the space, ordered by the time of their end."""
        shared = _other_keys(self.main.get_xp(self.shared).delta or [], space)
        ended = []
        for experiment in readable(self.main.dora.dir):
            birth, run = experiment.birth(), experiment.state()
            if birth is None or run.state != State.COMPLETED:
                continue
            # `values` composes a configuration, which is slow. Most experiments of other grids
            # differ in a key that is not searched: they need none.
            if _other_keys(birth.delta, space) != shared:
                continue
            if self.values(experiment.sig, space) is not None:
                ended.append((run.ended or 0.0, experiment.sig))
        return [sig for _, sig in sorted(ended)]


def _other_keys(delta: Iterable[Sequence[Any]], space: Space) -> set[str]:
    """The keys of a delta that a search does not vary."""
    return {key for key, _ in delta if key not in space}
