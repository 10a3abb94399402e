"""Control maps, by cases known beforehand."""

import numpy as np
import torch
from scipy.ndimage import sobel

from riemannopt_dist.metrics.controls import LUMA, edge_map, random_map


def test_noise_depends_on_the_image_alone() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    together = random_map(images)
    assert torch.equal(random_map(images[1:2]), together[1:2])
    assert not torch.equal(together[0], together[1])
    assert abs(float(random_map(torch.rand(1, 3, 100, 100)).std()) - 1) < 0.02


def test_edges_are_scipys_sobel_of_the_brightness() -> None:
    images = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for image, found in zip(images.numpy(), edge_map(images), strict=True):
        brightness = np.tensordot(LUMA, image, axes=1)
        expected = np.hypot(sobel(brightness, 0, mode="nearest"), sobel(brightness, 1, mode="nearest"))
        np.testing.assert_allclose(found.sum(0), expected, rtol=1e-6, atol=1e-7)


def test_a_flat_image_has_no_edges() -> None:
    assert edge_map(torch.full((1, 3, 5, 5), 0.4)).max() < 1e-6
