"""Rounded convolutions: ten or seven bits in, float32 sums, and nothing else touched."""

import pytest
import torch
from torch import nn

from riemannopt_dist.testing.rounding import RoundedConvolutions, rounded


@pytest.mark.parametrize(
    ("dropped", "value", "expected"),
    [
        (13, 1 + 2**-10, 1 + 2**-10),  # the last of ten bits
        (13, 1 + 2**-11, 1 + 2**-10),  # half of it: away from zero
        (13, -1 - 2**-11, -1 - 2**-10),
        (13, 1 + 2**-12, 1.0),
        (16, 1 + 2**-7, 1 + 2**-7),
        (16, 1 + 2**-9, 1.0),
        (13, 2 - 2**-12, 2.0),  # into the exponent
        (13, 3.0e38, 3.0e38),
        (13, float("inf"), float("inf")),
    ],
)
def test_bits_are_dropped(dropped: int, value: float, expected: float) -> None:
    assert float(rounded(torch.tensor(value), dropped)) == pytest.approx(
        expected, rel=2**-11 * (value > 1e38)
    )


def test_bfloat16_is_torchs_but_for_ties() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rounded(values, 16), values.bfloat16().float())
    wide = values.double()
    assert rounded(wide, 16) is wide


def test_convolutions_and_their_gradients_take_rounded_values() -> None:
    """A product of one weight and one pixel, by hand; a depthwise one stays float32 where it is to."""
    fine = 1 + 2**-11
    for grouped, groups, factor in ((True, 1, 1 + 2**-10), (False, 1, 1 + 2**-10), (False, 2, fine)):
        convolution = nn.Conv2d(2, 2, 1, groups=groups, bias=False)
        nn.init.constant_(convolution.weight, fine)
        pixel = torch.tensor([fine, 0.0]).view(1, 2, 1, 1).requires_grad_()
        with RoundedConvolutions("tf32", grouped=grouped):
            (result,) = torch.autograd.grad(convolution(pixel)[0, 0].sum(), pixel, retain_graph=True)
            value = convolution(pixel)[0, 0, 0, 0]
        assert float(value.detach()) == pytest.approx(factor**2, rel=1e-7)
        assert float(result[0, 0, 0, 0]) == pytest.approx(factor, rel=1e-7)
