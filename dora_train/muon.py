"""Muon for the hidden matrices and filters of a network, beside SGD for all else.

Keller Jordan: Muon, an optimizer for hidden layers in neural networks
(kellerjordan.github.io/posts/muon). torch.optim.Muon takes the same steps, but it takes neither
filters nor other parameters.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

# Newton-Schulz, from the page above: five steps of a x + b x x' x + c (x x')^2 x.
STEPS, A, B, C = 5, 3.4445, -4.7750, 2.0315


class Muon(torch.optim.SGD):
    """Steps of a matrix are orthogonal: its momentum with all singular values set to about 1.

    A filter [out, in, height, width] counts as a matrix [out, in * height * width]. The last matrix
    of the network gives the outputs. It is trained by SGD, as are vectors: biases and norms.

    Args:
        lr: of SGD.
        matrix_lr: of the matrices. One that is taller than wide has it times sqrt(height / width).
        momentum: Nesterov's, of both.
        weight_decay: of both, times the learning rate.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float,
        matrix_lr: float,
        momentum: float,
        weight_decay: float,
    ):
        matrices: list[Parameter] = []
        rest: list[Parameter] = []
        for parameter in parameters:
            kind = matrices if parameter.ndim > 1 else rest
            kind.append(parameter)
        rest += matrices[-1:]  # the outputs
        del matrices[-1:]
        # SGD adds no momentum to what `step` has made of theirs
        own = {"lr": matrix_lr, "momentum": 0, "nesterov": False, "muon": momentum}
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": matrices, **own}]
        super().__init__(
            groups, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[-1]
        for parameter in group["params"]:
            if parameter.grad is not None:
                moved = self._momentum(parameter, group["muon"]).flatten(1)
                update = orthogonal(moved) * tall(moved)
                parameter.grad.copy_(update.view_as(parameter))
        super().step()
        return loss

    def _momentum(self, parameter: Parameter, decay: float) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        state["momentum_buffer"].lerp_(parameter.grad, 1 - decay)
        return parameter.grad.lerp(state["momentum_buffer"], decay)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors, and singular values of about 1 (0.7 to 1.2).

    It is computed in bfloat16, as on the page above.

    Args:
        matrix: [height, width]. The result has its dtype.
    """
    is_tall = len(matrix) > len(matrix.T)
    x = matrix.bfloat16()
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        product = x @ x.T
        change = torch.addmm(product, product, product, beta=B, alpha=C)
        x = torch.addmm(x, change, x, beta=A)
    if is_tall:
        x = x.T
    return x.to(matrix.dtype)


def tall(matrix: Tensor) -> float:
    """The factor on the learning rate of a matrix, by its shape."""
    height, width = matrix.shape
    return max(1.0, height / width) ** 0.5
