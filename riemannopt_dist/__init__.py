"""Path attributions evaluated at dataset scale, with optimised Riemann sums.

The public names are imported when they are first used, so that reading a run's results needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riemannopt_dist.attribution import Attribution
    from riemannopt_dist.audit.maps import Audit, audit_maps
    from riemannopt_dist.data.boxes import Box, read_boxes
    from riemannopt_dist.dataset import batches
    from riemannopt_dist.estimators.adaptive import adaptive_attribution, adaptive_to_tolerance
    from riemannopt_dist.estimators.adaptive_rescale import adaptive_rescale_attribution
    from riemannopt_dist.estimators.converged import converge
    from riemannopt_dist.estimators.exact_line import breakpoints, exact_integrated_gradients
    from riemannopt_dist.estimators.rescale import rescale_attribution
    from riemannopt_dist.methods import (
        attribute,
        blur_ig,
        guided_ig,
        idgi,
        integrate_path,
        integrated_gradients,
    )
    from riemannopt_dist.metrics.completeness import completeness_delta, ratio_of_sums, relative_error
    from riemannopt_dist.metrics.infidelity import infidelity
    from riemannopt_dist.metrics.information.curves import information_curve
    from riemannopt_dist.metrics.insertion import deletion, insertion, smoothed_insertion
    from riemannopt_dist.metrics.pointing import pointing_game
    from riemannopt_dist.metrics.randomisation import random_logit_check, randomisation_check
    from riemannopt_dist.metrics.reference import compare
    from riemannopt_dist.metrics.road import road
    from riemannopt_dist.metrics.sensitivity_n import sensitivity_n
    from riemannopt_dist.metrics.sparseness import sparseness
    from riemannopt_dist.models.loading import load_model
    from riemannopt_dist.objective import Objective
    from riemannopt_dist.paths.blur import BlurPath
    from riemannopt_dist.paths.guided import GuidedPath
    from riemannopt_dist.paths.straight import StraightPath
    from riemannopt_dist.paths.table import Blur, Guided, Straight
    from riemannopt_dist.pictures import show
    from riemannopt_dist.quadrature.estimation import estimate_profile
    from riemannopt_dist.quadrature.optimize import optimize_schedule
    from riemannopt_dist.quadrature.profile import Profile, profile_from_variations
    from riemannopt_dist.quadrature.rules import linear_schedule, schedule_from_partition
    from riemannopt_dist.quadrature.schedule import Schedule
    from riemannopt_dist.reader import RunReader, open_run

_HOME = {
    "Attribution": "attribution",
    "Audit": "audit.maps",
    "Blur": "paths.table",
    "BlurPath": "paths.blur",
    "Box": "data.boxes",
    "Guided": "paths.table",
    "GuidedPath": "paths.guided",
    "Objective": "objective",
    "Profile": "quadrature.profile",
    "RunReader": "reader",
    "Schedule": "quadrature.schedule",
    "Straight": "paths.table",
    "StraightPath": "paths.straight",
    "adaptive_attribution": "estimators.adaptive",
    "adaptive_rescale_attribution": "estimators.adaptive_rescale",
    "adaptive_to_tolerance": "estimators.adaptive",
    "attribute": "methods",
    "audit_maps": "audit.maps",
    "batches": "dataset",
    "blur_ig": "methods",
    "breakpoints": "estimators.exact_line",
    "compare": "metrics.reference",
    "completeness_delta": "metrics.completeness",
    "converge": "estimators.converged",
    "deletion": "metrics.insertion",
    "estimate_profile": "quadrature.estimation",
    "exact_integrated_gradients": "estimators.exact_line",
    "guided_ig": "methods",
    "idgi": "methods",
    "infidelity": "metrics.infidelity",
    "information_curve": "metrics.information.curves",
    "insertion": "metrics.insertion",
    "integrate_path": "methods",
    "integrated_gradients": "methods",
    "linear_schedule": "quadrature.rules",
    "load_model": "models.loading",
    "open_run": "reader",
    "optimize_schedule": "quadrature.optimize",
    "pointing_game": "metrics.pointing",
    "profile_from_variations": "quadrature.profile",
    "random_logit_check": "metrics.randomisation",
    "randomisation_check": "metrics.randomisation",
    "ratio_of_sums": "metrics.completeness",
    "read_boxes": "data.boxes",
    "relative_error": "metrics.completeness",
    "rescale_attribution": "estimators.rescale",
    "road": "metrics.road",
    "schedule_from_partition": "quadrature.rules",
    "sensitivity_n": "metrics.sensitivity_n",
    "show": "pictures",
    "smoothed_insertion": "metrics.insertion",
    "sparseness": "metrics.sparseness",
}
__all__ = [
    "Attribution",
    "Audit",
    "Blur",
    "BlurPath",
    "Box",
    "Guided",
    "GuidedPath",
    "Objective",
    "Profile",
    "RunReader",
    "Schedule",
    "Straight",
    "StraightPath",
    "adaptive_attribution",
    "adaptive_rescale_attribution",
    "adaptive_to_tolerance",
    "attribute",
    "audit_maps",
    "batches",
    "blur_ig",
    "breakpoints",
    "compare",
    "completeness_delta",
    "converge",
    "deletion",
    "estimate_profile",
    "exact_integrated_gradients",
    "guided_ig",
    "idgi",
    "infidelity",
    "information_curve",
    "insertion",
    "integrate_path",
    "integrated_gradients",
    "linear_schedule",
    "load_model",
    "open_run",
    "optimize_schedule",
    "pointing_game",
    "profile_from_variations",
    "random_logit_check",
    "randomisation_check",
    "ratio_of_sums",
    "read_boxes",
    "relative_error",
    "rescale_attribution",
    "road",
    "schedule_from_partition",
    "sensitivity_n",
    "show",
    "smoothed_insertion",
    "sparseness",
]


def __getattr__(name: str) -> Any:
    """A public name from the module that it lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
