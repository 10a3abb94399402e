"""Sums of secants: exact with one hidden layer, DeepLIFT's Rescale rule in one interval, and their limit."""

import copy
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
from riemannopt_dist.estimators.converged import converge
from riemannopt_dist.estimators.exact_line import exact_integrated_gradients
from riemannopt_dist.estimators.rescale import (
    check_rescale,
    mean_output_slopes,
    rescale_attribution,
    samples_taken,
    secants,
)
from riemannopt_dist.metrics.reference import compare
from riemannopt_dist.models.classifier import Classifier
from riemannopt_dist.objective import Objective, Output
from riemannopt_dist.paths.blur import BlurPath
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
from riemannopt_dist.testing.stripes import stripes, trained_relu_net
from tests.networks import ONE_LAYER, TWO_LAYERS

EVEN = Profile((0.25, 0.75), (1.0, 1.0), (0.0, 0.0), 2, roughness=(1.0, 1.0))
UNEVEN = schedule_from_partition((0.0, 0.05, 0.2, 0.55, 0.6, 1.0), "right")


def test_one_hidden_layer_is_exact_in_one_interval(images: Tensor) -> None:
    """Its activations move straight along a straight path, and nothing comes after them."""
    classes = torch.tensor([2, 0, 1])
    found = rescale_attribution(
        Objective(ONE_LAYER, classes, output="logit"), StraightPath.from_black(images), linear_schedule(1)
    )
    exact = exact_integrated_gradients(ONE_LAYER, images, classes)
    torch.testing.assert_close(found.maps, exact.maps, rtol=0, atol=1e-12)
    assert found.gradient_evaluations.tolist() == [1, 1, 1]


