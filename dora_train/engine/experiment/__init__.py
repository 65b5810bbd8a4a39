"""What lies on the disk: an experiment's folder, and everything that is read from it or written to
it.

    folder.py      the folder: the names and formats of its files
    records.py     what is stored, record by record, and every state; ledger.py: attempts and jobs
    claims.py      who holds an experiment
    xp.py          an experiment as a command knows it: Dora's XP, and its Link to the history
    find.py        from the beginning of a signature to its experiment; origin.py: continue_from
    frozen.py      what -f SIG takes from today; clearing.py: --clear, and how results come back
    contents.py    what its data consisted of; checkpoint.py: what a checkpoint holds
    code.py        the code that it runs: project.py finds it, snapshot.py keeps and lays it out
    share.py       what dora export takes along, and dora import puts down
"""
