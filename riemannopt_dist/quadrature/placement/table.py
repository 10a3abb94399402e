"""The placements by name: what a configuration may ask for. A new one is a file here, and an entry.

A placement makes of a profile, a rule and counts of intervals a partition for each count. The names take no
SciPy to know.
"""

from collections.abc import Callable

from riemannopt_dist.quadrature.profile import Profile
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
    renamed={
        "powell": "'eq9' now (RiemannOpt as its authors run it is 'riemannopt')",
        "density": "'equidistribution' now",
        "rough": "'roughness' now",
    },
)
