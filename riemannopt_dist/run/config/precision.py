"""The precision of a model's products."""

from riemannopt_dist.choices import MapPrecision, Precision
from riemannopt_dist.run.config.strict import Strict


class PrecisionConfig(Strict):
    """What a model's products are computed in: for maps (and their profiles), and for scores.

    tf32 rounds what goes into them to ten bits, on a GPU that has it; fp16 and bf16 are torch's autocast.
    What it costs is told by docs/precision.md, and by each run of itself.
    """

    maps: MapPrecision = "fp32"
    scores: Precision = "fp32"
