"""The executors, which run jobs elsewhere.

executor.py         their interface; choose.py chooses one
slurm.py            SLURM; sbatch.py submits, slurm_commands.py asks, slurm_text.py reads the answers
queue/              this machine
resources.py        the resources of a job, as parameters of sbatch
"""
