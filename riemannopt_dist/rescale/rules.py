"""How each operation passes gradients back by its mean slopes, the Rescale rule of DeepLIFT.

Between two samples on a path a network's gradient changes wherever an activation passes its kink, and its
derivative at either sample knows nothing of it. But the inputs of each activation are known at both samples,
and so is the mean of its derivative on the straight line between them: the slope of the secant. Between a
baseline and the input it is what DeepLIFT's Rescale rule takes (Shrikumar et al., ICML 2017).

A product of two tensors takes the mean of the other factor, which is exact. Attention, maxima and
normalisations are made of these; only a softmax, which mixes what it is given, has a rule of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from riemannopt_dist.rescale.attention import attention
from riemannopt_dist.rescale.elementwise import cube, reciprocal, rsqrt, smooth, sqrt, square
from riemannopt_dist.rescale.max_pool import max_pool2d
from riemannopt_dist.rescale.maxima import amax, amin, maximum, maximum_or_largest, minimum
from riemannopt_dist.rescale.normalisation import group_norm, layer_norm, norm, rms_norm, vector_norm
from riemannopt_dist.rescale.products import (
    add_multiple,
    add_product,
    divide,
    einsum,
    matmul,
    multiply,
    with_values,
)
from riemannopt_dist.rescale.ramp import ramp, relu
from riemannopt_dist.rescale.softmax import log_softmax, softmax
from riemannopt_dist.rescale.tape import Recording, Rule


def _divide_by(recording: Recording, b: Tensor, a: Any) -> Tensor:
    return divide(recording, a, b)


def _relu6(recording: Recording, x: Tensor) -> Tensor:
    return ramp(recording, x, 0.0, 6.0)


def _hardtanh(recording: Recording, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return ramp(recording, x, min_val, max_val)


def _clamp(recording: Recording, x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    return ramp(recording, x, -torch.inf if min is None else min, torch.inf if max is None else max)


def _leaky_relu(recording: Recording, x: Tensor, negative_slope: float = 0.01) -> Tensor:
    sloped = negative_slope * x + (1 - negative_slope) * relu(recording, x)
    return with_values(sloped, functional.leaky_relu(x, negative_slope))


def _hardsigmoid(recording: Recording, x: Tensor) -> Tensor:
    return ramp(recording, x + 3, 0.0, 6.0) / 6


def _hardswish(recording: Recording, x: Tensor) -> Tensor:
    return with_values(multiply(recording, x, _hardsigmoid(recording, x)), functional.hardswish(x))


def _abs(recording: Recording, x: Tensor) -> Tensor:
    return with_values(2 * relu(recording, x) - x, x.abs())


def _prelu(recording: Recording, x: Tensor, weight: Tensor) -> Tensor:
    over_channels = weight.view(1, -1, *[1] * (x.ndim - 2)) if weight.numel() > 1 else weight
    sloped = over_channels * x + (1 - over_channels) * relu(recording, x)
    return with_values(sloped, functional.prelu(x, weight))


_POWERS: Mapping[float, Rule] = {2: square, 3: cube, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}


def _pow(recording: Recording, x: Tensor, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor) or exponent not in _POWERS:
        powers = ", ".join(f"{power:g}" for power in _POWERS)
        raise ValueError(f"model: the Rescale rule is not known for its operation pow but with {powers}")
    return _POWERS[exponent](recording, x)


RULES: Mapping[str, Rule] = {
    "abs": _abs,
    "addcmul": add_multiple,
    "bmm": matmul,
    "amax": amax,
    "amin": amin,
    "baddbmm": add_product,
    "celu": smooth(functional.celu),
    "clamp": _clamp,
    "clamp_max": lambda recording, x, max: _clamp(recording, x, None, max),
    "clamp_min": _clamp,
    "clip": _clamp,
    "div": divide,
    "divide": divide,
    "einsum": einsum,
    "elu": smooth(functional.elu),
    "erf": smooth(torch.erf),
    "exp": smooth(torch.exp),
    "gelu": smooth(functional.gelu),
    "group_norm": group_norm,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "hardtanh": _hardtanh,
    "layer_norm": layer_norm,
    "leaky_relu": _leaky_relu,
    "linalg_vector_norm": vector_norm,
    "log_softmax": log_softmax,
    "matmul": matmul,
    "max": maximum_or_largest,
    "max_pool2d": max_pool2d,
    "maximum": maximum,
    "minimum": minimum,
    "mish": smooth(functional.mish),
    "mm": matmul,
    "mul": multiply,
    "multiply": multiply,
    "norm": norm,
    "pow": _pow,
    "prelu": _prelu,
    "reciprocal": reciprocal,
    "relu": relu,
    "relu6": _relu6,
    "rdiv": _divide_by,
    "rmatmul": lambda recording, a, b: matmul(recording, b, a),
    "rms_norm": rms_norm,
    "rsqrt": rsqrt,
    "rtruediv": _divide_by,
    "scaled_dot_product_attention": attention,
    "selu": smooth(functional.selu),
    "sigmoid": smooth(torch.sigmoid),
    "silu": smooth(functional.silu),
    "softmax": softmax,
    "softplus": smooth(functional.softplus),
    "sqrt": sqrt,
    "square": square,
    "tanh": smooth(torch.tanh),
    "true_divide": divide,
    "truediv": divide,
}
"""The rules by operation (operations.py). Those that are linear need none; others are refused."""
