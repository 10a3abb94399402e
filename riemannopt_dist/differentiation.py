"""Gradients wherever they are asked for: under torch.no_grad() and torch.inference_mode() as elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def recording() -> Iterator[None]:
    """Let autograd record what is computed within, whatever was told it outside."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def constant(values: Tensor) -> Tensor:
    """The values as autograd takes them, while `recording`: a copy of what inference mode has made."""
    return values.clone() if values.is_inference() else values.detach()


def leaf_of(values: Tensor) -> Tensor:
    """The values as a leaf that gradients can be asked of, and no part of a graph, which theirs may be."""
    return constant(values).requires_grad_()


def copy_of(model: Model) -> Model:
    """A copy of a model that has gradients."""
    with recording():
        return deepcopy(model)
