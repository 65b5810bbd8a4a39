"""A generator that a Dataset keeps."""

import random

from .base import Data, Net, Points


class Noisy(Points):
    def __init__(self):
        super().__init__()
        self.rng = random.Random(0)

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + self.rng.gauss(0, 0.1), y


def parts(cfg):
    return Net(), Data(cfg, Noisy())
