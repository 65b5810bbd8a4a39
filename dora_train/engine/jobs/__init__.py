"""What runs elsewhere: the schedulers, and what is asked of them.

executor.py    what is asked of whatever runs jobs; choose.py takes one
slurm.py       SLURM; sbatch.py submits, slurm_text.py reads its words
queue/         this machine
resources.py   who asks for which resources -> the parameters of a job
"""
