"""Infidelity against captum's, and where it is known by hand."""

import pytest
import torch
from captum.metrics import infidelity as captums
from torch import Tensor, nn

from riemannopt_dist.metrics.infidelity import INFIDELITY, SQUARES, infidelity, squares
from riemannopt_dist.metrics.metric import MapBatch
from riemannopt_dist.objective import Objective


def test_it_is_captums_on_the_same_squares(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    maps = torch.randn(2, *images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = torch.zeros(2, len(images), dtype=torch.float64)
    for row, one in enumerate(maps):
        for removed in squares(images, 3):
            expected[row] += captums(
                lambda x: smooth_net(x).softmax(1),
                lambda x, removed=removed: (removed.expand_as(x).to(x), x * ~removed),
                images,
                one,
                target=targets,
                n_perturb_samples=1,
            )
    found = infidelity(Objective(smooth_net, targets), images, maps, seed=3)
    torch.testing.assert_close(found, expected / SQUARES, rtol=1e-9, atol=1e-15)
    alone = infidelity(
        Objective(smooth_net, targets[1:2], internal_batch_size=1), images[1:2], maps[0, 1:2], seed=3
    )
    torch.testing.assert_close(alone, found[0, 1:2], rtol=1e-9, atol=1e-15)


def test_a_linear_model_is_foretold_by_its_attribution_and_zeros_foretell_nothing(
    linear_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    attributions = linear_net[1].weight[targets].view_as(images).detach() * images
    maps = torch.stack([attributions, torch.zeros_like(images)])
    exact, nothing = infidelity(Objective(linear_net, targets, output="logit"), images, maps, seed=7)
    assert exact.max() < 1e-25
    parts = (attributions * squares(images, 7)).sum((2, 3, 4))
    torch.testing.assert_close(nothing, parts.square().mean(0), rtol=1e-9, atol=0)


def test_squares_are_squares_of_many_sizes_and_places() -> None:
    picture = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    masks = torch.cat([squares(picture, seed) for seed in range(100)])[:, 0, 0]
    rows, columns = masks.any(2).sum(1), masks.any(1).sum(1)
    assert torch.equal(rows, columns)
    assert torch.equal(masks.sum((1, 2)), rows * columns)
    assert set(rows.tolist()) == set(range(1, 7))
    assert masks.any(0).all()
    assert torch.equal(squares(torch.cat([picture.flip(3), picture]), 5)[:, 1:], squares(picture, 5))


def test_the_metric_writes_its_column_and_costs_what_it_says(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    passes: list[int] = []
    f = Objective(smooth_net, targets).values(images)
    batch = MapBatch(
        Objective(smooth_net, targets), images, images[None], f_input=f, f_baseline=f[None], seed=1
    )
    handle = smooth_net.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    columns = INFIDELITY.compute(batch)
    handle.remove()
    assert sum(passes) == INFIDELITY.passes_a_start * len(images)
    torch.testing.assert_close(
        columns["infidelity"], infidelity(Objective(smooth_net, targets), images, images[None], seed=1)
    )
    with pytest.raises(ValueError, match="maps"):
        infidelity(Objective(smooth_net, targets), images, images[:, :1])
