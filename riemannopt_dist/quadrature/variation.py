"""How fast the integrand changes along a path, image by image: what a profile is made of."""

from itertools import pairwise

import numpy as np
import torch

from riemannopt_dist.objective import Objective, sample_path
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.draws import Draws
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.precision import sum_type
from riemannopt_dist.quadrature.schedule import Array


def path_variation(path: Path | GuidedPath | Draws, objective: Objective, alphas: Array) -> Array:
    """Mean over features of |g(α_{i+1}) − g(α_i)| / (α_{i+1} − α_i) for each image, (B, k − 1).

    `alphas` are k positions. Memory is that of one micro-batch: of the samples already seen only the last is
    kept.

    Along a guided walk, which the positions from 0 to 1 themselves lead, the integrand at α is
    ∂f/∂γ · dγ/dα with the step's mean speed, move / Δα, for dγ/dα. The last interval has no step after it to
    compare with and repeats the value before; ValueError for fewer than three positions.

    Of several draws of a baseline it is the mean over them.
    """
    if isinstance(path, Draws):
        return np.asarray(np.mean([path_variation(one, objective, alphas) for one in path.members], axis=0))
    if isinstance(path, GuidedPath):
        return _walk_variation(path, objective, alphas)
    objective.check(path.images)
    images = len(objective.targets)
    changes = torch.zeros((images, len(alphas)), dtype=torch.float64, device=path.images.device)
    positions = np.broadcast_to(alphas, (images, len(alphas)))
    last = torch.zeros_like(path.images[:1], dtype=sum_type(path.images.dtype))
    for samples in sample_path(objective, path, positions):
        integrand = samples.integrand
        previous = torch.cat([last, integrand[:-1]])
        changes[samples.index] = (integrand - previous).abs().flatten(1).mean(1).double()
        last = integrand[-1:]
    # Column 0 compares with another image's last sample, and is dropped.
    return np.asarray(changes[:, 1:].cpu().numpy() / np.diff(alphas))


def _walk_variation(path: GuidedPath, objective: Objective, alphas: Array) -> Array:
    if len(alphas) < 3:
        raise ValueError(f"samples: expected at least 3, for two steps to compare, got {len(alphas)}")
    steps = path.steps(objective, alphas)
    widths = np.diff(alphas)
    # The widths first: once they are used up, no further step is asked for.
    integrands = (step.gradients * step.move / width for width, step in zip(widths, steps, strict=False))
    changes = [(b - a).abs().flatten(1).mean(1) for a, b in pairwise(integrands)]
    variation = torch.stack(changes, dim=1).cpu().numpy() / widths[:-1]
    return np.concatenate([variation, variation[:, -1:]], axis=1)
