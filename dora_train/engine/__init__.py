"""The engine room: what turns `dora run`, `dora grid` and `dora info` into experiments that can be trusted.

A map, from the door inwards. Nothing is imported here, so that reading a result costs nothing.

    main.py        the decorator on `main`: an experiment from overrides, from a signature, from a job
    verbs.py       what each of Dora's verbs does here; upstream.py puts it in the place of Dora's own
    signature.py   overrides -> configuration -> what differs from the defaults
    values.py      a configuration as plain dicts; quoting.py: a grid's values as overrides; xp.py: Dora's XP of those
    store.py       the experiment's folder: names, formats, atomic writes. The two wings meet here
    find.py        from the beginning of a signature to its experiment; origin.py: what continue_from names
    share.py       what dora export takes along, and dora import puts down
    claims.py      who holds an experiment
    code.py        the code of a run: read once, kept with the experiment, and the snapshot that a job runs
    project.py     which of the project's files are code, and what git says of them
    snapshot.py    files as a value: their hash, a folder of them, an archive
    job.py         what a job starts with
    errors.py      a user's mistake, in at most four lines
    replaced.py    settings of Dora and of Lightning that have no place here
    upstream.py    every private name of Dora, Hydra, submitit and Lightning that we touch
    run/           inside one run: session, checks, ranks, trainer, loaders, history, checkpoints, signals, loggers
    search/        what to try next: space, optimizers, replay (for dora_train/search.py)
    grid/          around many runs: plan, submission, executor, status, table, info (never imports run/)
"""
