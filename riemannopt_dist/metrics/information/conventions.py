"""Conventions of performance information curves: how their pictures are made, and what information is."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from riemannopt_dist.arguments import check_choice

THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.10, 0.13, 0.21, 0.34, 0.5, 0.75)
OFFICIAL_COUNTS = 25

# Five scales of halves, each at least as wide as a window of 11.
MS_SSIM_SIDE = 160


@dataclass(frozen=True)
class Convention:
    """How the pictures are made, and what their information is.

    `filling`: what stands in for the pixels not shown. Interpolation on "triangles" or a "pyramid" starts
    from a random 1 % of the pixels, which every picture keeps, and is done anew for every picture; "blur"
    is a Gaussian blur of the input, the same under every picture. `encoding`: what `PIL.Image.save` gets,
    the information being the file's size in bytes; None for MS-SSIM with the input.
    """

    filling: Literal["triangles", "pyramid", "blur"]
    encoding: dict[str, Any] | None

    @property
    def steps(self) -> int:
        """T, the number of pictures a map."""
        return OFFICIAL_COUNTS if self.filling == "blur" else len(THRESHOLDS)


CONVENTIONS = {
    "pair": Convention("triangles", {"format": "webp", "lossless": True, "quality": 100}),
    "fast": Convention("pyramid", {"format": "webp", "lossless": True, "quality": 0, "method": 0}),
    "official_png": Convention("blur", {"format": "png"}),
    "official_ms_ssim": Convention("blur", None),
}


def convention_for(name: str, images: Tensor) -> Convention:
    """The convention called `name`. Raises ValueError for none, and for images that it cannot measure."""
    check_choice(name, tuple(CONVENTIONS), "convention")
    how = CONVENTIONS[name]
    if how.encoding is None and min(images.shape[2:]) <= MS_SSIM_SIDE:
        raise ValueError(f"images: MS-SSIM needs sides above {MS_SSIM_SIDE}, got {tuple(images.shape)}")
    return how
