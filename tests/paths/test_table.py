"""What families say that they cost, against what they take."""

import pytest
from torch import Tensor, nn

from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.table import PATHS
from riemannopt_dist.quadrature.profile import equispaced
from riemannopt_dist.quadrature.variation import path_variation


@pytest.mark.parametrize("name", PATHS)
def test_a_profile_costs_what_its_family_says(
    smooth_net: nn.Module, images: Tensor, targets: Tensor, name: str
) -> None:
    taken: list[int] = []
    handle = smooth_net.register_forward_hook(lambda _, arguments, __: taken.append(len(arguments[0])))
    family = PATHS[name]()
    path_variation(family.through(images), Objective(smooth_net, targets), equispaced(9))
    handle.remove()
    assert sum(taken) == len(images) * family.profile_gradients(9)
