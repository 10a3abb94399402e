"""What goes with each estimator."""

import pytest

from riemannopt_dist.estimators.base import refusal, suited_placement
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.paths.table import Straight
from riemannopt_dist.run.grid import by_profile


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_placement_that_suits_an_estimator_goes_with_it(name: str) -> None:
    estimator, path = ESTIMATORS[name], Straight("noise", draws=3)
    placement = suited_placement(estimator)
    assert refusal(estimator, path, placement, 16) is None
    assert by_profile(placement) or name == "mean"  # which has equal intervals alone


def test_some_estimators_are_suited_by_another_placement_than_most() -> None:
    suited = {name: suited_placement(estimator) for name, estimator in ESTIMATORS.items()}
    others = {name: placement for name, placement in suited.items() if placement != "exact"}
    assert others == {"rescale": "roughness", "gauss_legendre": "equidistribution", "mean": "linear"}
