"""`python -m dora_train.check`: does an experiment of yours keep the promises of this project?

It trains the first steps of the experiment several times, in a folder that is removed afterwards:
undisturbed, killed and resumed, with other workers, beside other work, on two ranks. It compares
every bit, and names the first difference and its likely cause.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .engine import output
from .engine.config.compose import Composer
from .engine.errors import UserError, report_user_errors
from .engine.experiment.find import ROOT
from .engine.run.comparisons import LINES, checked

EXAMPLES = """\
examples:
  %(prog)s                        the default experiment
  %(prog)s task=mine optim.lr=0.1  any overrides of dora run
  %(prog)s --keep there            keep what the runs leave, in a new folder

The exit code is 0 only if all runs agree.
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m dora_train.check",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check that an experiment gives the same bits, however it is disturbed.",
    )
    made.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as dora run takes them")
    made.add_argument(
        "--only", choices=list(LINES), action="append", help="make this comparison only; repeatable"
    )
    made.add_argument("--keep", metavar="FOLDER", help="keep what the runs leave, in a new folder")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Check the experiment that the overrides name, and print what was found.

    Args:
        argv: without the name of the program. None: `sys.argv`.

    Raises:
        UserError: the overrides do not fit the configuration, or the experiment does not train.
        SystemExit: 1 if any two runs differ.
    """
    args = parser().parse_intermixed_args(argv)
    composer = Composer(ROOT / "conf", "config", "1.3")
    what = " ".join(args.overrides) or "the default experiment"
    print(f"checking {what}: a dozen short runs, about a minute", flush=True)
    with tempfile.TemporaryDirectory(prefix="dora_train_check_") as temporary:
        folder = Path(temporary)
        if args.keep:
            folder = _made(Path(args.keep).absolute())
        [findings] = checked(
            folder, composer, {"": args.overrides}, args.only or tuple(LINES)
        ).values()
    for finding in findings:
        print(finding.line())
    if not all(finding.agrees for finding in findings):
        sys.exit(1)


def _made(folder: Path) -> Path:
    """Make a new folder.

    Raises:
        UserError: it exists, or cannot be made.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        text = f"--keep {folder}: {error.strerror}."
        raise UserError(text, "name a folder that does not exist") from error
    return folder


if __name__ == "__main__":
    output.prepare(never_fails=False)
    report_user_errors()
    main()
