"""What it costs to measure what a run uses (dora_train/engine/run/usage.py).

`python benchmarks/usage_cost.py` prints the median time of a measure with four data workers, and
its share of the ten seconds between two of them. Nothing is done at a step.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dora_train.engine.experiment.folder import Experiment
from dora_train.engine.run.usage import EVERY, Meter

WORKERS, MEASURES = 4, 200


def main() -> None:
    workers = [
        multiprocessing.Process(target=time.sleep, args=(600,), daemon=True) for _ in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(Path(folder) / "xps" / "0123abcd")
        meter = Meter(0, 1, partial(experiment.write_usage, 1))
        seconds = []
        for _ in range(MEASURES):
            began = time.perf_counter()
            meter.measure(now=True)
            seconds.append(time.perf_counter() - began)
    for worker in workers:
        worker.kill()
    median = statistics.median(seconds)
    print(f"a measure takes {1000 * median:.2f} ms, {median / EVERY:.3%} of {EVERY:.0f} s")


if __name__ == "__main__":
    main()
