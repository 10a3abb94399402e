"""While a model runs, torch's functions are differentiated by the rules of mean slopes.

Operations that are linear in each sample, such as convolutions, keep their gradients; what has neither a rule
nor is linear is refused by name, and so is what would escape the rules.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from riemannopt_dist.rescale.operations import (
    AS_FIRST,
    BY_WEIGHTS,
    COMPOSITE,
    LINEAR,
    body_of,
    makes_new,
    operation_of,
    tensors_in,
)
from riemannopt_dist.rescale.rules import RULES
from riemannopt_dist.rescale.tape import Recording, Rule, Tape, overwritten


class RescaleMode(TorchFunctionMode):
    """While it is active, torch's functions are differentiated by mean slopes between a pass's samples.

    A sample's gradient passes through an operation as by the mean of its Jacobian on the straight line from
    the operation's inputs there to those at its neighbour on the `tape`; without one it is zero. Values stay
    as they are, but for rounding. No gradient may be asked of the model's parameters.

    Raises ValueError, naming the operation: for one that is not known; where a tensor's first axis cannot be
    shared out evenly among the batch's `rows` samples; and for one that takes, or writes to, what depends
    on the sample without a gradient (a comparison, a detached tensor), since slopes say nothing of that.
    """

    def __init__(self, rows: int, tape: Tape | None = None) -> None:
        super().__init__()
        self._recording = Recording(rows, Tape() if tape is None else tape)
        self._cut: dict[int, Tensor] = {}  # by id: what depends on the sample, without a gradient

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name, writes = operation_of(func)
        if name in COMPOSITE:
            with self:
                return body_of(func)(*args, **kwargs)
        args = (*args, *(kwargs.pop(key) for key in ("input", "other") if key in kwargs))
        followed = [x for x in tensors_in((args, kwargs)) if x.requires_grad]
        cut = any(id(x) in self._cut for x in tensors_in((args, kwargs)))
        if not (followed or cut):
            return func(*args, **kwargs)
        writes = (kwargs.pop("inplace", False) if name in RULES else kwargs.get("inplace", False)) or writes
        if writes:
            self._check_target(name, args[0])
        rule = RULES.get(name) if followed else None
        if rule is not None and not cut:
            result = self._by_rule(name, rule, writes, args, kwargs)
            self._note_cut([x for x in tensors_in(result) if not x.is_floating_point()])  # such as indices
            return result
        if writes:
            self._recording.spare(args[0])
        result = _run(name, func, args, kwargs)
        self._check_result(name, args[0] if writes else result, followed, cut)
        if _depends_on_values(name, args, followed, self._cut):
            self._note_cut(result)
        return result

    def _note_cut(self, result: Any) -> None:
        self._cut |= {id(x): x for x in tensors_in(result) if not x.requires_grad}

    def _by_rule(
        self, name: str, rule: Rule, writes: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The operation's value by its rule, in the first argument's memory if it writes there."""
        try:
            if not writes:
                return rule(self._recording, *args, **kwargs)
            result = rule(self._recording, args[0].clone(), *args[1:], **kwargs)
        except TypeError as error:
            raise ValueError(
                f"model: the Rescale rule is not known for its operation {name} with such arguments ({error})"
            ) from error
        self._recording.spare(args[0])
        return _run(name, overwritten, (args[0], result), {})

    def _check_target(self, name: str, target: Tensor) -> None:
        """Raise ValueError for writing where no gradient follows."""
        if id(target) in self._cut or (target.requires_grad and not torch.is_grad_enabled()):
            raise ValueError(f"model: its operation {name} writes to a tensor without its gradient")

    def _check_result(self, name: str, result: Any, followed: list[Tensor], cut: bool) -> None:
        """Raise ValueError if a result with gradients is not linear in what they are asked of."""
        if not any(x.requires_grad for x in tensors_in(result)):
            return
        if cut:
            raise ValueError(
                f"model: its operation {name} takes what depends on the image without a gradient, such as a "
                "comparison or a detached tensor: mean slopes are not known for that"
            )
        if name not in LINEAR or (name in BY_WEIGHTS and len(followed) > 1):
            raise ValueError(f"model: the Rescale rule is not known for its operation {name}")


def _depends_on_values(
    name: str, args: tuple[Any, ...], followed: list[Tensor], cut: dict[int, Tensor]
) -> bool:
    """Whether an operation's results depend on the sample, not on its shape or type alone."""
    if makes_new(name):
        return False
    return name not in AS_FIRST or args[0].requires_grad or id(args[0]) in cut


def _run(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The function's value, or its refusal of an in-place operation in the words of a model's author."""
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "in-place" not in str(error) and "inplace" not in str(error):
            raise
        reason = str(error).strip().split("\n", 1)[0]
        raise ValueError(f"model: its operation {name} cannot be differentiated: {reason}") from error
