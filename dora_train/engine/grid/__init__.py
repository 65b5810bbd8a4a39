"""Around many runs: what is wanted, what is known, and what to do about it.

It never imports `run/`.

    sync.py         `dora grid`: collect, plan, act, show
    launch.py       `dora launch`: the same for one experiment; single.py: those that no grid names
    plan.py         (wanted, known) -> actions with reasons, without touching anything; show.py prints
                    it, and asks
    submission.py   each experiment is submitted once; request.py is what it is given
    stop.py         stops one experiment, as a job or as a process of this machine
    grids.py        finding grid files, running them, and which grid wants what
    open_ended.py   an explorer whose list of experiments grows: what dora_train/search.py plugs in
    sheep.py        Dora's Sheep, answered from our files; shepherd.py: its Shepherd
    table.py        the table, from Dora's Explorer
"""
