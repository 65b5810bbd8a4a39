"""Inside one run: from its claim to its end. It may import torch and Lightning, and never `grid/`.

An attempt
    session.py       claims the experiment, and writes its state
    entering.py      makes the folder, or says that there is nothing to do
    leaving.py       writes why the attempt ended, and exits
    attempts.py      gives up a job that gets nowhere
    codes.py         notes the code that the attempt runs
    run_log.py       the first lines, and `train.log`
    signals.py       a signal sets a flag
    failures.py      a full disk, and a rank that is gone
    room.py          waits for room on a full disk
    checks.py        refuses what this machine or Lightning cannot run
Its ranks
    ranks.py         which rank this process is
    same_as_one_rank.py  lets several ranks compute the same as one
    spawn.py         starts the ranks of `dora run -d`
    distrib.py       `dora.distrib` inside a run
    cluster_environment.py  the ranks in Lightning's form
The training
    trainer.py       builds Lightning's trainer, and fits
    announce.py      the lines at its start and its end
    start.py         the first weights
    resume.py        where a run resumes
    checkpoints.py   writes the files that it resumes from
    boundary.py      saves and leaves between two steps
    unkept.py        names at the start what no checkpoint will hold
    endings.py       ends before the last epoch
    averaging.py     a running average of the weights
    determinism.py   asks a GPU for the same bits each time
    precision.py     `trainer.precision`, for predict.py
Its data
    same_data.py     refuses data that have changed
    given.py         the data that main gave, as loaders
    loaders.py       batches for Lightning, a share for each rank
    exact_loader.py  makes any loader exact
    indexed.py       loaders of numbered samples
    streamed.py      loaders that are read from their beginning
    workers.py       the settings of a loader's workers
    draws.py         seeds the draws of other people's code
Its numbers
    history.py       one entry per epoch
    step_sums.py     sums what the steps return and log
    averages.py      means over an epoch and over all ranks
    logged.py        the values that a module gives to `self.log`
    metric_states.py torchmetrics objects in a checkpoint
    loggers.py       TensorBoard, CSV and wandb
    progress.py      the bar, the lines and the heartbeat
    profile.py       where the time went
    usage.py         what a rank uses. energy.py reads the counters of the processors
`python -m dora_train.check`
    comparisons.py   compares disturbed runs, and names the likely cause of a difference
    arms.py          starts these runs: it forks a process that has the libraries
    trace.py         writes what a run holds at each step. traces.py reads and compares it
    suspects.py      looks for what no checkpoint holds
"""
