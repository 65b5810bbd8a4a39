"""The program of a job that works through several experiments:

`python CODE/dora_train/engine/pack.py LIST`

Like `job.py`, it is run as a file, and imports the code beside it. Each experiment of the list runs
`job.py FOLDER TOKEN` in a process of its own (jobs/pack.py). LIST is written by grid/order.py.
"""

import sys
from pathlib import Path

PATH = sys.path[1:]  # where programs that this one starts look for installed libraries
sys.path[0] = str(Path(__file__).resolve().parents[2])


def main() -> int:
    """Work through the experiments. Returns 128 + the number of a signal that ended this early."""
    from dora_train.engine import job, output
    from dora_train.engine.jobs.pack import Pack
    from dora_train.engine.run.signals import Signals

    signals = Signals().install()
    pack = Pack.read(Path(sys.argv[1]), job.task(), job.job_id(), PATH)
    left = pack.work(lambda: signals.signum)
    if not left:
        return 0
    output.prepare(never_fails=True)  # only now: the experiments have streams of their own
    job.requeue(job.most_requeues(left[0].experiment.job()))
    return 128 + signals.signum


if __name__ == "__main__":
    sys.exit(main())
