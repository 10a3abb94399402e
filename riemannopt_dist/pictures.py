"""Pictures of attributions for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from riemannopt_dist.arguments import check_images
from riemannopt_dist.attribution import Attribution
from riemannopt_dist.metrics.completeness import relative_error
from riemannopt_dist.metrics.insertion import check_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(images: Tensor, attribution: Attribution, names: Sequence[str] = ()) -> Figure:
    """A figure of images (B, C, H, W) in [0, 1], each beside its map laid over it, which a notebook shows.

    Images are RGB or grey. What speaks for the class is orange, what speaks against it purple; each map has a
    scale of its own. A caption tells f and the relative error. `names` (B) stand over the images, their
    numbers unless given. Raises ValueError for maps of other images' shape, and another number of names.
    """
    from riemannopt_dist.reports.figures import overlay_figure

    check_images(images)
    check_maps(attribution.maps, images)
    if names and len(names) != len(images):
        raise ValueError(f"names: expected {len(images)}, a name an image, got {len(names)}")
    errors = relative_error(attribution).tolist()
    captions = [
        f"f {value:.3f}, relative error {error:.3f}"
        for value, error in zip(attribution.f_input.tolist(), errors, strict=True)
    ]
    maps = attribution.maps.sum(1).double().cpu().numpy()
    rows = [
        (name, [(caption, values)])
        for name, caption, values in zip(names or map(str, range(len(images))), captions, maps, strict=True)
    ]
    return overlay_figure(images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).double().cpu().numpy(), "", rows)
