"""Sums of several kinds from one pass along a path."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.idgi import IdgiSums
from riemannopt_dist.estimators.passes import sums_along
from riemannopt_dist.estimators.riemann import RiemannSums
from riemannopt_dist.estimators.softmax_trapezoid import SoftmaxTrapezoidSums
from riemannopt_dist.objective import Objective
from riemannopt_dist.paths.base import Path
from riemannopt_dist.paths.guided import GuidedPath
from riemannopt_dist.quadrature.schedule import Schedule


def integrate(
    model: nn.Module,
    path: Path | GuidedPath,
    targets: Tensor,
    schedules: Sequence[Schedule] = (),
    *,
    idgi: Sequence[Schedule] = (),
    softmax: Sequence[Schedule] = (),
    **settings: Any,
) -> list[Attribution]:
    """Riemann sums, IDGI and the softmax-weighted trapezoid, an Attribution for each schedule, in order."""
    kinds = ((RiemannSums, schedules), (IdgiSums, idgi), (SoftmaxTrapezoidSums, softmax))
    requests = [(kind, schedule) for kind, members in kinds for schedule in members]
    return sums_along(path, Objective(model, targets, **settings), requests)
