"""The true error: by hand, against SciPy's ranks, and against exact maps of a piecewise-linear network."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from riemannopt_dist.estimators.converged import Reference, converge, converge_walk
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.methods import guided_ig, integrated_gradients
from riemannopt_dist.metrics.reference import REFERENCE, average_ranks, compare, reference_columns
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.placement.equidistribution import density_partitions
from riemannopt_dist.quadrature.rules import linear_partition, linear_schedule
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.testing.problems import PROFILES
from riemannopt_dist.testing.stripes import stripes, trained_relu_net


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """Exact maps (8, 1, 8, 8) of the trained network's logits."""
    return exact_integrated_gradients(trained_relu_net(), *stripes(8, seed=2)).maps


def trained_reference(intervals: int) -> Reference:
    images, labels = stripes(8, seed=2)
    path = StraightPath.from_black(images)
    return converge(
        Objective(trained_relu_net(), labels, output="logit", internal_batch_size=512), path, intervals
    )


def pixels(*values: float) -> Tensor:
    """A map of one channel and one row, (1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float64)[None, None, None]


def test_figures_by_hand() -> None:
    found = compare(pixels(1, 2, 4, 3), pixels(1, 2, 3, 4))
    assert found.error.item() == 2 / 10
    assert found.cosine.item() == pytest.approx(29 / 30, rel=1e-14)
    assert found.rank_correlation.item() == pytest.approx(1 - 6 * 2 / (4 * 15), rel=1e-14)


def test_features_are_compared_one_by_one_and_ranks_by_pixel() -> None:
    # Two channels whose errors cancel in every pixel: the map is wrong, its channel sums are right.
    reference = torch.tensor([[1.0, 2.0], [2.0, 3.0]])[None, :, None]
    found = compare(reference + torch.tensor([1.0, -1.0])[None, :, None, None], reference)
    assert found.error.item() == 4 / 8
    assert found.cosine.item() == pytest.approx(1, rel=1e-14)
    assert found.rank_correlation.item() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize(("factor", "error", "sign"), [(1.0, 0.0, 1), (3.0, 2.0, 1), (-1.0, 2.0, -1)])
def test_multiples_of_a_map_have_its_ranks_and_direction(
    exact: Tensor, factor: float, error: float, sign: int
) -> None:
    found = compare(factor * exact, exact)
    one = torch.ones(8, dtype=torch.float64)
    torch.testing.assert_close(found.error, error * one, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.cosine, sign * one, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.rank_correlation, sign * one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ranks_are_scipys_with_and_without_ties(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    maps = torch.randint(-levels, levels, (2, 3, 1, 7, 9), generator=generator).double()
    ranks = average_ranks(maps[0].flatten(1)).numpy()
    np.testing.assert_array_equal(ranks, rankdata(maps[0].flatten(1).numpy(), axis=1))
    found = compare(maps[0], maps[1]).rank_correlation
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(*maps, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_several_maps_of_an_image_are_each_compared_alone(exact: Tensor) -> None:
    noise = torch.randn(3, *exact.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = exact + 0.01 * noise
    together = dataclasses.asdict(compare(maps, exact))
    for row, one in enumerate(maps):
        for name, values in dataclasses.asdict(compare(one, exact)).items():
            assert together[name].shape == (3, 8)
            torch.testing.assert_close(together[name][row], values, rtol=1e-12, atol=0)


def test_where_a_figure_is_not_defined_it_is_nan() -> None:
    rising, zero, level = pixels(1, 2, 3), pixels(0, 0, 0), pixels(2, 2, 2)
    figures = {
        name: [values.item() for values in dataclasses.astuple(compare(a, b))]
        for name, (a, b) in {
            "zero reference": (rising, zero),
            "zero both": (zero, zero),
            "zero map": (zero, rising),
            "level reference": (rising, level),
        }.items()
    }
    cosine = 12 / math.sqrt(14 * 12)
    np.testing.assert_allclose(figures["zero reference"], [math.nan] * 3)
    np.testing.assert_allclose(figures["zero both"], [math.nan] * 3)
    np.testing.assert_allclose(figures["zero map"], [1, math.nan, math.nan])
    np.testing.assert_allclose(figures["level reference"], [2 / 6, cosine, math.nan], rtol=1e-14)


def test_small_attributions_have_a_direction_too() -> None:
    found = compare(pixels(1e-200, 2e-200), pixels(2e-200, 1e-200))
    assert found.cosine.item() == pytest.approx(4 / 5, rel=1e-14)
    assert found.error.item() == pytest.approx(2 / 3, rel=1e-14)


def test_a_reference_converges_to_the_exact_map(exact: Tensor) -> None:
    found = compare(trained_reference(2048).maps, exact)
    assert found.error.max() < 1e-3
    assert found.cosine.min() > 1 - 1e-6
    assert found.rank_correlation.min() > 1 - 1e-3


def test_the_residual_shrinks_with_the_intervals_and_tells_the_error(exact: Tensor) -> None:
    references = [trained_reference(intervals) for intervals in (64, 256, 1024)]
    residuals = torch.stack([reference.residual for reference in references])
    errors = torch.stack([compare(reference.maps, exact).error for reference in references])
    # The network has its training's rounding: an image's residual falls by 4 only in the mean.
    assert (residuals[1:] < residuals[:-1]).all()
    assert (residuals.mean(1)[1:] < residuals.mean(1)[:-1] / 2).all()
    assert (residuals > errors / 2).all()
    assert (residuals < errors * 4).all()


def test_on_a_smooth_network_the_error_is_a_third_of_the_residual(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    reference = converge(Objective(smooth_net, targets), StraightPath.from_black(images), 64)
    truth = integrated_gradients(smooth_net, images, targets, linear_schedule(32, "gauss_legendre"))
    error = compare(reference.maps, truth.maps).error
    torch.testing.assert_close(reference.residual / error, torch.full_like(error, 3), rtol=0.02, atol=0)


def late(count: int) -> Array:
    return density_partitions(PROFILES["late"], "trapezoid", [count])[0]


@pytest.mark.parametrize("partition", [linear_partition, late])
def test_both_sums_are_those_of_their_partitions_for_the_gradients_of_one(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, partition: Callable[[int], Array]
) -> None:
    sizes: list[int] = []
    handle = smooth_net.register_forward_hook(lambda _, arguments, __: sizes.append(len(arguments[0])))
    path = StraightPath.from_black(images)
    fine = converge(Objective(smooth_net, targets), path, 16, partition=partition)
    handle.remove()
    assert sum(sizes) == 3 * 17
    assert fine.gradient_evaluations.tolist() == [17, 17, 17]
    coarse = converge(Objective(smooth_net, targets), path, 8, partition=lambda _: partition(16)[::2])
    torch.testing.assert_close(fine.residual, compare(coarse.maps, fine.maps).error, rtol=1e-10, atol=0)


def test_columns_are_those_declared_and_nan_without_a_reference(exact: Tensor) -> None:
    reference = trained_reference(64)
    columns = reference_columns(torch.stack([exact, exact]), [reference, None])
    assert list(columns) == [column.name for column in REFERENCE.columns]
    expected = compare(exact, reference.maps)
    for name, values in (
        ("reference_error", expected.error),
        ("reference_cosine", expected.cosine),
        ("reference_rank", expected.rank_correlation),
        ("reference_residual", reference.residual),
    ):
        torch.testing.assert_close(columns[name][0], values, rtol=0, atol=0)
        assert columns[name][1].isnan().all()
    assert {column for summary in REFERENCE.summaries for column in summary.columns} <= columns.keys()


def test_bad_arguments_are_refused_by_name(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    path = StraightPath.from_black(images)
    for intervals in (0, 1, 7):
        with pytest.raises(ValueError, match=f"intervals: expected an even number .* got {intervals}"):
            converge(Objective(smooth_net, targets), path, intervals)
    with pytest.raises(ValueError, match="partition: expected 5 edges, got 4"):
        converge(Objective(smooth_net, targets), path, 4, partition=lambda count: linear_partition(count - 1))
    with pytest.raises(ValueError, match=r"maps: .* NaN or infinity for image\(s\) \[0, 1, 2\]"):
        compare(images * math.nan, images)
    with pytest.raises(ValueError, match=r"reference: .* NaN or infinity in image\(s\) \[0, 1, 2\]"):
        compare(images, images / 0)
    with pytest.raises(ValueError, match="maps: expected the images' shape"):
        compare(images[:2], images)


class Squares(nn.Module):
    """Logits (Σ c_i x_i² / 2, 0), whose gradient c_i x_i is linear along every straight piece."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        factors = torch.linspace(-1, 2, flat.shape[1], dtype=flat.dtype)
        score = (factors * flat**2).sum(1) / 2
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def test_the_walks_reference_is_exact_on_a_quadratic() -> None:
    """The trapezoid is exact on each piece of the walk: c_i x_i² / 2 in all."""
    images = torch.rand(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    path = GuidedPath(StraightPath.from_black(images))
    objective = Objective(Squares().eval(), torch.zeros(3, dtype=torch.int64), output="logit")
    found = converge_walk(path, objective, linear_partition(5), pieces=14)
    factors = torch.linspace(-1, 2, 32, dtype=torch.float64)
    torch.testing.assert_close(found.maps.flatten(1), factors * images.flatten(1) ** 2 / 2)
    assert found.residual.max() < 1e-12
    assert found.gradient_evaluations.tolist() == [5 * 14 + 1] * 3


def test_the_walks_reference_converges_along_the_corners_that_the_schedule_found(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    path = StraightPath.from_black(images)
    objective = Objective(smooth_net, targets, output="logit")
    maps = guided_ig(smooth_net, images, targets, linear_schedule(7, "trapezoid"), output="logit").maps
    fine, finer = (
        converge_walk(GuidedPath(path), objective, linear_partition(6), pieces=n) for n in (10, 100)
    )
    assert compare(fine.maps, finer.maps).error.max() < 1e-3
    assert finer.residual.max() < 1e-4
    # Each step's trapezoid errs, its move does not: what is left of the error is quadrature's alone.
    assert compare(maps, finer.maps).error.max() < 0.2
    assert compare(maps, finer.maps).error.min() > 1e-4
    straight = converge(Objective(smooth_net, targets, output="logit"), path, 600)
    assert compare(finer.maps, straight.maps).error.min() > 0.02  # another path, another integral
