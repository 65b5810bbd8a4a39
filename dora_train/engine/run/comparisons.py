"""Compares the runs of an experiment that was disturbed (arms.py), and names the likely cause of a
difference. `python -m dora_train.check` and the tests call `checked`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.compose import Composer
from ..errors import UserError, shortened
from .arms import Arm, Ran, run_arms
from .traces import Difference, Traced, first_difference, read

EVERY_STEP = "checkpoint.every_minutes=0.000001"  # a checkpoint at each step
WITHIN, AT_THE_END = (0, 2), (1, 0)  # (epoch, batch): the run is killed before it trains this batch
SYSTEM = "a generator that is seeded by the system: default_rng(), random.Random(), os.urandom"
KINDS = {
    "buffer": "a buffer that is not persistent",
    "optimizer": "an optimizer outside configure_optimizers",
    "generator": "a generator outside the counters, whose state is in no checkpoint",
    "state": "state that is missing in the checkpoint",
}
LINES = {
    "twice": "two undisturbed runs",
    "killed": "killed within an epoch and at its end, and resumed",
    "workers": "another number of workers",
    "beside": "beside other work that draws from the generators",
    "ranks": "two ranks, killed and resumed",
}


@dataclass
class Finding:
    """What came of one comparison."""

    name: str  # a key of LINES
    difference: Difference | None = None
    kind: str = ""  # the likely cause of a difference
    skipped: str = ""  # why there was no comparison
    failed: str = ""  # why a run did not reach its end

    @property
    def agrees(self) -> bool:
        return self.difference is None and not self.failed

    def line(self) -> str:
        """`killed    DIFFERS   epoch 1, after batch 2: weights net.0.weight`."""
        word, rest = "same", LINES[self.name]
        if self.failed:
            word, rest = "FAILED", self.failed
        elif self.skipped:
            word, rest = "-", f"not compared: {self.skipped}"
        elif self.difference is not None:
            word = "DIFFERS"
            place = f"{self.difference.place}: " if self.difference.place else ""
            rest = f"{place}{self.difference.name}"
        lines = [f"  {self.name:<8} {word:<8} {rest}".rstrip()]
        if self.kind:
            lines.append(f"{'':20}likely: {self.kind}")
        return "\n".join(lines)


@dataclass
class Check:
    """One experiment, checked.

    Args:
        overrides: as `dora run` takes them, `small` ones included.
        folder: an empty folder.
        names: which comparisons are made: keys of LINES.
        values: the configuration that the overrides give.
        label: it makes the folders of several checks differ.
        kills: (epoch, batch) of each kill.
    """

    overrides: Sequence[str]
    folder: Path
    values: Mapping[str, Any]
    names: Sequence[str] = tuple(LINES)
    label: str = ""
    kills: Sequence[tuple[int, int]] = (WITHIN, AT_THE_END)
    ran: dict[str, Ran] = field(default_factory=dict)

    # --- the runs ---

    def plans(self) -> tuple[list[Arm], list[Arm]]:
        """The arms of two processes, which run beside each other."""
        first = [self._arm("reference")]
        second = []
        if "killed" in self.names:
            first.append(self._arm("killed", kills=self.kills))
        if "twice" in self.names:
            second.append(self._arm("twice"))
        if "workers" in self.names and self._workers is not None:
            second.append(self._arm("workers", f"data.num_workers={self._workers}"))
        if "beside" in self.names:
            second.append(self._arm("beside", draws=True))
        if "ranks" in self.names:
            cpu = "trainer.accelerator=cpu"
            first.append(self._arm("ranks", cpu, ranks=2))
            second.append(self._arm("ranks_killed", cpu, ranks=2, kills=(WITHIN,)))
        return first, second

    def _arm(self, name: str, *more: str, **how: Any) -> Arm:
        return Arm(f"{self.label}{name}", [*self.overrides, *more], **how)

    @property
    def _workers(self) -> int | None:
        """Another number of data workers. None: the key is blank or missing."""
        workers = (self.values.get("data") or {}).get("num_workers")
        if workers is None:
            return None
        return 0 if workers else 2

    # --- the comparisons ---

    def findings(self) -> Iterator[Finding]:
        """Compare the runs.

        Raises:
            UserError: the experiment does not train even if it is left alone.
        """
        reference = self._ran("reference")
        if not reference.is_as_planned:
            raise UserError("the experiment does not train:", _last_lines(reference.output()))
        twice = self._compared("twice", "reference")
        if twice.difference is not None:
            twice.kind = self._kind_of_chance()
            yield twice
            for name in self.names:
                if name != "twice":
                    yield Finding(name, skipped="two undisturbed runs differ already")
            return
        killed = self._compared("killed", "reference")
        workers = self._compared("workers", "reference")
        beside = self._compared("beside", "reference")
        ranks = self._compared("ranks_killed", "ranks")
        suspects = self._traced("reference").suspects
        if beside.difference is not None:
            beside.kind = "a draw from a global generator outside the counters"
        if killed.difference is not None:
            killed.kind = beside.kind or _kind(killed.difference, suspects)
        if workers.difference is not None:
            workers.kind = killed.kind or "a draw that depends on the worker"
        if ranks.difference is not None:
            ranks.kind = killed.kind or "state that each rank keeps for itself"
        for found in (twice, killed, workers, beside, ranks):
            if found.name in self.names:
                yield found

    def _compared(self, name: str, reference: str) -> Finding:
        found = Finding(name.partition("_")[0])
        if f"{self.label}{name}" not in self.ran:
            found.skipped = "data.num_workers is no number"
            return found
        for one in (reference, name):
            if not self._ran(one).is_as_planned:
                return self._not_run(found, self._ran(one))
        found.difference = first_difference(self._traced(reference), self._traced(name))
        return found

    def _not_run(self, found: Finding, ran: Ran) -> Finding:
        """Say why a run did not end as it was planned."""
        words = _last_lines(ran.output(), 1)
        codes = [code for codes in ran.codes for code in codes]
        if ran.arm.kills and not any(codes):
            found.skipped = "an epoch has fewer than three batches"
        elif found.name == "ranks" and ran.arm.ranks == 2 and not ran.arm.kills:
            found.skipped = f"it does not train on two ranks: {words}"
        else:
            found.failed = words or f"exit codes {codes}"
        return found

    def _kind_of_chance(self) -> str:
        """Why two undisturbed runs differ: run again with the same order of sets, and with a clock
        that is the same."""
        self.ran |= run_arms(self.folder, [self.more_arms()])
        if self._compared("again", "reference").difference is None:
            return "the order of a set of texts, which differs from process to process"
        if self._compared("clocks", "clock").difference is None:
            return "the wall clock"
        return SYSTEM

    def more_arms(self) -> list[Arm]:
        """The arms that tell why two undisturbed runs differ, if they have not run yet."""
        arms = [self._arm("again"), self._arm("clock", clock=True), self._arm("clocks", clock=True)]
        return [arm for arm in arms if arm.name not in self.ran]

    def _ran(self, name: str) -> Ran:
        return self.ran[f"{self.label}{name}"]

    def _traced(self, name: str) -> Traced:
        return read(self._ran(name).folder)


def _kind(difference: Difference, suspects: Mapping[str, list[str]]) -> str:
    """The likely cause if a run that resumed differs."""
    if difference.name.removeprefix("buffer ") in suspects.get("buffer", []):
        return KINDS["buffer"]
    if difference.name.endswith(" lr") and suspects.get("schedule"):
        return _named("a schedule that keeps a count of its own", suspects.get("state", []))
    for kind in ("optimizer", "generator", "state"):
        if suspects.get(kind):
            return _named(KINDS[kind], suspects[kind])
    return KINDS["state"]


def _named(kind: str, names: Sequence[str]) -> str:
    return f"{kind}: {shortened(names, 3)}" if names else kind


def _last_lines(text: str, most: int = 8) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-most:])


def small(overrides: Sequence[str], composer: Composer) -> list[str]:
    """The overrides with those that make the experiment small. What the user gives wins."""
    first = ["logger=[]", EVERY_STEP]
    if "fast" in composer.groups.get("debug", []):
        first.append("debug=fast")
    else:
        limits = ("train", 4), ("val", 2), ("test", 2)
        first += [f"trainer.limit_{split}_batches={number}" for split, number in limits]
        first.append("trainer.max_epochs=2")
    return [*first, *overrides]


def checked(
    folder: Path,
    composer: Composer,
    experiments: Mapping[str, Sequence[str]],
    names: Sequence[str] = tuple(LINES),
) -> dict[str, list[Finding]]:
    """Check several experiments, whose runs share two processes.

    Args:
        folder: an empty folder.
        composer: of the project's configuration.
        experiments: the overrides of each, by a label.
        names: which comparisons are made: keys of LINES.

    Returns:
        What was found of each, by its label.

    Raises:
        UserError: the overrides do not fit the configuration, or an experiment does not train.
    """
    checks = {}
    plans: tuple[list[Arm], list[Arm]] = ([], [])
    for label, overrides in experiments.items():
        overrides = small(overrides, composer)
        values = composer.compose(overrides).values
        checks[label] = Check(overrides, folder, values, names, label)
        for plan, arms in zip(plans, checks[label].plans(), strict=True):
            plan += arms
    ran = run_arms(folder, plans)
    for check in checks.values():
        check.ran = ran
    return {label: list(check.findings()) for label, check in checks.items()}
