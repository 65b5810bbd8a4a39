"""The executors, which run jobs elsewhere.

executor.py        their interface
choose.py          chooses one for new jobs
slurm.py           SLURM
sbatch.py          submits a job to it
slurm_commands.py  asks squeue, sacct and scontrol
slurm_text.py      reads their answers
queue/             this machine
resources.py       the resources of a job, as parameters of sbatch
packing.py         how experiments share a job; pack.py works through them, inside the job
"""
