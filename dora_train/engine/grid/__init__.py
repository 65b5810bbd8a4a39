"""Around many runs: what is wanted, what is known, what to do about it, and how it is shown. Never imports `run/`.

    sync.py         `dora grid`: collect, plan, act, show
    launch.py       `dora launch`: the same for one experiment, and single.py for those that no grid names
    info.py         `dora info`: one experiment on a dozen lines; changes nothing
    plan.py         (wanted, known) -> actions with reasons: pure; show.py prints it, and asks
    status.py       what state an experiment is in: one table, from its folder and its executor;
                    facts.py gathers what the table looks at
    submission.py   each experiment is submitted once, whatever is killed in between; request.py is what it is given
    executor.py     what is asked of whatever runs jobs; choose.py chooses one
    slurm.py        SLURM; sbatch.py submits, slurm_text.py reads its words
    local.py        this machine: queue.py is the queue, runner.py starts its jobs and
                    watches over them; place.py says where it lies, folder.py makes it,
                    ends.py is what is left of its jobs, files.py what it is made of
    resources.py    who asks for which resources -> the parameters of a job
    grids.py        finding grid files, running them, and which grid wants what
    open_ended.py      an explorer whose list of experiments grows: what dora_train/search.py plugs in
    gridfile.py     the text of a grid file, for `dora_train.sweep`
    sheep.py        Dora's Sheep, answered from our files; shepherd.py: its Shepherd, for launchers and notebooks
    live.py      watching until all is done, on a terminal or in a pipe
    table.py        the table, from Dora's Explorer; board.py draws it, best.py knows which value is the best
    logs.py         a log's end, and following it
"""
