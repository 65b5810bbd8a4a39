"""Crop, flip and cutout on a whole batch, with a draw of its own for each sample.

A draw is a function of (seed, epoch, sample): what a sample gets does not depend on the batch it is
in, on the ranks, or on where a run was resumed. To add one: draw its numbers in
`Augmentation.draw`, and use them in `moved` or `erased`.

On the CPU, numpy picks windows and rows: its indexing copies whole rows of pixels, and torch 2.15
copies single bytes (0.5 against 3.4 us per image, see benchmarks/README.md).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..counters import integers

Draws = dict[str, Tensor]  # name -> [B] int64
ALTERNATE = "alternate"  # a value of `Augmentation.flip`


@dataclass(frozen=True)
class Augmentation:
    """The random changes of the training images.

    Attributes:
        crop: pixels of black that are added on each side, before a window of the old size is cut
            out. 0: no crop.
        flip: whether half of the samples are mirrored, left to right. "alternate": each sample is
            mirrored in every second epoch, and its side in the first one is drawn. So two epochs
            show both sides of each (arXiv 2404.00498, section 3.6).
        cutout: side of the square that is set to the mean colour, pixels. 0: no square.
        seed: of all draws.
    """

    crop: int = 0
    flip: bool | str = False
    cutout: int = 0
    seed: int = 0

    def draw(self, samples: Tensor, epoch: int, height: int, width: int) -> Draws:
        """The draws of these samples ([n] int64, their numbers in their set) in this epoch."""
        places = 2 * self.crop + 1
        bounds: dict[str, int] = {}
        if self.crop:
            bounds |= {"row": places, "column": places}
        if self.flip and self.flip != ALTERNATE:
            bounds["flip"] = 2
        if self.cutout:
            bounds |= {"cutout row": height, "cutout column": width}
        draws = {}
        for name, bound in bounds.items():
            draws[name] = integers(samples, bound, name, self.seed, epoch)
        if self.flip == ALTERNATE:
            draws["flip"] = (integers(samples, 2, "side", self.seed) + epoch) % 2
        return draws

    def moved(self, pixels: Tensor, draws: Draws) -> Tensor:
        """The images cropped and flipped.

        That is done on the raw pixels, which have a fourth of the bytes of a normalised image.

        Args:
            pixels: [B, C, H, W] uint8. They may be overwritten.
        """
        if self.crop:
            pixels = cropped(pixels, self.crop, draws["row"], draws["column"])
        if self.flip:
            pixels = flipped(pixels, draws["flip"].bool())
        return pixels

    def erased(self, images: Tensor, draws: Draws) -> Tensor:
        """The images with a square cut out.

        Args:
            images: [B, C, H, W] float32. They are normalised, so that the mean colour is 0, and
                they are overwritten.
        """
        if self.cutout:
            cut_out_(images, self.cutout, draws["cutout row"], draws["cutout column"])
        return images


def cropped(pixels: Tensor, padding: int, row: Tensor, column: Tensor) -> Tensor:
    """The windows at `row` and `column` of the padded images, in their old size.

    Args:
        padding: black pixels on each side.
        row, column: [B] int64 in 0 .. 2 * padding.
    """
    height, width = pixels.shape[2:]
    # A window that is further out is as black as one just outside: no more black has to be made.
    enough = min(padding, max(height, width))
    row = (row - padding).clamp(-enough, enough) + enough
    column = (column - padding).clamp(-enough, enough) + enough
    padded = F.pad(pixels, [enough] * 4)
    # [B, C, 2p + 1, 2p + 1, H, W], a view
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    image = torch.arange(len(pixels), device=pixels.device)
    if pixels.device.type == "cpu":
        return torch.from_numpy(windows.numpy()[image.numpy(), :, row.numpy(), column.numpy()])
    return windows[image, :, row, column]


def flipped(pixels: Tensor, chosen: Tensor) -> Tensor:
    """The images with those of `chosen` ([B] bool) mirrored. `pixels` may be overwritten."""
    # On a GPU, `nonzero` would wait until all earlier work is done.
    if pixels.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    rows = chosen.nonzero().flatten()
    pixels.numpy()[rows.numpy()] = pixels.index_select(0, rows).flip(3).numpy()
    return pixels


def cut_out_(images: Tensor, side: int, row: Tensor, column: Tensor) -> None:
    """Set a square around (row, column) to 0 (arXiv 1708.04552). It may reach over the edge."""
    height, width = images.shape[2:]
    top, left = row - side // 2, column - side // 2
    # [B, H]: 0 .. side - 1 within the square
    rows = torch.arange(height, device=images.device) - top[:, None]
    columns = torch.arange(width, device=images.device) - left[:, None]
    in_rows = (rows >= 0) & (rows < side)
    in_columns = (columns >= 0) & (columns < side)
    images.masked_fill_(in_rows[:, None, :, None] & in_columns[:, None, None, :], 0.0)
