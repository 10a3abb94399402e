"""The placements by name: what a configuration may ask for. A new one is a file here, and an entry.

A placement makes of a profile, a rule and counts of intervals a partition for each count; one by the output
makes a schedule for each image. The names take no SciPy to know.
"""

from collections.abc import Callable, Mapping
from typing import Any

from riemannopt_dist.entries import function_of, instance_of
from riemannopt_dist.quadrature.placement.output import OutputPlacement, PointsByOutput
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.quadrature.rules import intervals
from riemannopt_dist.quadrature.schedule import Array
from riemannopt_dist.registry import Registry

Placement = Callable[[Profile, str, list[int]], list[Array]]

_HERE = "riemannopt_dist.quadrature.placement"

PLACEMENTS: Registry[Placement] = Registry(
    "placement",
    "riemannopt_dist.placements",
    {
        "riemannopt": f"{_HERE}.riemannopt:riemannopt_partitions",
        "eq9": f"{_HERE}.eq9:eq9_partitions",
        "exact": f"{_HERE}.exact:exact_partitions",
        "equidistribution": f"{_HERE}.equidistribution:density_partitions",
        "roughness": f"{_HERE}.equidistribution:rough_partitions",
    },
    function_of("profile", "rule", "counts", makes="partitions"),
    renamed={
        "powell": "'eq9' now (RiemannOpt as its authors run it is 'riemannopt')",
        "density": "'equidistribution' now",
        "rough": "'roughness' now",
    },
)

_DEPENDS_ON: Mapping[str, Callable[[str, int], tuple[Any, ...]]] = {
    "equidistribution": lambda rule, samples: (),
    "roughness": lambda rule, samples: (),
    "riemannopt": lambda rule, samples: (intervals(samples, rule),),
    "eq9": lambda rule, samples: (intervals(samples, rule),),
}

OUTPUT_PLACEMENTS: Registry[OutputPlacement] = Registry(
    "placement",
    "riemannopt_dist.output_placements",
    {
        "idg": f"{_HERE}.idg:RISE",
        "idg_released": f"{_HERE}.idg:RELEASED_RISE",
        "non_uniform": f"{_HERE}.non_uniform:NON_UNIFORM",
    },
    instance_of(f"{_HERE}.output:OutputPlacement"),
)


def depends_on(name: str, rule: str, samples: int) -> tuple[Any, ...]:
    """What the partition of a placement depends on besides the profile: the rule and the count by default.

    Partitions of equal shares are nested, and like those of Powell's method the same for every rule.
    """
    known = _DEPENDS_ON.get(name)
    return (rule, samples) if known is None else known(rule, samples)


def output_placement(name: str) -> OutputPlacement | None:
    """The placement by the output that is called `name`, or is at that address; None for another one."""
    if name in OUTPUT_PLACEMENTS:
        return OUTPUT_PLACEMENTS[name]
    placement = OUTPUT_PLACEMENTS.at(name) if ":" in name else None
    return placement if isinstance(placement, OutputPlacement) else None


def points_by_output(name: str, rule: str, samples: int) -> PointsByOutput | None:
    """Where each image's own samples are, by its output; None for another placement."""
    placement = output_placement(name)
    return None if placement is None else PointsByOutput(placement, rule, samples)
