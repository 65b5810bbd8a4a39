"""A grid in pure Python:

`python -m basic.grid` schedules what is missing, cancels what left it, and prints a table.

Edit `experiments`, and call it again. `--retry` gives another job to those that ended early.
"""

import argparse
from collections.abc import Iterator

from filelock import FileLock

from basic import schedule, train


def experiments() -> Iterator[list[str]]:
    """How much width does each learning rate need? Loops and conditions: no language but Python."""
    shared = ["--epochs", "10"]
    for lr in [0.02, 0.05, 0.1]:
        for width in [16, 32]:
            if lr == 0.1 and width == 16:  # known not to be worth it
                continue
            yield [*shared, "--lr", str(lr), "--model-args", f"width={width}"]


def sync(retry: bool) -> dict[str, str]:
    """Make what is scheduled what the grid says: {name: state}."""
    parser = schedule.job_parser()
    wanted = {
        train.name_of(args): args for args in (train.parse(parser, argv) for argv in experiments())
    }
    if not wanted:
        raise SystemExit("the grid is empty: a mistake in a loop? Nothing is cancelled.")
    record = train.root() / "grid.json"  # what the last call wanted: the difference left the grid
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(train.root() / ".grid.lock"):
        left = [name for name in train.read_json(record) or [] if name not in wanted]
        # killed from here on, the next call still knows what left
        train.write_json(record, [*wanted, *left])
        for name in left:
            print(f"left the grid: {name}  {schedule.cancel(train.root() / name)}")
        states = {name: schedule.assign(args, retry) for name, args in wanted.items()}
        train.write_json(record, list(wanted))
    return states


def table(states: dict[str, str]) -> str:
    """A line an experiment; metrics of what is there so far."""
    width = max(map(len, states))
    lines = [f"{'name':{width}}  {'state':10} epoch  valid loss  valid acc   best"]
    for name, state in states.items():
        history = train.read_json(train.root() / name / "history.json") or []
        valid = history[-1]["valid"] if history else {}
        numbers = (
            f"{valid['loss']:11.3f} {valid['acc']:10.3f} {train.best_of(history)['acc']:6.3f}"
            if valid
            else ""
        )
        lines.append(f"{name:{width}}  {state:10} {len(history):5} {numbers}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    parser = train.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--retry", action="store_true", help="another job for those that ended early"
    )
    print(table(sync(parser.parse_args().retry)))
