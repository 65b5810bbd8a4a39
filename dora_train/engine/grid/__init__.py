"""Around many runs: what is wanted, what is known, and what to do about it.

It never imports `run/`.

    sync.py         `dora grid`: its steps in their order; command.py is what it was asked for
    selection.py    the experiments that the patterns of the command select
    inventory.py    what the grid wants and what is there
    plan.py         (wanted, known) -> actions with reasons, without touching anything; planning.py
                    asks it
    summary.py      a plan as a whole; show.py prints it, and asks
    apply.py        carries out a plan
    watching.py     shows the experiments until they are over
    healing.py      submits interrupted experiments again meanwhile
    faultless.py    which ends of an attempt are no fault of its own
    table.py        the table, from Dora's Explorer; names.py names its rows

    telling.py      decides when a message is sent, and sends it once; message.py is its text
    channels.py     sends it to an address or a command
    last_job.py     sends it from the last job of this machine's queue

    launch.py       `dora launch`: the same for one experiment
    single.py       the same for experiments that no grid names

    submission.py   each experiment is submitted once; request.py is what it is given
    packs.py        which experiments share an array or a job; job_count.py counts the jobs
    order.py        what a submission gives to the scheduler
    memory.py       what a job gets more if one ran out of memory
    settlement.py   what became of submissions whose command was killed
    cancellation.py cancels jobs; stop.py stops one experiment, as a job or as a process
    faults.py       where tests kill a submission

    grids.py        finding grid files, running them, and which grid wants what
    json_file.py    what `python -m dora_train.sweep --json` reads
    open_ended.py   an explorer that adds experiments: the base class of dora_train/search.py
    sheep.py        Dora's Sheep, answered from our files; shepherd.py: its Shepherd
"""
