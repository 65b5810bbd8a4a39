"""The queue of this machine: files, and small processes that start jobs and watch over them.

executor.py   what the commands ask of it
queue.py      the queue: its jobs, in their order; ends.py: what is left of jobs that are over
runner.py     starts the jobs, and watches over them
place.py      where its folder lies; folder.py makes it; files.py: what it is made of
"""