@pytest.mark.filterwarnings("ignore:Setting forward:UserWarning")
def test_one_interval_is_the_rescale_rule(images: Tensor) -> None:
    classes = torch.tensor([2, 0, 1])
    found = rescale_attribution(
        Objective(TWO_LAYERS, classes, output="logit"), StraightPath.from_black(images), linear_schedule(1)
    )
    expected = DeepLift(TWO_LAYERS, eps=1e-12).attribute(images.clone().requires_grad_(), target=classes)
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("kind", [StraightPath.from_black, partial(BlurPath, sigma_max=3.0)])
def test_sums_are_the_change_of_the_output(images: Tensor, kind: type, output: Output) -> None:
    classes, path = torch.tensor([2, 0, 1]), kind(images)
    found = rescale_attribution(Objective(TWO_LAYERS, classes, output=output), path, UNEVEN)
    start, _ = path.at(torch.arange(3), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(found.f_input, Objective(TWO_LAYERS, classes, output=output).values(images))
    torch.testing.assert_close(found.f_baseline, Objective(TWO_LAYERS, classes, output=output).values(start))
    change = found.f_input - found.f_baseline
    torch.testing.assert_close(found.maps.flatten(1).sum(1), change, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_micro_batches_change_nothing(images: Tensor, size: int) -> None:
    classes, path = torch.tensor([2, 0, 1]), StraightPath.from_black(images)
    whole = rescale_attribution(Objective(TWO_LAYERS, classes), path, UNEVEN)
    parts = rescale_attribution(Objective(TWO_LAYERS, classes, internal_batch_size=size), path, UNEVEN)
    torch.testing.assert_close(parts.maps, whole.maps, rtol=0, atol=1e-12)
    alone = [
        rescale_attribution(
            Objective(TWO_LAYERS, one[None]), StraightPath.from_black(image[None]), UNEVEN
        ).maps
        for image, one in zip(images, classes, strict=True)
    ]
    torch.testing.assert_close(torch.cat(alone), whole.maps, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("intervals", "size", "batches"), [(16, 16, [17]), (16, 8, [9, 9]), (5, 3, [4, 3]), (2, 1, [2, 2])]
)
def test_a_micro_batch_is_intervals_and_one_sample_more(
    images: Tensor, intervals: int, size: int, batches: list[int]
) -> None:
    """The last end needs no batch of its own, and `samples_taken` is what goes through the model."""
    objective = Objective(TWO_LAYERS, torch.tensor([2]), internal_batch_size=size)
    edges = np.linspace(0.0, 1.0, intervals + 1)
    parts = secants(objective, StraightPath.from_black(images[:1]), edges)
    assert [len(part.values) for part in parts] == batches
    assert samples_taken(intervals, size) == sum(batches)


@given(
    size=st.integers(1, 40),
    count=st.integers(1, 12),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    adaptive=st.booleans(),
)
def test_maps_depend_on_no_micro_batch(size: int, count: int, dtype: torch.dtype, adaptive: bool) -> None:
    """Sums are of float32 at least: in any data type maps are those of one batch, up to its rounding."""
    images = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    path, model = StraightPath.from_black(images), copy.deepcopy(TWO_LAYERS).to(dtype)
    classes = torch.tensor([2, 0, 1])
    objectives = [Objective(model, classes, internal_batch_size=each) for each in (1000, size)]
    if adaptive:
        whole, parts = (adaptive_rescale_attribution(each, path, EVEN, count + 1) for each in objectives)
    else:
        whole, parts = (rescale_attribution(each, path, linear_schedule(count)) for each in objectives)
    assert whole.maps.dtype == torch.promote_types(dtype, torch.float32)
    distance = (parts.maps - whole.maps).abs().flatten(1).sum(1)
    assert bool((distance <= 4 * torch.finfo(dtype).eps * whole.maps.abs().flatten(1).sum(1)).all())


@pytest.mark.parametrize("count", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_wrong_slopes_are_refused_whatever_the_count(images: Tensor, count: int, output: Output) -> None:
    """Of the same model one interval and many are refused alike, and of small probabilities."""

    class Gated(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            y = TWO_LAYERS[0](images)
            return 20 * TWO_LAYERS[-1](Gate.apply(y).flatten(1)) - torch.tensor([0.0, 12.0, 0.0])

    path = StraightPath.from_black(images[:1])
    with pytest.raises(ValueError, match="are off by"):
        rescale_attribution(
            Objective(Gated(), torch.tensor([1]), output=output), path, linear_schedule(count)
        )
    if count > 1:
        with pytest.raises(ValueError, match="are off by"):
            adaptive_rescale_attribution(
                Objective(Gated(), torch.tensor([1]), output=output), path, EVEN, count
            )


class Gate(torch.autograd.Function):
    """x · sigmoid(x), with the gate taken for a constant."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0].sigmoid()


def test_a_model_may_write_to_its_input(images: Tensor) -> None:
    class Centring(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            images.sub_(0.5)
            images[:, :1].mul_(2).clamp_(-0.5, 0.5)
            return TWO_LAYERS(images)

    class Copying(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return Centring()(images.clone())

    classes, before = torch.tensor([2, 0, 1]), images.clone()
    maps = [
        rescale_attribution(Objective(model, classes), StraightPath.from_black(images), UNEVEN).maps
        for model in (Centring(), Copying())
    ]
    assert torch.equal(images, before)
    torch.testing.assert_close(*maps, rtol=0, atol=1e-12)


def test_maps_converge_to_the_integral_faster_than_samples() -> None:
    """A trained network with pooling: twice the intervals more than halve the errors of the maps."""
    pictures, labels = stripes(12, seed=3)
    path = StraightPath.from_black(pictures)
    exact = exact_integrated_gradients(trained_relu_net(), pictures, labels)
    errors = []
    for count in (4, 8, 16, 32):
        found = rescale_attribution(
            Objective(trained_relu_net(), labels, output="logit"), path, linear_schedule(count)
        )
        errors.append(float(compare(found.maps, exact.maps).error.mean()))
    sampled = converge(Objective(trained_relu_net(), labels, output="logit"), path, 32)
    assert errors[-1] < float(compare(sampled.maps, exact.maps).error.mean()) / 4
    assert all(fine < coarse / 2 for coarse, fine in pairwise(errors))


def test_the_softmax_is_averaged_exactly() -> None:
    """p moves by Σ slope × step, over steps from none to one of 80 log-odds."""
    rows = [[0.0, 1.0, -1.0], [0.0, 1.0, -1.0], [3.0, 0.0, 0.5], [-20.0, 20.0, 0.0], [20.0, -20.0, 0.0]]
    logits = torch.tensor(rows).double()
    classes = torch.tensor([1, 0, 1, 0])
    slopes = mean_output_slopes(logits[:-1], logits[1:], classes, "probability")
    changes = logits.softmax(1).diff(dim=0).gather(1, classes[:, None]).squeeze(1)
    torch.testing.assert_close((slopes * logits.diff(dim=0)).sum(1), changes, rtol=0, atol=1e-6)


class Hidden(torch.autograd.Function):
    """A square that torch's functions do not show."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return 2 * ctx.saved_tensors[0] * grad


class Squared(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return Hidden.apply(images).flatten(1)[:, :3]


def test_what_is_hidden_from_the_rule_is_an_error(images: Tensor) -> None:
    path = StraightPath.from_black(images)
    with pytest.raises(ValueError, match="are off by"):
        rescale_attribution(
            Objective(Squared(), torch.tensor([0, 1, 2]), output="logit"), path, linear_schedule(2)
        )


def test_a_network_that_secants_cannot_take_is_refused_at_once() -> None:
    """The model of a run is tried on noise before anything is done."""

    def classifier(network: nn.Module) -> Classifier:
        sizes = {"input_size": 6, "resize_size": 6, "classes": 3}
        return Classifier(network, name="small", mean=(0.0,) * 3, std=(1.0,) * 3, **sizes)

    check_rescale(classifier(copy.deepcopy(TWO_LAYERS).float()))
    with pytest.raises(ValueError, match="are off by"):
        check_rescale(classifier(Squared()))
    with pytest.raises(ValueError, match="operation sin"):
        check_rescale(classifier(nn.Sequential(nn.Flatten(), Sine(), nn.Linear(108, 3))))


class Sine(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.sin(images)


def test_weights_that_are_being_trained_are_constants(images: Tensor) -> None:
    layers = nn.Sequential(nn.GroupNorm(3, 3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    trained = layers.double().eval()
    path, classes = StraightPath.from_black(images), torch.tensor([2, 0, 1])
    found = rescale_attribution(Objective(trained, classes), path, UNEVEN)
    change = found.f_input - found.f_baseline
    torch.testing.assert_close(found.maps.flatten(1).sum(1), change, rtol=0, atol=1e-10)
    assert not found.maps.requires_grad


def test_a_rule_without_a_partition_is_an_error(images: Tensor) -> None:
    with pytest.raises(ValueError, match="left, right or trapezoid"):
        rescale_attribution(
            Objective(TWO_LAYERS, torch.tensor([0, 1, 2])),
            StraightPath.from_black(images),
            linear_schedule(4, "midpoint"),
        )


def test_a_photo_is_nearer_to_its_integral_than_with_samples(
    classifier: nn.Module, photos: Tensor, predictions: Tensor
) -> None:
    """The real network: 16 evaluations at equal intervals, against a converged map."""
    path = StraightPath.from_black(avg_pool2d(photos[:1], 2))
    reference = converge(Objective(classifier, predictions[:1]), path, 96).maps
    secants = rescale_attribution(Objective(classifier, predictions[:1]), path, linear_schedule(16)).maps
    samples = converge(Objective(classifier, predictions[:1]), path, 16).maps
    errors = [compare(maps, reference).error.numpy() for maps in (secants, samples)]
    assert np.all(errors[0] < 0.7 * errors[1])
