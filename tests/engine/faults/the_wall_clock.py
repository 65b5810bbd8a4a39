"""The weight of the loss depends on the time of day."""

import time

from .base import Data, Net


class Timed(Net):
    def loss(self, batch):
        return super().loss(batch) * (1 + time.time() % 1)


def parts(cfg):
    return Timed(), Data(cfg)
