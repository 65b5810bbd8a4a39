"""A network for small photographs and scans, after the record runs on CIFAR-10: `model=airbench`.

Keller Jordan: 94% on CIFAR-10 in 3.29 seconds on a single GPU (arXiv 2404.00498), section 3, and
its code (github.com/KellerJordan/cifar10-airbench). Changed: it takes images of 8 to 64 pixels, its
width is one number, and its convolutions begin near the identity, where the paper's begin at it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2  # pixels of a side of what the first layer sees
SHIFT = 5e-4  # added to a variance before its root is divided by, as in the paper's code
LEAST = 1e-6  # share of the largest variance below which patches do not vary: rounding
PREPARED_ON = 1_000  # images whose patches are whitened
SCALE = 1 / 9  # of the logits, as in the paper's code
MOMENTUM = 0.4  # share of a batch in the running statistics of batch norm, as in the paper's code


class Airbench(nn.Module):
    """Seven convolutions: of whitened patches, then three groups of two.

    Images [B, 3, H, W] float32, H and W in 8 .. 64, to logits [B, num_classes].

    Args:
        width: channels of the first group. The two others have four times as many.
    """

    def __init__(self, num_classes: int, width: int = 64):
        super().__init__()
        first = 2 * 3 * PATCH**2
        self.whiten = nn.Conv2d(3, first, PATCH)
        self.whiten.weight.requires_grad_(False)
        self.groups = nn.Sequential(
            Group(first, width), Group(width, 4 * width), Group(4 * width, 4 * width)
        )
        self.head = nn.Linear(4 * width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.groups(F.gelu(self.whiten(images)))
        return self.head(features.amax((2, 3))) * SCALE

    @torch.no_grad()
    def whiten_patches(self, images: Tensor) -> None:
        """Make the first layer whiten the 2 x 2 patches of these images, [N, 3, H, W] float32.

        Patches of grey images vary in 4 of their 12 directions. Filters for the others would give
        nothing but 0, and batch norm cannot train on that. So they keep their random weights.
        """
        # On the CPU: a Mac's GPU has no float64.
        patches = F.unfold(images.cpu(), PATCH).transpose(1, 2).flatten(0, 1).double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        varied = variances > LEAST * variances.max()
        scaled = directions[:, varied] / (variances[varied] + SHIFT).sqrt()
        filters = scaled.T.reshape(-1, 3, PATCH, PATCH)
        self.whiten.weight[: 2 * len(filters)] = torch.cat([filters, -filters]).float()


class Group(nn.Module):
    """Two convolutions. The first is followed by a pooling, which halves the sides."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = convolution(inputs, outputs), convolution(outputs, outputs)
        self.norms = nn.ModuleList([norm(outputs), norm(outputs)])

    def forward(self, features: Tensor) -> Tensor:
        features = self.first(features)
        if min(features.shape[2:]) > 1:
            features = F.max_pool2d(features, 2)
        features = F.gelu(self.norms[0](features))
        return F.gelu(self.norms[1](self.second(features)))


@torch.no_grad()
def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that begins near the identity: random weights plus those of the identity.

    With the identity alone, on images that are mostly black, such as MNIST's, some channels
    would be nearly constant after a few layers, and their batch norm would make gradients of 10^4.
    """
    layer = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    identity = torch.empty_like(layer.weight[:inputs])
    layer.weight[:inputs] += nn.init.dirac_(identity)
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm that learns an offset, and no scale."""
    layer = nn.BatchNorm2d(channels, momentum=MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer
