"""What one NVIDIA GPU has used, by nvidia-ml-py: the share of time in which it computed, and joules.

The numbers are those of the whole GPU, also if several jobs share it. Without a driver, without the
package, and for whatever a GPU does not support, there is no number. run/usage.py is the one user.
"""

from importlib import import_module
from types import ModuleType
from typing import Any


class Gauge:
    """One GPU.

    Args:
        nvml: the module `pynvml`, initialised.
        device: NVML's handle of the GPU.
    """

    def __init__(self, nvml: ModuleType, device: Any):
        self._nvml, self._device = nvml, device
        self._sampled = 0  # the time of the last sample of its load, in microseconds

    @classmethod
    def of(cls, uuid: str) -> "Gauge | None":
        """The GPU with this id (`GPU-...`). None: NVML cannot be asked."""
        try:
            nvml = import_module("pynvml")
            nvml.nvmlInit()
            return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
        except Exception:  # no package, no driver, no permission: NVML has an error for each
            return None

    def busy(self) -> float | None:
        """The mean share of time, 0 to 1, in which a kernel ran since the last call.

        NVML keeps the samples of the last seconds. If the last call was earlier, they stand for the
        time between. None: there are none.
        """
        nvml = self._nvml
        try:
            kind = nvml.NVML_GPU_UTILIZATION_SAMPLES
            samples = nvml.nvmlDeviceGetSamples(self._device, kind, self._sampled)[1]
        except nvml.NVMLError:
            return None
        if not samples:
            return None
        self._sampled = max(sample.timeStamp for sample in samples)
        return sum(sample.sampleValue.uiVal for sample in samples) / len(samples) / 100

    def joules(self) -> float | None:
        """The energy since the driver was loaded. None: the GPU does not count it."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device) / 1000
        except self._nvml.NVMLError:
            return None
