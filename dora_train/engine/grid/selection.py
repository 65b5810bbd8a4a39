"""Which experiments of a grid a command line names: by name, by index, or one alone to look at."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatch

from dora.grid import RunGridArgs

from ..errors import UserError
from ..jobs.executor import Executor
from ..watch.info import follow_experiment
from ..watch.logs import print_log
from .command import Command
from .sheep import Sheep


def select(command: Command, sheep: Sequence[Sheep]) -> list[Sheep]:
    """The sheep that the patterns of a command select. Without a pattern these are all.

    A number is an index. It counts among the sheep that the other patterns leave.

    Raises:
        UserError: no name fits, or there is no such index.
    """
    indices, words = [], []
    for pattern in command.args.patterns:
        if pattern.removeprefix("-").isdigit():
            indices.append(int(pattern))
        else:
            words.append(pattern)
    left = list(sheep)
    if words:
        left = [one for one in sheep if matches(command.main.get_name(one.xp), words)]
    if sheep and not left:
        raise UserError(
            f"no experiment of {command.grid} is named like {' '.join(words)}.",
            f"e.g. {command.main.get_name(sheep[0].xp) or '(the defaults)'}; "
            f"all: dora grid {command.grid} --dry_run",
        )
    if indices:
        return [at(command.grid, left, index) for index in indices]
    return left


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits all patterns, by Dora's rule: each stands somewhere in the name.

    A pattern may hold `*`. With `!` in front it must stand nowhere in the name.
    """
    return all(
        fnmatch(name, f"*{pattern.removeprefix('!')}*") != pattern.startswith("!")
        for pattern in patterns
    )


def at(grid: str, sheep: Sequence[Sheep], index: int) -> Sheep:
    """The sheep at an index. A negative one counts from the end.

    Raises:
        UserError: there is no such index.
    """
    if -len(sheep) <= index < len(sheep):
        return sheep[index]
    if not sheep:
        raise UserError(f"there is no experiment {index}: nothing of {grid} is left.")
    raise UserError(f"there is no experiment {index}: {grid} has 0 to {len(sheep) - 1}.")


# --- one experiment to look at ---


def shown_index(args: RunGridArgs) -> int | None:
    """The index of the one experiment that `-f`, `-l` or `-t` shows. None: no such flag is given."""
    for index in (args.folder, args.log, args.tail):
        if index is not None:
            return index
    return None


def show_one(sheep: Sheep, args: RunGridArgs, executor: Executor) -> None:
    """Print the folder of an experiment (`-f`) or its log (`-l`), or follow the log (`-t`).

    Raises:
        UserError: it has no log yet.
    """
    if args.folder is not None:
        print(sheep.experiment.folder)
    elif sheep.log is None:
        raise UserError(f"XP {sheep.xp.sig} has no log yet: it is {sheep.status.state}.")
    elif args.log is not None:
        print_log(sheep.log)
    else:
        follow_experiment(sheep.experiment, executor)
