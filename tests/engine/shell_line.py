"""Becomes a shell that runs the line which it is given: `shell_line.py 'echo 1'`."""

import os
import sys

if __name__ == "__main__":
    os.execvp("bash", ["bash", "-c", sys.argv[1]])
