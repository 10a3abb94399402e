"""The metrics by name: what a configuration may ask for. A new one is a file and an entry here."""

from collections.abc import Mapping

from riemannopt_dist.metrics.completeness import COMPLETENESS
from riemannopt_dist.metrics.information import (
    INFORMATION,
    INFORMATION_FAST,
    INFORMATION_OFFICIAL_MS_SSIM,
    INFORMATION_OFFICIAL_PNG,
)
from riemannopt_dist.metrics.insertion import DELETION, INSERTION, SMOOTHED_INSERTION
from riemannopt_dist.metrics.metric import Metric
from riemannopt_dist.metrics.reference import REFERENCE

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        COMPLETENESS,
        INSERTION,
        SMOOTHED_INSERTION,
        DELETION,
        INFORMATION,
        INFORMATION_FAST,
        INFORMATION_OFFICIAL_PNG,
        INFORMATION_OFFICIAL_MS_SSIM,
        REFERENCE,
    )
}
