"""The slopes of a ramp, x between two bounds, between two samples."""

import math

import torch
from torch import Tensor


def slope_products(
    before: Tensor, after: Tensor, grad: Tensor, result: Tensor, low: float, high: float
) -> None:
    """The gradient times the slope between both ends, in so many passes; all tensors are of one shape."""
    torch.mul(grad, slopes(before, after, low, high), out=result)


def slopes(before: Tensor, after: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """The slopes of a ramp between two ends.

    The end is moved by 2 ε of itself, no more than rounding has moved it: so equal ends have the derivative
    there. What is 0 / 0 all the same, as for two zeros, counts as rising.
    """
    end = torch.add(after, after, alpha=2 * torch.finfo(after.dtype).eps)
    step = end - before
    return end.clamp_(low, high).sub_(before.clamp(low, high)).div_(step).nan_to_num_(1.0)
