"""Figures for notebooks."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import riemannopt_dist as ro


def drawn(figure: object) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_a_map_is_shown_in_the_colours_of_for_and_against(smooth_net: nn.Module, targets: Tensor) -> None:
    images = torch.full((3, 3, 6, 6), 0.5, dtype=torch.float64)
    result = ro.integrated_gradients(smooth_net, images, targets, ro.linear_schedule(4, "trapezoid"))
    result.maps.fill_(0.01)
    supporting = drawn(ro.show(images, result, ["a", "b", "c"])).astype(int)
    result.maps.fill_(-0.01)
    opposing = drawn(ro.show(images, result)).astype(int)
    differing = np.abs(supporting - opposing).sum(-1) > 60
    orange, purple = (picture[differing].mean(0) for picture in (supporting, opposing))
    assert orange[0] > orange[2] + 30  # red above blue
    assert purple[2] > purple[1] + 15  # blue above green


def test_what_does_not_fit_is_named(smooth_net: nn.Module, images: Tensor, targets: Tensor) -> None:
    result = ro.integrated_gradients(smooth_net, images, targets, ro.linear_schedule(2))
    with pytest.raises(ValueError, match="names: expected 3, a name an image, got 1"):
        ro.show(images, result, ["a"])
    with pytest.raises(ValueError, match="maps: expected the images' shape"):
        ro.show(images[:2], result)
