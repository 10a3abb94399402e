"""Path attributions evaluated at dataset scale, with optimised Riemann sums.

The public names are imported when they are first used, so that reading a run's results needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riemannopt_dist.adaptive import adaptive_attribution, adaptive_to_tolerance
    from riemannopt_dist.adaptive_secant import adaptive_secant_attribution
    from riemannopt_dist.attribution import Attribution, integrate_path, integrated_gradients
    from riemannopt_dist.blur_path import BlurPath
    from riemannopt_dist.exact_line import breakpoints, exact_integrated_gradients
    from riemannopt_dist.guided_path import guided_ig
    from riemannopt_dist.methods import blur_ig, estimate_profile, idgi
    from riemannopt_dist.metrics.completeness import completeness_delta, ratio_of_sums, relative_error
    from riemannopt_dist.metrics.information import information_curve
    from riemannopt_dist.metrics.insertion import deletion, insertion, smoothed_insertion
    from riemannopt_dist.metrics.reference import compare, converge
    from riemannopt_dist.models import load_model
    from riemannopt_dist.optimize import optimize_schedule
    from riemannopt_dist.paths import StraightPath
    from riemannopt_dist.profile import Profile, profile_from_variations
    from riemannopt_dist.schedule import Schedule, linear_schedule, schedule_from_partition
    from riemannopt_dist.secant import secant_attribution

_HOME = {
    "Attribution": "attribution",
    "integrate_path": "attribution",
    "integrated_gradients": "attribution",
    "completeness_delta": "metrics.completeness",
    "ratio_of_sums": "metrics.completeness",
    "relative_error": "metrics.completeness",
    "load_model": "models",
    "optimize_schedule": "optimize",
    "Profile": "profile",
    "profile_from_variations": "profile",
    "BlurPath": "blur_path",
    "adaptive_attribution": "adaptive",
    "adaptive_secant_attribution": "adaptive_secant",
    "adaptive_to_tolerance": "adaptive",
    "blur_ig": "methods",
    "estimate_profile": "methods",
    "breakpoints": "exact_line",
    "exact_integrated_gradients": "exact_line",
    "deletion": "metrics.insertion",
    "insertion": "metrics.insertion",
    "smoothed_insertion": "metrics.insertion",
    "information_curve": "metrics.information",
    "compare": "metrics.reference",
    "converge": "metrics.reference",
    "guided_ig": "guided_path",
    "idgi": "methods",
    "Schedule": "schedule",
    "linear_schedule": "schedule",
    "schedule_from_partition": "schedule",
    "secant_attribution": "secant",
    "StraightPath": "paths",
}
__all__ = [
    "Attribution",
    "BlurPath",
    "Profile",
    "Schedule",
    "StraightPath",
    "adaptive_attribution",
    "adaptive_secant_attribution",
    "adaptive_to_tolerance",
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
    "information_curve",
    "insertion",
    "integrate_path",
    "integrated_gradients",
    "linear_schedule",
    "load_model",
    "optimize_schedule",
    "profile_from_variations",
    "ratio_of_sums",
    "relative_error",
    "schedule_from_partition",
    "secant_attribution",
    "smoothed_insertion",
]


def __getattr__(name: str) -> Any:
    """A public name from the module that it lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
