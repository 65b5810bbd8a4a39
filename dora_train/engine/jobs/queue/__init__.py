"""The queue of this machine: files, and small processes that start jobs and watch over them.

executor.py   the executor that commands call
queue.py      the queue: its jobs in their order
job_files.py  the files of one job
ends.py       how jobs ended whose files are gone
taking.py     the jobs that can start, with locks on what they need
runner.py     the process that starts a job and watches over it
gpus.py       the GPUs of this machine
place.py      where the folder of the queue is
folder.py     makes the folder
files.py      locks and writes files
"""
