"""The local queue: files on this machine, and small processes that start jobs and watch them.

executor.py     the executor that commands call
moving.py       starts the first runner from a command
queue.py        the queue: its jobs in their order
job_files.py    the files of one job
ends.py         how jobs ended, after their files were removed
old_ends.py     the lines of ends.py that no experiment needs any more
taking.py       takes the jobs that can start, and locks what they need
runner.py       the process that starts a job and watches it
starting.py     starts the ranks of a job
watching.py     waits until these ranks are gone
surroundings.py what a job gets from the command that queues it
ahead.py        starts the process that imports libraries before the jobs start
parent.py       this process: it imports the libraries, and starts jobs as forks
libraries.py    the libraries that a process has imported, and the jobs that they fit
forked.py       runs the program of a job in a fork
gpus.py         the GPUs of this machine
gpu_locks.py    locks on GPUs, within this queue
gpu_machine.py  locks on GPUs that the queues of all users see
gpu_users.py    finds out who else uses a GPU
place.py        where the folder of the queue is
folder.py       makes this folder
files.py        locks and writes files
"""
