"""The program of a packed job, which runs several experiments:

`python CODE/dora_train/engine/pack.py LIST`

LIST is a file that names the experiments. grid/order.py writes it. Like `job.py`, this program is
run as a file, and imports the code beside it. Each experiment runs `job.py FOLDER TOKEN` in its own
process (jobs/pack.py).
"""

import sys
from pathlib import Path

PATH = sys.path[1:]  # where the processes of the experiments look for installed libraries
# `dora_train` is imported from the snapshot that contains this file.
sys.path[0] = str(Path(__file__).resolve().parents[2])


def main() -> int:
    """Run the experiments. Returns 0, or 128 + the number of a signal that ended the job early."""
    from dora_train.engine import job, output
    from dora_train.engine.jobs.pack import Pack
    from dora_train.engine.run.signals import Signals

    signals = Signals().install()
    pack = Pack.read(Path(sys.argv[1]), job.task(), job.job_id(), PATH)
    left = pack.work(lambda: signals.signum)
    if not left:
        return 0
    output.prepare(never_fails=True)  # only now: the experiments prepare their own streams
    # The experiments that are left resume when SLURM starts this job again.
    job.requeue(job.most_requeues(left[0].experiment.job()))
    return 128 + signals.signum


if __name__ == "__main__":
    sys.exit(main())
