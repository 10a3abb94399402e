"""captum's Integrated Gradients with other places for its samples: the import is all that changes.

    from riemannopt_dist.captum import IntegratedGradients

    ig = IntegratedGradients(model)
    maps = ig.attribute(images, target=targets, schedule=ro.optimize_schedule(profile, 8))
    maps = ig.attribute(images, target=targets, n_steps=8, estimator="rescale")

Needs captum (pip install captum). What captum is given goes to captum: without the further arguments the
numbers are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from riemannopt_dist.arguments import check_images
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.estimators.base import ADAPTIVE, LINEAR, Placed, refusal
from riemannopt_dist.estimators.table import ESTIMATORS
from riemannopt_dist.objective import DEFAULT_INTERNAL_BATCH_SIZE, Objective
from riemannopt_dist.paths.straight import StraightPath
from riemannopt_dist.paths.table import Straight
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import linear_schedule
from riemannopt_dist.quadrature.schedule import Schedule

try:
    from captum.attr import IntegratedGradients as CaptumsIntegratedGradients
    from captum.attr._utils.common import _format_input_baseline, _validate_input
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("riemannopt_dist.captum needs captum: pip install captum") from error

Inputs = Tensor | tuple[Tensor, ...]


Method = TypeVar("Method", bound=Callable[..., Any])


def _wrapped(method: Method) -> Method:
    """A method that has `__wrapped__`, by which captum's NoiseTunnel calls the one that it is given."""

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return method(*arguments, **named)

    return cast(Method, call)


class IntegratedGradients(CaptumsIntegratedGradients):  # type: ignore[misc]
    """`captum.attr.IntegratedGradients`, whose `attribute` takes a schedule, an estimator or a tolerance."""

    @_wrapped
    def attribute(
        self,
        inputs: Inputs,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        schedule: Schedule | None = None,
        estimator: str | None = None,
        tolerance: float | None = None,
        profile: Profile | None = None,
    ) -> Any:
        """Attributions as captum gives them, or from samples placed and weighted otherwise.

        A `schedule` stands in place of n_steps and method, for inputs of any kind. An `estimator` (a name in
        ESTIMATORS, such as "rescale") takes n_steps samples of one tensor of images (B, C, H, W), explains
        the output of the class `target`, and places them for each image where there is a `profile` and the
        estimator can. A `tolerance` takes n_steps samples at most, until the estimated error is no larger;
        it needs a profile. `multiply_by_inputs=False` goes with schedules alone.

        Raises ValueError for what does not go together or would not be used, and else as captum does:
        AssertionError for baselines that do not fit the inputs.
        """
        asked = (target, additional_forward_args)
        if schedule is None and estimator is None and tolerance is None:
            if profile is not None:
                raise ValueError("profile: expected an estimator or a tolerance that uses it, got neither")
            return super().attribute(
                inputs, baselines, *asked, n_steps, method, internal_batch_size, return_convergence_delta
            )
        tensors, starts = _format_input_baseline(inputs, baselines)
        _validate_input(tensors, starts)
        maps: Inputs
        if schedule is not None:
            if any(one is not None for one in (estimator, tolerance, profile)):
                raise ValueError("schedule: expected alone, got an estimator, tolerance or profile besides")
            every = self._scheduled(tensors, starts, *asked, schedule, internal_batch_size)
            maps = every[0] if isinstance(inputs, Tensor) else every
        else:
            size = internal_batch_size or DEFAULT_INTERNAL_BATCH_SIZE
            path, objective = self._asked(inputs, starts[0], *asked, size)
            name = estimator or "softmax_trapezoid"
            maps = _estimated(objective, path, name, n_steps, tolerance, profile).maps.to(path.images)
        if not return_convergence_delta:
            return maps
        whole = super().compute_convergence_delta(
            maps, baselines, inputs, additional_forward_args=additional_forward_args, target=target
        )
        return maps, whole

    def _scheduled(
        self,
        tensors: tuple[Tensor, ...],
        starts: tuple[Any, ...],
        target: Any,
        additional_forward_args: Any,
        schedule: Schedule,
        internal_batch_size: int | None,
    ) -> tuple[Tensor, ...]:
        """Captum's sum at the schedule's points, as many of them at once as the batch size has room for."""
        examples = len(tensors[0])
        room = len(schedule) if internal_batch_size is None else max(1, internal_batch_size // examples)
        total: Sequence[Tensor] = [torch.zeros_like(part) for part in tensors]
        for first in range(0, len(schedule), room):
            part = slice(first, first + room)
            points, weights = list(schedule.points[part]), list(schedule.weights[part])
            added = self._attribute(
                inputs=tensors,
                baselines=starts,
                target=target,
                additional_forward_args=additional_forward_args,
                n_steps=len(points),
                step_sizes_and_alphas=(weights, points),
            )
            total = [one + other for one, other in zip(total, added, strict=True)]
        return tuple(total)

    def _asked(
        self, inputs: Inputs, start: Any, target: Any, additional_forward_args: Any, size: int
    ) -> tuple[StraightPath, Objective]:
        """The path and the objective of one batch of images. Raises ValueError for anything else."""
        if not isinstance(inputs, Tensor) or additional_forward_args is not None:
            raise ValueError("estimator: expected one tensor of images, and no additional_forward_args")
        if not isinstance(self.forward_func, nn.Module) or not self.multiplies_by_inputs:
            raise ValueError("estimator: expected a torch.nn.Module, and multiply_by_inputs")
        check_images(inputs, "inputs")
        classes = torch.as_tensor(target if target is not None else -1, device=inputs.device)
        if (
            classes.dtype != torch.int64
            or classes.numel() not in (1, len(inputs))
            or bool((classes < 0).any())
        ):
            raise ValueError(f"target: expected a class index, or one for each image, got {target!r}")
        path = StraightPath(inputs.detach(), torch.as_tensor(start).to(inputs).expand(inputs.shape))
        classes = classes.flatten().expand(len(inputs))
        return path, Objective(self.forward_func, classes, "logit", size)


def _estimated(
    objective: Objective,
    path: StraightPath,
    name: str,
    samples: int,
    tolerance: float | None,
    profile: Profile | None,
) -> Attribution:
    estimator, family = ESTIMATORS[name], Straight()
    own = profile is not None and estimator.refusal(family, ADAPTIVE, samples) is None
    placement = ADAPTIVE if own or tolerance is not None else LINEAR
    if profile is not None and placement == LINEAR:
        raise ValueError(f"profile: expected an estimator that places its samples by one, got {name}")
    if (reason := refusal(estimator, family, placement, samples, tolerance)) is not None:
        raise ValueError(f"estimator {name}, {samples} steps: {reason}")
    schedule = None if placement == ADAPTIVE else linear_schedule(samples, estimator.rule(family))
    return estimator.attribute(objective, path, Placed(samples, schedule, profile, tolerance))
