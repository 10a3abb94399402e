"""Makes metrics.npz: scores of maps by Quantus 0.6 and the filling in of pixels by pytorch-grad-cam 1.5.

python -m venv /tmp/others && /tmp/others/bin/pip install "quantus==0.6.0" "grad-cam==1.5.7" torch
/tmp/others/bin/python tests/golden/make_metrics_golden.py

The file keeps a small network's parameters, images and maps, and the sets of pixels and classes by chance.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import quantus
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from quantus.functions.similarity_func import correlation_spearman
from torch import nn

FILE = Path(__file__).with_name("metrics.npz")
SIDE, CLASSES = 12, 5
SETS, SIZES = 10, (2, 40)
SEED = 7
QUIET = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}


class Doubled(nn.Sequential):
    """Computes in float64 what Quantus gives in float32."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.double())


def small_network() -> nn.Module:
    torch.manual_seed(3)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten())
    network = Doubled(*layers, nn.Linear(400, CLASSES)).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network


def gradients(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
    """A map: image times gradient of the logit, summed over channels."""
    images = torch.as_tensor(inputs).double().requires_grad_()
    logits = model(images)[torch.arange(len(images)), torch.as_tensor(targets).long()]
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    return (gradient * images).detach().numpy()


def faithfulness(arrays: dict[str, np.ndarray], examples: dict[str, Any]) -> None:
    """Correlations for sets of pixels that are drawn here."""
    for size in SIZES:
        rng = np.random.default_rng(size)
        sets = [rng.permutation(SIDE * SIDE)[:size] for _ in range(SETS)]
        left = iter([one for one in sets for _ in examples["x_batch"]])  # the same for all images

        def given(*_: Any, left: Any = left, **__: Any) -> np.ndarray:
            return next(left)

        metric = quantus.FaithfulnessCorrelation(
            nr_runs=SETS, subset_size=size, perturb_baseline=0.0, return_aggregate=False, **QUIET
        )
        arrays[f"sets_{size}"] = np.stack(sets)
        arrays[f"faithfulness_{size}"] = np.array(with_choice(given, lambda m=metric: m(**examples)))


def with_choice(given: Callable, work: Callable) -> Any:
    before, np.random.choice = np.random.choice, given
    try:
        return work()
    finally:
        np.random.choice = before


def filled(arrays: dict[str, np.ndarray]) -> None:
    """A tenth, a half and nine tenths of each image's pixels, without noise, by both packages."""
    order = np.argsort(-np.abs(arrays["maps"].reshape(len(arrays["maps"]), -1)), axis=1, kind="stable")
    for step in (1, 5, 9):
        count = SIDE * SIDE * step // 10
        results = []
        for image, indices in zip(arrays["colours"], order[:, :count], strict=True):
            ours = quantus.functions.perturb_func.noisy_linear_imputation(image, indices, noise=0.0)
            mask = np.ones(SIDE * SIDE)
            mask[indices] = 0
            imputer = NoisyLinearImputer(noise=0.0)
            theirs = imputer(torch.from_numpy(image).float(), torch.from_numpy(mask).view(SIDE, SIDE))
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
            results.append(ours)
        arrays[f"filled_{step}"] = np.stack(results)


def randomised(arrays: dict[str, np.ndarray], examples: dict[str, Any]) -> None:
    """Layers randomised from the top, all from one stream of chance instead of the same seed for each."""
    metric = quantus.MPRT(
        similarity_func=correlation_spearman,
        skip_layers=False,
        return_average_correlation=False,
        return_last_correlation=False,
        **QUIET,
    )
    torch.manual_seed(SEED)
    before, torch.manual_seed = torch.manual_seed, lambda *_, **__: None
    try:
        scores = metric(**examples, explain_func=gradients)
    finally:
        torch.manual_seed = before
    names = [name for name in scores if name != "original"]
    arrays["randomised_layers"] = np.array(names)
    arrays["randomised"] = np.stack([scores[name] for name in names])


def of_other_classes(arrays: dict[str, np.ndarray], examples: dict[str, Any]) -> None:
    others: list[np.ndarray] = []

    def noted(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        others.append(np.asarray(targets))
        return gradients(model, inputs, targets)

    metric = quantus.RandomLogit(
        similarity_func=correlation_spearman, num_classes=CLASSES, seed=SEED, **QUIET
    )
    arrays["other_logit"] = np.array(metric(**examples, explain_func=noted))
    arrays["others"] = others[-1]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    network = small_network()
    rng = np.random.default_rng(1)
    images = rng.random((3, 1, SIDE, SIDE)).astype(np.float32).astype(np.float64)
    targets = np.array([0, 3, 2])
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    maps = gradients(network, images, targets)
    arrays |= {"images": images, "targets": targets, "maps": maps, "colours": rng.random((3, 3, SIDE, SIDE))}
    examples = {
        "model": network,
        "x_batch": images,
        "y_batch": targets,
        "a_batch": maps.copy(),
        "device": "cpu",
    }
    faithfulness(arrays, examples)
    filled(arrays)
    metric = quantus.Sparseness(**(QUIET | {"abs": True}))
    arrays["sparseness"] = np.array(metric(**examples | {"a_batch": maps.copy()}))
    randomised(arrays, examples)
    of_other_classes(arrays, examples)
    np.savez_compressed(FILE, **arrays)
