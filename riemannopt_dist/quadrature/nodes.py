"""The Gauss-Legendre points on a device, where every micro-batch can use them without a copy."""

from functools import lru_cache

import torch
from torch import Tensor

from riemannopt_dist.quadrature.rules import gauss_legendre


@lru_cache(maxsize=16)
def gauss_legendre_on(samples: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The points and weights on [0, 1], (samples,) each, which nobody may write to."""
    nodes, weights = (torch.tensor(values, device=device, dtype=dtype) for values in gauss_legendre(samples))
    return nodes, weights
