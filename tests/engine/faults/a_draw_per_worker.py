"""Each worker reads with a shift of its own."""

from torch.utils.data import get_worker_info

from .base import Data, Net, Points


class Shifted(Points):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        worker = get_worker_info()
        return x + (0.1 * (worker.id + 1) if worker else 0.0), y


def parts(cfg):
    return Net(), Data(cfg, Shifted())
