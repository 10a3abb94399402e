"""What the operations of a model were given at the samples of a path, so that mean slopes can be taken.

A mean slope belongs to two samples, and the second may come from another pass through the model. So each
operation's inputs are kept until the backward pass, where they meet those of the neighbouring sample.

In a pass of one sample all of a tensor is that sample's. In one of several each sample has an equal share of
the first axis, one after the other: a row, or a row for each of its windows, heads or tokens.
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

Rule = Callable[..., Tensor]
"""Takes the recording and an operation's arguments; gives its value, with the gradients of mean slopes."""


class Tape:
    """What a model's operations were given, at the samples of one forward pass or of several.

    A sample's neighbour is the next one of its pass, or of the next pass where passes are of one sample, and
    the last has none, unless `join` says otherwise.
    """

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._operations: list[Operation] = []
        self._neighbours: Sequence[int] | None = None

    def begin(self, rows: int) -> int:
        """The number of a new pass, of so many samples."""
        self._rows.append(rows)
        return len(self._rows) - 1

    def join(self, neighbours: Sequence[int]) -> None:
        """Say each sample's neighbour, itself if it has none; samples are counted through all passes."""
        self._neighbours = neighbours

    def record(self, index: int, number: int, name: str, inputs: list[Tensor]) -> "Operation":
        """Keep what operation `index` of pass `number` is given; the list may get copies of it later."""
        if number == 0:
            self._operations.append(Operation(self, name))
        if index >= len(self._operations) or self._operations[index].name != name:
            raise ValueError(f"model: its operation {name} is not among those of other samples")
        self._operations[index].inputs.append(inputs)
        return self._operations[index]

    def neighbours(self, inputs: Sequence[Sequence[Tensor]], number: int) -> tuple[int, Ends]:
        """How many of a pass's first samples have neighbours; and an operation's inputs at these."""
        rows = self._rows[number]
        if self._neighbours is None and rows > 1:
            return rows - 1, tuple(x[len(x) // rows :] for x in inputs[number])
        if self._neighbours is None:
            return (1, tuple(inputs[number + 1])) if number + 1 < len(inputs) else (0, ())
        start = sum(self._rows[:number])
        places = self._neighbours[start : start + rows]
        return rows, tuple(self._samples(parts, places) for parts in zip(*inputs, strict=True))

    def _samples(self, parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
        """Samples' shares of all passes' tensors; copied once, in the layout that they have."""
        shares = [
            share
            for part, rows in zip(parts, self._rows, strict=True)
            for share in (part.chunk(rows) if rows > 1 else [part])
        ]
        return torch.cat([shares[place] for place in places]) if len(places) > 1 else shares[places[0]]


class Operation:
    """One operation of the model, and what it was given in each pass."""

    def __init__(self, tape: Tape, name: str) -> None:
        self.name = name
        self.inputs: list[list[Tensor]] = []
        self._tape = tape
        self._used = 0

    def ends(self, number: int) -> tuple[int, Ends, Ends]:
        """How many of a pass's samples have neighbours, what it was given at these, and at all samples.

        That is let go once all passes have gone back through the operation.
        """
        inputs = self.inputs
        self._used += 1
        if self._used == len(inputs):
            self.inputs = []
        return *self._tape.neighbours(inputs, number), tuple(inputs[number])


class Recording:
    """One pass of `rows` samples through a model: its operations, in order, noted on the tape."""

    def __init__(self, rows: int, tape: Tape) -> None:
        self.rows = rows
        self._tape = tape
        self._number = tape.begin(rows)
        self._index = 0
        self._by_memory: dict[int, list[list[Tensor]]] = {}

    def operation(self, name: str, value: Tensor, mean_vjp: MeanVJP, *inputs: Tensor) -> Tensor:
        """The value of an operation on `inputs`, with the gradients of `mean_vjp`.

        `value` is a tensor of its own, which nothing else holds. Raises ValueError where a tensor's first
        axis has no equal share for each sample.
        """
        for x in (*inputs, value):
            self._check_rows(name, x)
        noted = [x.detach() for x in inputs]
        for x in noted:
            self._by_memory.setdefault(memory(x), []).append(noted)
        operation = self._tape.record(self._index, self._number, name, noted)
        self._index += 1
        result: Tensor = _MeanJacobian.apply(
            operation, (self._number, self.rows), mean_vjp, _Box(value), *inputs
        )
        return result

    def _check_rows(self, name: str, x: Tensor) -> None:
        if self.rows > 1 and (x.ndim == 0 or len(x) % self.rows):
            raise ValueError(
                f"model: its operation {name} has a tensor of shape {tuple(x.shape)}, "
                f"expected rows for each of {self.rows} samples, one sample after the other"
            )

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
    """A value with gradients by an operation's mean Jacobian: zero for samples without a neighbour."""

    @staticmethod
    def forward(
        ctx: Any, operation: Operation, place: tuple[int, int], mean_vjp: MeanVJP, box: _Box, *inputs: Tensor
    ) -> Tensor:
        ctx.operation, ctx.place, ctx.mean_vjp = operation, place, mean_vjp
        return box.value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        number, rows = ctx.place
        count, after, inputs = ctx.operation.ends(number)
        if count == 0:
            return None, None, None, None, *(torch.zeros_like(x) for x in inputs)
        gradients = tuple(torch.empty_like(x) for x in inputs)
        if count < rows:
            for part in gradients:
                part[len(part) // rows * count :] = 0
        before, slots = (tuple(_first(x, count, rows) for x in each) for each in (inputs, gradients))
        ctx.mean_vjp(before, after, _first(grad, count, rows), slots)
        return None, None, None, None, *gradients


def _first(x: Tensor, count: int, rows: int) -> Tensor:
    """The shares of the first `count` samples of `rows`."""
    return x if count == rows else x[: len(x) // rows * count]


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
