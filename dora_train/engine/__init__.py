"""The engine room: what turns `dora run`, `dora grid` and `dora info` into experiments that can be trusted.

A map, from the door inwards. Nothing is imported here, so that reading a result costs nothing.

    main.py        the decorator on `main`: an experiment from overrides, from a signature, from a job
    verbs.py       what each of Dora's verbs does here; upstream.py puts it in the place of Dora's own
    compose.py   overrides -> configuration -> what differs from the defaults; overrides.py: as Hydra's parser reads
                   them; keys.py: what a key takes; limits.py: what the engine's own keys take
    recipes.py     the files of conf/experiment and conf/debug: held to the rules of the command line
    direction.py   whether more or less of best.metric is better: said, never guessed
    words.py       the main metric, and results as text
    values.py      a configuration as plain dicts; quoting.py: a grid's values as overrides; xp.py: Dora's XP and Link
    folder.py       the experiment's folder: names, formats, atomic writes. The two wings meet here
    checkpoint.py  what a checkpoint's file holds, and of which epoch
    find.py        from the beginning of a signature to its experiment; origin.py: what continue_from names
    frozen.py      what -f SIG takes from today; clearing.py: --clear, and how results come back
    share.py       what dora export takes along, and dora import puts down
    claims.py      who holds an experiment; machine.py: this machine, and whether a process lives
    files.py       who may read a file, and how old it is
    code.py        the code of a run: read once, kept with the experiment, and the snapshot that a job runs
    project.py     which of the project's files are code, and what git says of them
    snapshot.py    files as a value: their hash, a folder of them, an archive
    job.py         what a job starts with
    errors.py      a user's mistake, in at most four lines
    output.py      the standard output: letters that it cannot hold, and what happens if it is lost
    shell.py       commands as the user can type them
    refused.py    settings of Dora and of Lightning that are not supported here
    upstream.py    every private name of Dora, Hydra, submitit and Lightning that we touch
    run/           inside one run: session, checks, ranks, trainer, loaders, history, checkpoints, resume, signals ...
    search/        what to try next: space, optimizers, replay (for dora_train/search.py)
    grid/          around many runs: plan, submission, executor, status, table, info (never imports run/)
"""
