"""TF32 and bfloat16 without hardware for them: convolutions of float32 values rounded to fewer bits."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

FORWARD, BACKWARD = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default
GROUPS = {FORWARD: 8, BACKWARD: 9}
"""Which argument of an operation is the number of its groups."""
DROPPED = {"tf32": 13, "bfloat16": 16}
"""Bits of a float32's mantissa that a format lacks."""


class RoundedConvolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it float32 convolutions, and the gradients of them, take values rounded to `format`.

    Their sums are float32, as on a tensor core; what comes out of it in bfloat16 is rounded again. Where
    `grouped` is false, those of several groups, such as depthwise ones, stay float32.
    """

    def __init__(self, format: Literal["tf32", "bfloat16"], *, grouped: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dropped, self._grouped, self._results = DROPPED[format], grouped, format == "bfloat16"

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        if operation not in GROUPS or not (self._grouped or arguments[GROUPS[operation]] == 1):
            return operation(*arguments, **(options or {}))
        result = operation(*map(self._rounded, arguments), **(options or {}))
        if not self._results:
            return result
        return tuple(map(self._rounded, result)) if isinstance(result, tuple) else self._rounded(result)

    def _rounded(self, value: Any) -> Any:
        return rounded(value, self._dropped) if isinstance(value, Tensor) else value


def rounded(values: Tensor, dropped: int) -> Tensor:
    """Float32 values without the last `dropped` bits of their mantissa, ties away from zero; others stay."""
    if values.dtype != torch.float32:
        return values
    bits = values.contiguous().view(torch.int32)
    result = ((bits + (1 << (dropped - 1))) >> dropped << dropped).view(torch.float32)
    return torch.where(values.isfinite(), result, values)
