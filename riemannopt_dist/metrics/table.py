"""The metrics by name: what a configuration may ask for. A new one is a file, and an entry here."""

from riemannopt_dist.entries import instance_of
from riemannopt_dist.metrics.metric import Metric
from riemannopt_dist.registry import Registry

_HERE = "riemannopt_dist.metrics"

METRICS: Registry[Metric] = Registry(
    "metric",
    "riemannopt_dist.metrics",
    {
        "completeness": f"{_HERE}.completeness:COMPLETENESS",
        "insertion": f"{_HERE}.insertion:INSERTION",
        "insertion_smoothed": f"{_HERE}.insertion:SMOOTHED_INSERTION",
        "deletion": f"{_HERE}.insertion:DELETION",
        "information": f"{_HERE}.information.metric:INFORMATION",
        "information_fast": f"{_HERE}.information.metric:INFORMATION_FAST",
        "information_official_png": f"{_HERE}.information.metric:INFORMATION_OFFICIAL_PNG",
        "information_official_ms_ssim": f"{_HERE}.information.metric:INFORMATION_OFFICIAL_MS_SSIM",
        "infidelity": f"{_HERE}.infidelity:INFIDELITY",
        "sensitivity_n": f"{_HERE}.sensitivity_n:SENSITIVITY_N",
        "road": f"{_HERE}.road:ROAD",
        "sparseness": f"{_HERE}.sparseness:SPARSENESS",
        "pointing_game": f"{_HERE}.pointing:POINTING_GAME",
        "reference": f"{_HERE}.reference:REFERENCE",
    },
    instance_of(f"{_HERE}.metric:Metric"),
)
