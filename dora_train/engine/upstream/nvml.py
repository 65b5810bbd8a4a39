"""What NVIDIA's driver says of the GPUs of this machine, by nvidia-ml-py (`pynvml`).

The local queue asks here. Its runners have no installed packages on their path, so the file of
`pynvml` is given by its path. A machine without the driver, or without the package, has no answer.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Load:
    """The use of one GPU at one moment."""

    uuid: str
    pids: tuple[int, ...]  # the processes of all users that compute on it
    used: int  # bytes of its memory


def file() -> str:
    """The file of `pynvml`. Empty if it is not installed."""
    found = importlib.util.find_spec("pynvml")
    return (found.origin or "") if found else ""


def loads(pynvml_file: str, names: list[str]) -> dict[str, Load]:
    """The use of each GPU, by its name. A GPU that the driver cannot be asked about is left out.

    Args:
        names: as CUDA takes them: `0`, or the beginning of `GPU-8f6d...`.
    """
    try:
        nvml = _imported(pynvml_file)
        nvml.nvmlInit()
    except Exception:  # no file, no driver, or a driver of another version than the package
        return {}
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        known = {}
        for index, handle in enumerate(handles):
            known[str(index)] = known[nvml.nvmlDeviceGetUUID(handle)] = handle
        found = {}
        for name in names:
            handle = _named(name, known)
            if handle is not None:
                found[name] = _load(nvml, handle)
        return found
    except nvml.NVMLError:
        return {}
    finally:
        nvml.nvmlShutdown()


@cache
def _imported(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("pynvml", path)
    assert spec is not None and spec.loader is not None, "a path to a file of Python"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _named(name: str, known: dict[str, Any]) -> Any:
    """The handle of a GPU. CUDA also takes the first letters of the long name."""
    if name.isdigit():
        return known.get(name)
    fitting = [uuid for uuid in known if uuid.startswith(name)]
    return known[fitting[0]] if len(fitting) == 1 else None


def _load(nvml: Any, handle: Any) -> Load:
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return Load(
        nvml.nvmlDeviceGetUUID(handle),
        tuple(process.pid for process in processes),
        nvml.nvmlDeviceGetMemoryInfo(handle).used,
    )
