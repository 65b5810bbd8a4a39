"""The queue of this machine: files, and small processes that start jobs and watch over them.

executor.py   what the commands ask of it; gpus.py: the GPUs of this machine
queue.py      the queue: its jobs in their order; job_files.py: one job; ends.py: jobs that are over
runner.py     starts the jobs, and watches over them; taking.py: the jobs that can start
place.py      where the folder of the queue is; folder.py makes it; files.py locks and writes files
"""
