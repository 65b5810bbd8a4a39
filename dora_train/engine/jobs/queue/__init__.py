"""The queue of this machine: files, and small processes that start jobs and watch over them.

executor.py   the executor that commands call
queue.py      the queue: its jobs in their order
job_files.py  the files of one job
old_ends.py   the lines among these that nobody needs any more
ends.py       how jobs ended whose files are gone
taking.py     the jobs that can start, with locks on what they need
runner.py     the process that starts a job and watches over it
starting.py   starts the ranks of a job
watching.py   waits until they are gone
ahead.py      has the libraries of jobs imported before the jobs start
parent.py     the process that imports them, and starts jobs as forks
libraries.py  the libraries that a process has imported, and the jobs that they fit
forked.py     runs the program of a job in a fork
gpus.py       the GPUs of this machine
gpu_locks.py  locks on them, within this queue
gpu_machine.py  locks on them that the queues of all users see
gpu_users.py  who else uses them
place.py      where the folder of the queue is
folder.py     makes the folder
files.py      locks and writes files
"""
