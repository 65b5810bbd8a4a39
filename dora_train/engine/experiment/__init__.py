"""An experiment on the disk: its folder, and all that is read from it or written to it.

folder.py        the folder: the names and formats of its files
records.py       the records in its files, and every state
ledger.py        the attempts and the jobs of an experiment
claims.py        which process holds an experiment
xp.py            an experiment as a command knows it: Dora's XP, and its Link to the history
lookup.py        from overrides or a signature to an XP, by Dora's names
finished.py      the index of finished experiments. kept.py has its lines
find.py          from the beginning of a signature to the folder
drift.py         the frozen values beside those of today
frozen.py        the values that `-f SIG` takes from today
early_checks.py  the checks before a folder is made
birth.py         the record of a new experiment
origin.py        continue_from
clearing.py      --clear, and how results come back
contents.py      the files of its data, compared with those of today
checkpoint.py    reads the file of a checkpoint
code.py          the code that it runs. project.py finds it, snapshot.py keeps and writes it
ran_files.py     the files that it ran. commit_files.py has those of earlier versions
counted_code.py  the part of the code that counts in `tag=@code`. todays_code.py compares with it
share.py         records for dora export and dora import
"""
