"""What lies on the disk: an experiment's folder, and everything that is read from it or written to
it.

    folder.py        the folder: the names and formats of its files
    records.py       what is stored, record by record, and every state
    ledger.py        the attempts and the jobs of an experiment
    claims.py        which process holds an experiment
    xp.py            an experiment as a command knows it: Dora's XP, and its Link to the history
    lookup.py        from overrides or a signature to an XP, by Dora's names
    find.py          from the beginning of a signature to the folder
    drift.py         the frozen values beside those of today
    frozen.py        the values that `-f SIG` takes from today
    early_checks.py  what is checked before a folder is made
    birth.py         what is stored when it is made
    origin.py        continue_from
    clearing.py      --clear, and how results come back
    contents.py      the files that its data consisted of
    checkpoint.py    what a checkpoint holds
    code.py          the code that it runs. project.py finds it, snapshot.py keeps and writes it
    share.py         what dora export takes along, and dora import stores
"""
