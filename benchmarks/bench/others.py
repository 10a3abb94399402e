"""The same work as others do it: a loop over images and samples, captum, and PAIR's `saliency`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """∂p/∂x (B, C, H, W) of the targets' probabilities, as plainly as torch has it."""
    inputs = images.detach().requires_grad_()
    chosen = model(inputs).softmax(1).gather(1, targets[:, None]).sum()
    (result,) = torch.autograd.grad(chosen, inputs)
    return result


def loop(model: nn.Module, images: Tensor, targets: Tensor, samples: int) -> Tensor:
    """Integrated Gradients by the left rule, an image and a sample at a time."""
    maps = torch.zeros_like(images)
    for row in range(len(images)):
        image, target = images[row : row + 1], targets[row : row + 1]
        for k in range(samples):
            maps[row] += (gradient(model, k / samples * image, target) * image / samples)[0]
    return maps


def captum(
    model: nn.Module, images: Tensor, targets: Tensor, samples: int, batch: int | None, method: str
) -> Tensor:
    """captum's Integrated Gradients of the probability; `batch` gradients at once, or all.

    With the gap of completeness, as ours always tells it.
    """
    method_of = IntegratedGradients(lambda inputs: model(inputs).softmax(1))
    maps, _ = method_of.attribute(
        images,
        target=targets,
        n_steps=samples,
        method=method,
        internal_batch_size=batch,
        return_convergence_delta=True,
    )
    result: Tensor = maps.detach()
    return result


class Pair:
    """PAIR's methods, an image at a time, as it takes them, with the plain gradient of a batch.

    Raises ImportError where `saliency` is not installed.
    """

    def __init__(self, model: nn.Module, batch: int) -> None:
        import saliency.core

        self._pair, self._model, self._batch = saliency.core, model, batch

    def blur_ig(self, images: Tensor, targets: Tensor, steps: int) -> Tensor:
        """Blur IG (Xu et al., 2020)."""
        return self._maps(self._pair.BlurIG(), images, targets, steps=steps)

    def guided_ig(self, images: Tensor, targets: Tensor, steps: int) -> Tensor:
        """Guided IG (Kapishnikov et al., 2021)."""
        black = np.zeros(tuple(images[0].movedim(0, 2).shape), dtype=np.float32)
        return self._maps(
            self._pair.GuidedIG(), images, targets, x_baseline=black, x_steps=steps, batch=False
        )

    def _maps(
        self, method: Any, images: Tensor, targets: Tensor, batch: bool = True, **options: Any
    ) -> Tensor:
        options |= {"batch_size": self._batch} if batch else {}
        maps = [
            method.GetMask(image.movedim(0, 2).cpu().numpy(), self._gradients(target), None, **options)
            for image, target in zip(images, targets, strict=True)
        ]
        return torch.from_numpy(np.stack(maps)).movedim(3, 1).to(images)

    def _gradients(self, target: Tensor) -> Callable[..., dict[str, Any]]:
        device = target.device

        def call(inputs: Any, call_model_args: object = None, expected_keys: object = None) -> dict[str, Any]:
            batch = torch.from_numpy(np.asarray(inputs, dtype=np.float32)).movedim(3, 1).to(device)
            found = gradient(self._model, batch, target.expand(len(batch)))
            return {self._pair.INPUT_OUTPUT_GRADIENTS: found.movedim(1, 3).cpu().numpy()}

        return call
