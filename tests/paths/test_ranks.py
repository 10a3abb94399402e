"""Values by their rank: those of the sorted rows, whatever repeats in them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from riemannopt_dist.paths.ranks import SAMPLED, ranked, selected


@given(
    values=arrays(
        np.float32,
        st.integers(1, 3000),
        elements=st.sampled_from([0.0, 1e-3, 0.5, 2.0, np.inf, np.nan]) | st.floats(0, 1, width=32),
        fill=st.floats(0, 1, width=32),
    ),
    share=st.floats(0, 1),
)
def test_a_value_of_a_rank_is_that_of_the_sorted_ones(values: np.ndarray, share: float) -> None:
    """Whatever is equal, infinite or no number."""
    rank = round(share * (len(values) - 1))
    np.testing.assert_array_equal(selected(values, rank), np.sort(values)[rank])


@pytest.mark.parametrize("rank", [0, 1, 37_631, 75_000, 149_999])
def test_a_rank_among_many(rank: int) -> None:
    """Also where a sample tells nothing of it: here every sampled value is 0 and no other one is."""
    values = np.random.default_rng(0).random(150_000, np.float32) + 1
    assert selected(values, rank) == np.sort(values)[rank]
    values[::SAMPLED] = 0
    assert selected(values, rank) == np.sort(values)[rank]


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 32, 224])
def test_few_values_are_sorted_whatever_they_repeat_with(
    stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gradients do with the strides of a network's layers, and with the rows of an image."""
    scales = np.random.default_rng(1).random(stride) ** 2
    values = np.random.default_rng(0).random(150_528) * np.resize(scales, 150_528)
    sorted_at_once: list[int] = []
    partition = np.partition
    monkeypatch.setattr(np, "partition", lambda a, kth: sorted_at_once.append(len(a)) or partition(a, kth))
    ranks = (10_000, 37_632, 75_264, 112_896)
    assert [selected(values, rank) for rank in ranks] == [np.sort(values)[rank] for rank in ranks]
    assert max(sorted_at_once) < 0.1 * len(values)


def test_each_row_has_its_rank() -> None:
    values = torch.rand(3, 500, generator=torch.Generator().manual_seed(0))
    ranks = torch.tensor([[0], [250], [499]])
    torch.testing.assert_close(ranked(values)(ranks), values.sort(1).values.gather(1, ranks), rtol=0, atol=0)
