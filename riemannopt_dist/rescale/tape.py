"""What the operations of a model were given at the samples of a path, so that mean slopes can be taken.

A mean slope belongs to two samples, and the second may come from another pass through the model. So each
operation's inputs are kept until the backward pass, where they meet those of the neighbouring sample.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Ends = tuple[Tensor, ...]
"""An operation's inputs at some samples."""

MeanVJP = Callable[[Ends, Ends, Tensor, Ends], None]
"""Takes an operation's inputs at samples and at their neighbours, and a gradient with respect to its values;
writes the gradients with respect to its inputs, by the mean Jacobian between the two, into the last."""


class Tape:
    """What a model's operations were given, at the samples of one forward pass or of several.

    A sample's neighbour is the next one of its pass, and the last has none, unless `join` says otherwise.
    """

    def __init__(self) -> None:
        self._passes = 0
        self._operations: list[Operation] = []
        self._neighbours: Sequence[Sequence[int]] | None = None

    def begin(self) -> int:
        """The number of a new pass."""
        self._passes += 1
        return self._passes - 1

    def join(self, neighbours: Sequence[Sequence[int]]) -> None:
        """For each pass: its samples' neighbours, counted through all passes' samples in turn.

        A sample without one is its own.
        """
        self._neighbours = neighbours

    def record(self, index: int, number: int, name: str, inputs: list[Tensor]) -> "Operation":
        """Keep what operation `index` of pass `number` is given; the list may get copies of it later."""
        if number == 0:
            self._operations.append(Operation(self, name))
        if index >= len(self._operations) or self._operations[index].name != name:
            raise ValueError(f"model: its operation {name} is not among those of other samples")
        self._operations[index].inputs.append(inputs)
        return self._operations[index]

    def neighbours(self, inputs: Sequence[Sequence[Tensor]], number: int) -> Ends:
        """What an operation was given at the neighbours of a pass's samples (or of all but the last)."""
        if self._neighbours is None:
            return tuple(x[1:] for x in inputs[number])
        return tuple(_rows(parts, self._neighbours[number]) for parts in zip(*inputs, strict=True))


def _rows(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Rows of several tensors, counted through all; copied once, in the layout that they have."""
    rows = [row for part in parts for row in torch.split(part, 1)]
    return torch.cat([rows[place] for place in places])


class Operation:
    """One operation of the model, and what it was given in each pass."""

    def __init__(self, tape: Tape, name: str) -> None:
        self.name = name
        self.inputs: list[list[Tensor]] = []
        self._tape = tape
        self._used = 0

    def ends(self, number: int) -> tuple[Ends, Ends]:
        """What it was given at a pass's samples, and at their neighbours.

        That is let go once all passes have gone back through the operation.
        """
        inputs = self.inputs
        self._used += 1
        if self._used == len(inputs):
            self.inputs = []
        return tuple(inputs[number]), self._tape.neighbours(inputs, number)


class Recording:
    """One pass of `rows` samples through a model: its operations, in order, noted on the tape."""

    def __init__(self, rows: int, tape: Tape) -> None:
        self.rows = rows
        self._tape = tape
        self._number = tape.begin()
        self._index = 0
        self._by_memory: dict[int, list[list[Tensor]]] = {}

    def operation(self, name: str, value: Tensor, mean_vjp: MeanVJP, *inputs: Tensor) -> Tensor:
        """The value of an operation on `inputs`, with the gradients of `mean_vjp`.

        `value` is a tensor of its own, which nothing else holds.
        """
        noted = [x.detach() for x in inputs]
        for x in noted:
            self._by_memory.setdefault(memory(x), []).append(noted)
        operation = self._tape.record(self._index, self._number, name, noted)
        self._index += 1
        result: Tensor = _MeanJacobian.apply(operation, self._number, mean_vjp, _Box(value), *inputs)
        return result

    def spare(self, written: Tensor) -> None:
        """Copy what operations were given of a tensor's memory, before it is written to."""
        for noted in self._by_memory.pop(memory(written), []):
            noted[:] = [x.clone() if memory(x) == memory(written) else x for x in noted]


def memory(x: Tensor) -> int:
    """Which memory a tensor is in, the same for all views of it."""
    return x.untyped_storage().data_ptr()


class _Box:
    """A tensor that autograd does not see.

    It would return an input of a function as a view, and views of a custom function cannot be written to.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.clone() if value._is_view() else value


class _MeanJacobian(torch.autograd.Function):
    """A value with gradients by an operation's mean Jacobian: zero for rows without a neighbour."""

    @staticmethod
    def forward(
        ctx: Any, operation: Operation, number: int, mean_vjp: MeanVJP, box: _Box, *inputs: Tensor
    ) -> Tensor:
        ctx.operation, ctx.number, ctx.mean_vjp = operation, number, mean_vjp
        return box.value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        before, after = ctx.operation.ends(ctx.number)
        gradients = tuple(torch.empty_like(x) for x in before)
        count = len(after[0])
        for part in gradients:
            part[count:] = 0
        before, slots = (tuple(x[:count] for x in of_all) for of_all in (before, gradients))
        ctx.mean_vjp(before, after, grad[:count], slots)
        return None, None, None, None, *gradients


def overwritten(target: Tensor, values: Tensor) -> Tensor:
    """`target` with other values in it, and with their gradients: its own end there.

    (`copy_` would add zeros to them.) Raises RuntimeError where autograd cannot follow the writing.
    """
    result: Tensor = _Overwritten.apply(target, values)
    return result


class _Overwritten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, values: Tensor) -> Tensor:
        ctx.mark_dirty(target)
        ctx.is_part = target._is_view()
        return target.copy_(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        # Of a part of a tensor autograd replaces the gradient by this one, and keeps the rest's only if it is
        # there.
        return torch.zeros_like(grad) if ctx.is_part else None, grad
