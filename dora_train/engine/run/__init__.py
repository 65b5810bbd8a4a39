"""Inside one run: from its claim to its end. It may import torch and Lightning, and never `grid/`.

session.py      one attempt: claimed, entered (entering.py), and left with its state (leaving.py)
run_log.py      its first lines and its log; codes.py: its code; attempts.py: when a job gives up
checks.py       whether a run can do what it is asked for; same_data.py: whether its data are the same
ranks.py        which rank this process is; spawn.py: `dora run -d` starts them; distrib.py
trainer.py      Lightning's trainer, built and fitted; start.py: the first weights
announce.py     what a training says at its start and end
resume.py       where a run resumes; checkpoints.py writes what it resumes from
given.py        the data that main gave, as loaders
exact_loader.py makes any loader exact: indexed.py and streamed.py, with draws.py and workers.py
loaders.py      batches for Lightning; environment.py: our ranks for Lightning
history.py      one entry per epoch, from step_sums.py, averages.py and logged.py
loggers.py      the same for other readers
endings.py      ends before the last epoch; averaging.py: a running average of the weights
signals.py      a signal sets a flag; boundary.py looks at it between two steps
progress.py     what a person sees; profile.py: where the time went
failures.py     a full disk, a rank that is gone; precision.py: for predict.py
"""
