"""`python -m dora_train.report`: which setting wins, by how much, and is it noise?"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from ..engine import output
from ..engine.errors import UserError, report_user_errors
from ..engine.experiment.find import outputs
from ..engine.jobs.choose import asked
from .formats import FORMATS
from .report import MOST, Report
from .settings import seeds

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}  # seconds
EXAMPLES = """\
examples:
  %(prog)s --last 10                               what ran last, and what it reached
  %(prog)s --since today --html today.html         all of today as a page
  %(prog)s mysweep                                 a grid, the best run first
  %(prog)s mysweep 5f3a --where lr=0.1,0.3         a grid and an experiment, of two learning rates
  %(prog)s mysweep --over seed                     which setting is best, which are worse
  %(prog)s mysweep --over seed --sort best.acc     the same on the validation set
  %(prog)s mysweep --over seed --format latex      for the paper
  %(prog)s mysweep --watch                         as dora grid shows it; submits nothing
  %(prog)s mysweep --html mysweep.html             a page to look at, and to send
  %(prog)s --diff 5f3a 0b7d                        what differs between two runs
  %(prog)s --diff 5f3a 0b7d --over seed            between their settings, with all seeds of both
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.report",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare experiments by what they stored. Changes nothing, and works while they run.",
    )
    made.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="a grid, or the beginning of a signature; none: every experiment, in a table the last"
        f" {MOST}",
    )
    made.add_argument(
        "--last",
        metavar="N",
        type=_count,
        help="only the last N runs, the newest first, one line each; all: every run",
    )
    made.add_argument(
        "--since",
        metavar="TIME",
        type=_time,
        help="only runs that started or ended since then: 90m, 12h, 2d, 1w ago, today, or a date"
        " such as 2026-11-26",
    )
    made.add_argument(
        "--where",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only those: also != < <= > >=, several values with commas, state=..., metrics; repeatable",
    )
    made.add_argument(
        "--sort",
        metavar="KEY",
        default="",
        help="by a metric (the best first), a value, started (the newest first) or took."
        " With --over, settings are compared by it: best.acc means the validation set; default: the test set",
    )
    made.add_argument("--reverse", action="store_true", help="the other way round")
    made.add_argument(
        "--over",
        metavar="KEY",
        action="append",
        default=[],
        help="take runs together that differ in KEY alone, e.g. seed, and compare these settings:"
        " which is best, which are worse, and which seeds would tell; repeatable",
    )
    made.add_argument(
        "--metrics", metavar="NAME,...", default="", help="only these, e.g. best.acc,test.acc"
    )
    made.add_argument("--format", choices=list(FORMATS), default="text", help="default: text")
    does = made.add_mutually_exclusive_group()
    does.add_argument(
        "--watch", action="store_true", help="the table, in place, until nothing waits or runs"
    )
    does.add_argument(
        "--html", metavar="FILE", help="a page: curves, parameters, a card a run; no network"
    )
    does.add_argument(
        "--hiplot", metavar="FILE", help="HiPlot's page (pip install -r requirements-extra.txt)"
    )
    does.add_argument(
        "--diff", action="store_true", help="two runs side by side; with --over seed their settings"
    )
    return made


def _count(text: str) -> int:
    """The number of `--last`.

    Raises:
        ArgumentTypeError: it is neither a number above 0 nor `all`.
    """
    if text == "all":
        return sys.maxsize
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is neither a number above 0 nor "all"')
    return int(text)


def _time(text: str) -> float:
    """The time of `--since`, in seconds since the epoch.

    Raises:
        ArgumentTypeError: it is no time.
    """
    amount, unit = text[:-1], text[-1:]
    if unit in UNITS and amount.isdigit():
        return time.time() - int(amount) * UNITS[unit]
    if text == "today":
        return datetime.combine(date.today(), datetime.min.time()).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f'"{text}" is no time: 90m, 12h, 2d, 1w, today, 2026-11-26 or 2026-11-26T18:00'
        ) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Print a report, or write it to a file, as the options say.

    Args:
        argv: without the name of the program. None: `sys.argv`.

    Raises:
        UserError: a name or a key is unknown, or a file cannot be written.
    """
    args = parser().parse_args(argv)
    metrics = [name.strip() for name in args.metrics.split(",") if name.strip()]
    report = Report(
        outputs(),
        args.names,
        args.where,
        args.over,
        args.sort,
        args.reverse,
        metrics,
        asked(),
        args.last,
        args.since,
    )
    if args.watch:
        from .watch import watch

        watch(report.title, report.runs, report.executor)
    elif args.html:
        from . import page

        # a page shows settings, too, so runs are always grouped
        report.over = report.over or seeds(report.found)
        write(args.html, page.page(report), report)
    elif args.hiplot:
        from . import hiplot

        write(args.hiplot, hiplot.page(report), report)
    elif args.diff:
        _print(_diff(report))
    else:
        _print(FORMATS[args.format](report), is_data=args.format != "text")


def _diff(report: Report) -> str:
    """Two runs side by side, or their settings if the report is grouped."""
    from . import diff

    if len(report.names) != 2:
        raise UserError("--diff takes two signatures: python -m dora_train.report --diff 5f3a 0b7d")
    if report.over:
        return diff.of_settings(report)
    if len(report.runs) != 2:
        raise UserError(
            "--diff takes two signatures: python -m dora_train.report --diff 5f3a 0b7d",
            "two grids, of one setting each: python -m dora_train.report --diff A B --over seed",
        )
    first, second = sorted(report.runs, key=lambda run: not run.sig.startswith(report.names[0]))
    return diff.of_runs(first, second)


def _print(text: str, is_data: bool = False) -> None:
    """Print text in the encoding of the terminal. Data is UTF-8, as it often goes into a file."""
    with output.to_a_reader():
        if is_data:
            sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


def write(path: str, text: str, report: Report) -> None:
    """Write a page, and print its size.

    Raises:
        UserError: the file cannot be written.
    """
    content = text.encode("utf-8", "replace")  # a file name may hold any bytes
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error
    count = len(report.runs)
    noun = "experiment" if count == 1 else "experiments"
    print(f"{path}: {count} {noun}, {len(content) / 1e6:.1f} MB")


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
