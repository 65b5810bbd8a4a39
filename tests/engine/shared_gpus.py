"""A driver that a test plays: what `pynvml` would say is in a file of JSON.

`{"gpus": [{"pids": [12], "used": 0}, ...], "from": 3, "then": [...]}`: from the third question on,
`then` takes the place of `gpus`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PYNVML = """
import json
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).parent

class NVMLError(Exception):
    pass

def nvmlInit():
    global gpus
    said = json.loads((HERE / "driver.json").read_text())
    with open(HERE / "asked", "a") as asked:
        asked.write("x")
    count = len((HERE / "asked").read_text())
    gpus = said["then"] if "from" in said and count >= said["from"] else said["gpus"]

def nvmlShutdown():
    pass

def nvmlDeviceGetCount():
    return len(gpus)

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetUUID(handle):
    return f"GPU-{handle}f00"

def nvmlDeviceGetComputeRunningProcesses(handle):
    if "lost" in gpus[handle]:
        raise NVMLError("GPU is lost")
    return [SimpleNamespace(pid=pid) for pid in gpus[handle]["pids"]]

def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(used=gpus[handle]["used"])
"""
NOBODY = 2**22 + 1  # no process of this machine: larger than any process id
FREE: dict[str, Any] = {"pids": [], "used": 300 << 20}
TAKEN: dict[str, Any] = {"pids": [NOBODY], "used": 9 << 30}


class Driver:
    """The driver that the test plays."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder, self.file = folder, folder / "pynvml.py"
        self.file.write_text(PYNVML)
        self.says(FREE, FREE)

    def says(self, *gpus: dict[str, Any], **more: Any) -> None:
        aside = self.folder / "driver.json.tmp"
        aside.write_text(json.dumps({"gpus": gpus, **more}))
        aside.replace(self.folder / "driver.json")
        (self.folder / "asked").write_text("")
