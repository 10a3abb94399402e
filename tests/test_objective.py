"""The explained output and its gradient: the same as autograd by hand, and as central differences."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riemannopt_dist.objective import (
    OUTPUTS,
    Objective,
    Output,
    explained_output,
    micro_batches,
    sample_path,
)
from riemannopt_dist.paths.straight import StraightPath


@pytest.mark.parametrize("output", OUTPUTS)
def test_value_and_gradient_are_those_of_autograd_by_hand(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, output: Output
) -> None:
    values, gradients = Objective(smooth_net, targets, output=output).gradients(images)
    for row, target in enumerate(targets):
        image = images[row : row + 1].clone().requires_grad_()
        logits = smooth_net(image)
        score = logits.softmax(1)[0, target] if output == "probability" else logits[0, target]
        score.backward(inputs=[image])
        torch.testing.assert_close(values[row], score.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients[row : row + 1], image.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_gradient_equals_central_differences(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, output: Output
) -> None:
    step = 1e-5
    _, gradients = Objective(smooth_net, targets[:1], output=output).gradients(images[:1])
    steps = step * torch.eye(images[0].numel(), dtype=torch.float64).view(-1, *images.shape[1:])
    same = targets[:1].expand(len(steps))
    above, below = (
        Objective(smooth_net, same, output=output).values(images[:1] + sign * steps) for sign in (1, -1)
    )
    torch.testing.assert_close((above - below) / (2 * step), gradients.flatten(), rtol=1e-6, atol=1e-9)


def test_the_gradient_of_a_probability_is_that_of_the_logits_through_softmax(
    smooth_net: nn.Module, images: Tensor, targets: Tensor
) -> None:
    # ∂p_c = p_c (∂z_c − Σ_j p_j ∂z_j)
    probabilities, gradients = Objective(smooth_net, targets).gradients(images)
    with torch.no_grad():
        shares = smooth_net(images).softmax(1)
    logit_gradients = torch.stack(
        [
            Objective(smooth_net, torch.full_like(targets, label), output="logit").gradients(images)[1]
            for label in range(shares.shape[1])
        ],
        dim=1,
    )
    rows = torch.arange(len(targets))
    mean = torch.einsum("bj,bj...->b...", shares, logit_gradients)
    expected = probabilities.view(-1, 1, 1, 1) * (logit_gradients[rows, targets] - mean)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-13)


def test_explained_output_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]], dtype=torch.float64)
    classes = torch.tensor([1, 0])
    torch.testing.assert_close(
        explained_output(logits, classes), torch.tensor([0.5, 0.75], dtype=torch.float64)
    )
    torch.testing.assert_close(
        explained_output(logits, classes, "logit"), torch.tensor([0.0, np.log(3.0)], dtype=torch.float64)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 32])
def test_micro_batches_change_nothing(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, size: int
) -> None:
    whole = Objective(smooth_net, targets).gradients(images)
    parts = Objective(smooth_net, targets, internal_batch_size=size).gradients(images)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-15)
    values = Objective(smooth_net, targets, internal_batch_size=size).values(images)
    torch.testing.assert_close(values, whole[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("items", "size"), [(1, 1), (7, 3), (6, 3), (2, 32)])
def test_micro_batches_cover_everything_once_in_full_slices(items: int, size: int) -> None:
    parts = list(micro_batches(items, size))
    assert [i for part in parts for i in range(items)[part]] == list(range(items))
    assert all(part.stop - part.start == size for part in parts[:-1])


@pytest.mark.parametrize("trainable", [True, False])
def test_parameters_and_images_are_left_alone(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, trainable: bool
) -> None:
    network = copy.deepcopy(smooth_net).requires_grad_(trainable)
    inputs = images.clone().requires_grad_(trainable)
    values, gradients = Objective(network, targets).gradients(inputs)
    Objective(network, targets).values(inputs)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad is trainable for parameter in network.parameters())
    assert inputs.grad is None
    assert not values.requires_grad
    assert not gradients.requires_grad
    torch.testing.assert_close(inputs.detach(), images, rtol=0, atol=0)


def test_gradients_are_found_under_no_grad(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with torch.no_grad():
        found = Objective(smooth_net, targets).gradients(images)
    expected = Objective(smooth_net, targets).gradients(images)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_samples_of_a_path_come_image_by_image_each_with_its_own_position(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, size: int
) -> None:
    alphas = np.sort(np.random.default_rng(0).random((3, 4)), axis=1)
    path = StraightPath(images, images.flip(0))
    batches = list(sample_path(Objective(smooth_net, targets, internal_batch_size=size), path, alphas))
    assert [len(batch.rows) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    visited = [pair for batch in batches for pair in zip(batch.rows, batch.columns, strict=True)]
    assert visited == [(row, column) for row in range(3) for column in range(4)]
    for batch in batches:
        for place, (row, column) in enumerate(zip(batch.rows, batch.columns, strict=True)):
            image, baseline, alpha = images[row], images[2 - row], alphas[row, column]
            point = baseline + alpha * (image - baseline)
            value, gradient = Objective(smooth_net, targets[row : row + 1]).gradients(point[None])
            torch.testing.assert_close(batch.values[place], value[0], rtol=1e-12, atol=0)
            torch.testing.assert_close(
                batch.integrand[place], gradient[0] * (image - baseline), rtol=1e-10, atol=1e-14
            )


def test_bad_arguments_are_refused_by_name(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    with pytest.raises(ValueError, match="output: expected one of probability, logit, got 'loss'"):
        Objective(smooth_net, targets, output="loss").gradients(images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"internal_batch_size: .* got 0"):
        Objective(smooth_net, targets, internal_batch_size=0).gradients(images)
    with pytest.raises(ValueError, match=r"internal_batch_size: .* got 2.5"):
        Objective(smooth_net, targets, internal_batch_size=2.5).values(images)  # type: ignore[arg-type]
