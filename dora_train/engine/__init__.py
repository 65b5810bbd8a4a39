"""The engine: what turns `dora run`, `dora grid` and `dora info` into experiments that can be
trusted.

This is a map. A folder imports from those above it, and from no other. docs/architecture.md has the
picture. Nothing is imported here, so that a result can be read without a delay.

    errors.py       a user's mistake, in at most four lines
    output.py       the standard output: letters that it cannot hold, and what happens if it is lost
    access.py       who may read a file, and how old it is
    files.py        files that are written whole or not at all
    machine.py      this machine, and whether a process lives
    words.py        metrics and paths as text
    shell.py        commands as the user can type them
    upstream/       every private name of Dora, Hydra, submitit and Lightning that we touch
    config/         overrides become values, and what differs from the defaults
    experiment/     what lies on the disk: folder, records, ledger, claims, code
    jobs/           what runs elsewhere: SLURM, and the queue of this machine
    watch/          reads, and never acts: states, tables, the lines of `dora info`
    experiments.py  the registry: finds, makes and checks experiments. run/ and grid/ use it
    run/            inside one run. It may import torch and Lightning, and never grid/
    grid/           around many runs. It never imports run/
    search/         the next trials (for dora_train/search.py)
    dora/           the decorator on `main`, and what each of Dora's verbs does
    job.py          the program that a job starts; pack.py: of a job that several experiments share
"""

VERSION = "1.0.dev0"  # of this project: see CHANGELOG.md
